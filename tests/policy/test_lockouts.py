"""Servers that refuse the monitor's login are not asked for a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.lockouts import LOCKOUT_SECONDS, LONGEST_LOCKOUT_SECONDS, Lockouts


def test_each_refusal_doubles_the_lockout_up_to_the_limit():
    lockouts, now, lengths = Lockouts(), 0.0, []
    for _ in range(6):
        lockouts = lockouts.record_refusal("demo-1", now)
        lengths.append(lockouts.terms["demo-1"].length)
        assert lockouts.is_locked_out("demo-1", now)
        now = lockouts.terms["demo-1"].until
        assert not lockouts.is_locked_out("demo-1", now)
    assert lengths == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


@given(st.lists(st.floats(0, 1e5), max_size=200).map(sorted))
def test_one_that_always_refuses_is_seldom_asked(moments):
    lockouts, asked = Lockouts(), []
    for now in moments:
        if not lockouts.is_locked_out("demo-1", now):
            asked.append(now)
            lockouts = lockouts.record_refusal("demo-1", now)
    assert all(asked[each + 1] - asked[each] >= LOCKOUT_SECONDS for each in range(len(asked) - 1))
    assert not moments or len(asked) <= 5 + (moments[-1] - moments[0]) / LONGEST_LOCKOUT_SECONDS


def test_an_accepted_login_starts_from_the_beginning():
    lockouts = Lockouts().record_refusal("demo-1", 0.0).record_refusal("demo-1", 60.0).record_login("demo-1")
    assert not lockouts.terms
    assert lockouts.record_login("demo-1") is lockouts
    assert lockouts.record_refusal("demo-1", 0.0).terms["demo-1"].length == LOCKOUT_SECONDS


def test_a_user_who_connects_has_all_asked_again_and_lengths_are_kept():
    lockouts = Lockouts().record_refusal("demo-1", 10.0).record_refusal("demo-2", 10.0).retry()
    assert not any(lockouts.is_locked_out(name, 10.0) for name in ("demo-1", "demo-2"))
    assert lockouts.record_refusal("demo-1", 11.0).terms["demo-1"].length == 2 * LOCKOUT_SECONDS


def test_what_left_is_forgotten():
    lockouts = Lockouts().record_refusal("demo-1", 0.0).record_refusal("demo-2", 0.0)
    assert lockouts.keep({"demo-1", "demo-2", "demo-3"}) is lockouts
    assert set(lockouts.keep({"demo-2"}).terms) == {"demo-2"}
