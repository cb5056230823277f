"""Which paths lead straight to a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.paths import (
    LONGEST_UNANSWERED_SECONDS,
    MAX_PATHS,
    UNANSWERED_SECONDS,
    Known,
    is_direct,
    record_no_answer,
    remember,
)

HERE, THERE = ("10.0.0.1", 50_123), ("10.0.0.9", 5432)


@pytest.mark.parametrize(
    ("seen", "local", "peer", "direct"),
    [
        (("10.0.0.9", "5432", "50123"), HERE, THERE, True),
        (("10.0.0.9", "5432", "50124"), HERE, THERE, False),  # a proxy on the way, or a tunnel
        (("10.0.0.8", "5432", "50123"), HERE, THERE, False),  # a packet filter leads to one of several servers
        (("10.0.0.9", "6432", "50123"), HERE, THERE, False),
        ((None, None, None), HERE, THERE, False),  # a pooler on the server's machine, connected by a local socket
        ((None, None, None), None, None, False),
        (("::1", "5432", "7"), ("::1", 7), ("::1", 5432), True),
        (("fe80::1", "5432", "7"), ("fe80::2%eth0", 7), ("FE80::1%eth0", 5432), True),
        (("10.0.0.9", "5432", "7"), ("::ffff:10.0.0.1", 7), ("::ffff:10.0.0.9", 5432), True),
    ],
)
def test_a_path_is_direct_where_both_ends_see_the_same(seen, local, peer, direct):
    assert is_direct(seen, local, peer) is direct


@given(st.lists(st.integers(0, 2 * MAX_PATHS), max_size=3 * MAX_PATHS))
def test_what_is_remembered_is_bounded_and_the_newest_is_there(ports):
    paths = {}
    for port in ports:
        paths = remember(paths, ("10.0.0.1", port), Known(direct=True, until=1.0))
        assert len(paths) <= MAX_PATHS
        assert list(paths)[-1] == ("10.0.0.1", port)


@pytest.mark.parametrize("direct", [True, False])
def test_a_question_without_an_answer_is_asked_again_soon_and_then_more_seldom(direct):
    known, now = Known(direct=direct, until=600.0), 600.0
    for times in range(1, 40):
        known = record_no_answer(known, now)
        assert known.direct is direct
        assert known.until - now == min(UNANSWERED_SECONDS * 2.0 ** (times - 1), LONGEST_UNANSWERED_SECONDS)
    assert not record_no_answer(None, now).direct
