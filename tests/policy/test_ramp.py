"""How fast a process reconnects after a failover."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.ramp import CALM, FIRST_JITTER, HICCUP, LEAST, LEAST_PART, LONGEST, SHARES, WIDEST, Ramp

PART = LEAST_PART + (1.0 - LEAST_PART) * 0.5
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
    assert (ramp.width, ramp.under_way, ramp.wait(100.0)) == (4, 2, LEAST * PART)
    ramp = ramp.failed(1.0, 102.0, 0.5)
    assert (ramp.width, ramp.wait(102.0)) == (2, SHARES[1] * PART)
    ramp = ramp.failed(1.0, 104.0, 0.5)
    assert (ramp.width, ramp.wait(104.0)) == (1, SHARES[2] * PART)
    assert ramp.failed(0.5, 106.0, 0.5).wait(106.0) == SHARES[2] * 0.25 * PART, "what is less counts less"
    assert ramp.failed(5.0, 110.0, 1.0).wait(110.0) == LONGEST


@given(st.floats(0.0, HICCUP), random)
def test_one_slow_handshake_pauses_no_longer_than_itself(seconds, number):
    ramp = Ramp(usual=0.005, under_way=1).succeeded(seconds, 10.0, number)
    assert ramp.wait(10.0) <= max(LEAST, seconds) + 1e-9


def test_those_that_went_on_at_once_are_one_trouble_and_a_quick_one_ends_the_row():
    ramp = Ramp(width=8, under_way=2, usual=0.005, first=False)
    ramp = ramp.succeeded(2.0, 10.0, 0.5).succeeded(2.0, 10.5, 0.5)
    assert (ramp.row, ramp.wait(10.5)) == (1, 2.0 * PART)
    ramp = ramp.dialled().succeeded(1.0, 13.0, 0.5)
    assert ramp.row == 2
    ramp = ramp.dialled().succeeded(0.01, 20.0, 0.5).dialled().succeeded(2.0, 23.0, 0.5)
    assert (ramp.row, ramp.wait(23.0)) == (1, 2.0 * PART)


def test_what_takes_longer_than_a_hiccup_is_taken_for_trouble_at_once():
    ramp = Ramp(usual=0.005, under_way=1, first=False).succeeded(HICCUP + 0.1, 10.0, 0.5)
    assert (ramp.row, ramp.wait(10.0)) == (1, SHARES[1] * (HICCUP + 0.1) * PART)


def test_who_has_none_comes_back_sooner():
    ramp, now, waits = Ramp(), 0.0, []
    for _ in range(6):
        ramp = ramp.dialled().failed(5.0, now + 5.0, 0.999999)
        waits.append(round(ramp.wait(now + 5.0)))
        now = ramp.until
    assert waits == [16, 16, 32, 64, 64, 64]
    assert not ramp.dialled().succeeded(0.01, 0.0, 0.5).first


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


@given(st.floats(0.3, 60.0), random)
def test_a_slow_dial_that_was_not_attended_to_is_neither_trouble_nor_success(seconds, number):
    ramp = Ramp(width=4, under_way=2, usual=0.01, row=1, first=False)
    after = ramp.succeeded(seconds, 10.0, number, attended=False)
    assert (after.width, after.under_way, after.row, after.wait(10.0)) == (4, 1, 1, 0.0)
    assert ramp.succeeded(0.02, 10.0, number, attended=False).width == 8, "a quick one shows room all the same"


@given(st.floats(0.0, 60.0), random)
def test_who_has_none_any_more_waits_after_one_trouble_as_long_as_it_took(seconds, number):
    ramp = Ramp(usual=0.005, under_way=1, first=False).failed(seconds, 10.0, number)
    assert ramp.wait(10.0, alone=True) <= min(ramp.wait(10.0), max(LEAST, seconds)) + 1e-9


@given(st.lists(st.floats(0.0, 60.0), min_size=1), random)
def test_who_has_none_never_waits_longer_than_others_nor_after_a_quick_probe(troubles, number):
    ramp, now = Ramp(usual=0.005, first=False), 0.0
    for seconds in troubles:
        now += seconds
        ramp = ramp.dialled().failed(seconds, now, number)
        assert ramp.wait(now, alone=True) <= ramp.wait(now)
    assert ramp.probed(3.0, now) == ramp
    probed = ramp.probed(0.02, now)
    assert probed.wait(now, alone=True) == 0.0
    assert probed.wait(now) == ramp.wait(now), "others wait on: one quick handshake is room for one"
