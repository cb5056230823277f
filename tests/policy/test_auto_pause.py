"""Whether an instance may have paused: only where that is declared, and nothing was there for the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.view import View
from aurora_router.policy.auto_pause import find_pause, may_have_paused
from aurora_router.policy.options import Options

TIMES = st.floats(0.0, 1e6)


@given(st.floats(1.0, 1e5), TIMES, TIMES)
def test_what_was_in_use_within_the_time_has_not_paused(pause, used_at, later):
    now = used_at + later
    assert may_have_paused(pause, used_at, now) is (now - used_at >= pause)
    assert not may_have_paused(pause, now, now)


@given(TIMES)
def test_what_was_never_used_may_have_paused_where_that_is_declared(now):
    assert may_have_paused(300.0, None, now)
    assert not may_have_paused(None, None, now)


@pytest.mark.parametrize(
    ("given_", "described", "expected"),
    [(None, None, None), (None, 300.0, 300.0), (600.0, 300.0, 600.0), (0.0, 300.0, None), (600.0, None, 600.0)],
)
def test_the_users_word_comes_before_the_description(given_, described, expected):
    assert find_pause(Options(auto_pause=given_), View(auto_pause=described)) == expected
