"""How fast a process reconnects after a failover."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.ramp import CALM, FIRST_JITTER, LEAST, LONGEST, LONGEST_FIRST, SHARE, WIDEST, Ramp

random = st.floats(0, 1, exclude_max=True)
endings = st.tuples(st.sampled_from(["quick", "slow", "failed", "ended"]), st.floats(0, 5), random)


@given(st.lists(endings))
def test_it_never_deadlocks_and_stays_within_its_bounds(history):
    ramp, now = Ramp.begun(0.0, 0.5), 0.0
    for kind, pause, number in history:
        now += pause
        if ramp.wait(now) == 0.0:
            ramp = ramp.dialled()
        elif ramp.under_way == 0:
            assert ramp.wait(now) <= LONGEST
            continue
        if kind in {"quick", "slow"}:
            ramp = ramp.succeeded(0.002 if kind == "quick" else 3.0, now, number)
        else:
            ramp = ramp.failed(pause, now, number) if kind == "failed" else ramp.ended()
        assert 1 <= ramp.width <= WIDEST
        assert ramp.under_way >= 0
        assert ramp.until - now <= max(LONGEST, FIRST_JITTER)


def test_one_first_then_twice_as_many_with_each_success():
    ramp = Ramp.begun(10.0, 0.0).dialled()
    assert ramp.wait(10.0) is None
    widths = []
    while not ramp.over:
        ramp = ramp.succeeded(0.01, 11.0, 0.5)
        widths.append(ramp.width)
        ramp = ramp.dialled()
    assert widths == [2, 4, 8, 16, 32, 64]


def test_the_first_dial_is_spread():
    assert Ramp.begun(10.0, 0.0).wait(10.0) == 0.0
    assert 0 < Ramp.begun(10.0, 0.999).wait(10.0) <= FIRST_JITTER


def test_trouble_halves_and_pauses_in_proportion():
    ramp = Ramp(width=8, under_way=3, first=False)
    ramp = ramp.failed(0.001, 100.0, 0.5)
    assert (ramp.width, ramp.under_way, ramp.wait(100.0)) == (4, 2, LEAST * 0.75)
    ramp = ramp.failed(1.0, 101.0, 0.5)
    assert (ramp.width, ramp.wait(101.0)) == (2, SHARE * 0.75)
    assert ramp.failed(0.5, 101.0, 0.5).wait(101.0) == SHARE * 0.25 * 0.75, "a hiccup counts less"
    assert Ramp(first=False).failed(5.0, 0.0, 1.0).wait(0.0) == LONGEST


def test_who_has_none_comes_back_sooner():
    assert Ramp().failed(5.0, 0.0, 1.0).wait(0.0) == LONGEST_FIRST
    assert not Ramp().dialled().succeeded(0.01, 0.0, 0.5).first


def test_a_slow_handshake_is_trouble_though_it_succeeds():
    ramp = Ramp(width=4, under_way=2, usual=0.01)
    assert ramp.succeeded(0.3, 1.0, 0.5).width == 2
    assert ramp.succeeded(0.2, 1.0, 0.5).width == 8, "a quarter of a second is nothing"


def test_what_says_nothing_changes_nothing():
    assert Ramp(width=4, under_way=1).ended() == Ramp(width=4)


def test_it_expires_when_nobody_dials_any_more():
    ramp = Ramp(until=10.0)
    assert not ramp.expired(10.0 + CALM - 0.1)
    assert ramp.expired(10.0 + CALM)
    assert not ramp.dialled().expired(10.0 + CALM), "one is under way"
