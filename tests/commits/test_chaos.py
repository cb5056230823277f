"""A bounded form of ``benchmarks.chaos_commits``: every accident once, with each way."""

from __future__ import annotations

import pytest

from benchmarks.chaos_commits import ACCIDENTS, WAYS, Tally, play

from .pair import Pair

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("way", WAYS)
def test_no_verdict_is_wrong(binaries, account, way, accident):
    tally = Tally()
    restarts = "off" if accident == "promotion" else "on"
    with Pair(binaries, account, sync=True, restart_after_crash=restarts) as pair:
        play(pair, way, accident, 7, 12, tally)
    assert tally.wrong == []
    assert tally.cut >= 24
    if way == "witness":
        assert tally.unknown_calls == tally.unknown_attempts == 0
