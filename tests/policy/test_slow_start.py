"""How fast a process reconnects after a failover."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.slow_start import (
    CALM,
    FIRST_JITTER,
    HICCUP,
    LEAST,
    LEAST_PART,
    LONGEST,
    SHARES,
    WIDEST,
    SlowStart,
)

PART = LEAST_PART + (1.0 - LEAST_PART) * 0.5
random = st.floats(0, 1, exclude_max=True)
endings = st.tuples(st.sampled_from(["quick", "slow", "failed", "ended"]), st.floats(0, 5), random)


@given(st.lists(endings))
def test_it_never_deadlocks_and_stays_within_its_bounds(history):
    slow_start, now = SlowStart.begin(0.0, 0.5), 0.0
    for kind, pause, number in history:
        now += pause
        if slow_start.wait(now) == 0.0:
            slow_start = slow_start.add_dial()
        elif slow_start.under_way == 0:
            assert slow_start.wait(now) <= LONGEST
            continue
        if kind in {"quick", "slow"}:
            slow_start = slow_start.record_success(0.002 if kind == "quick" else 3.0, now, number)
        else:
            slow_start = slow_start.record_failure(pause, now, number) if kind == "failed" else slow_start.remove_dial()
        assert 1 <= slow_start.width <= WIDEST
        assert slow_start.under_way >= 0
        assert slow_start.until - now <= max(LONGEST, FIRST_JITTER)


def test_one_first_then_twice_as_many_with_each_success():
    slow_start = SlowStart.begin(10.0, 0.0).add_dial()
    assert slow_start.wait(10.0) is None
    widths = []
    while not slow_start.over:
        slow_start = slow_start.record_success(0.01, 11.0, 0.5)
        widths.append(slow_start.width)
        slow_start = slow_start.add_dial()
    assert widths == [2, 4, 8, 16, 32, 64]


def test_the_first_dial_is_spread():
    assert SlowStart.begin(10.0, 0.0).wait(10.0) == 0.0
    assert 0 < SlowStart.begin(10.0, 0.999).wait(10.0) <= FIRST_JITTER


def test_trouble_halves_and_pauses_in_proportion():
    slow_start = SlowStart(width=8, under_way=3, first=False)
    slow_start = slow_start.record_failure(0.001, 100.0, 0.5)
    assert (slow_start.width, slow_start.under_way, slow_start.wait(100.0)) == (4, 2, LEAST * PART)
    slow_start = slow_start.record_failure(1.0, 102.0, 0.5)
    assert (slow_start.width, slow_start.wait(102.0)) == (2, SHARES[1] * PART)
    slow_start = slow_start.record_failure(1.0, 104.0, 0.5)
    assert (slow_start.width, slow_start.wait(104.0)) == (1, SHARES[2] * PART)
    assert slow_start.record_failure(0.5, 106.0, 0.5).wait(106.0) == SHARES[2] * 0.25 * PART, "what is less counts less"
    assert slow_start.record_failure(5.0, 110.0, 1.0).wait(110.0) == LONGEST


@given(st.floats(0.0, HICCUP), random)
def test_one_slow_handshake_pauses_no_longer_than_itself(seconds, number):
    slow_start = SlowStart(usual=0.005, under_way=1).record_success(seconds, 10.0, number)
    assert slow_start.wait(10.0) <= max(LEAST, seconds) + 1e-9


def test_those_that_went_on_at_once_are_one_trouble_and_a_quick_one_ends_the_row():
    slow_start = SlowStart(width=8, under_way=2, usual=0.005, first=False)
    slow_start = slow_start.record_success(2.0, 10.0, 0.5).record_success(2.0, 10.5, 0.5)
    assert (slow_start.row, slow_start.wait(10.5)) == (1, 2.0 * PART)
    slow_start = slow_start.add_dial().record_success(1.0, 13.0, 0.5)
    assert slow_start.row == 2
    slow_start = slow_start.add_dial().record_success(0.01, 20.0, 0.5).add_dial().record_success(2.0, 23.0, 0.5)
    assert (slow_start.row, slow_start.wait(23.0)) == (1, 2.0 * PART)


def test_what_takes_longer_than_a_hiccup_is_taken_for_trouble_at_once():
    slow_start = SlowStart(usual=0.005, under_way=1, first=False).record_success(HICCUP + 0.1, 10.0, 0.5)
    assert (slow_start.row, slow_start.wait(10.0)) == (1, SHARES[1] * (HICCUP + 0.1) * PART)


def test_who_has_none_comes_back_sooner():
    slow_start, now, waits = SlowStart(), 0.0, []
    for _ in range(6):
        slow_start = slow_start.add_dial().record_failure(5.0, now + 5.0, 0.999999)
        waits.append(round(slow_start.wait(now + 5.0)))
        now = slow_start.until
    assert waits == [16, 16, 32, 64, 64, 64]
    assert not slow_start.add_dial().record_success(0.01, 0.0, 0.5).first


def test_a_slow_handshake_is_trouble_though_it_succeeds():
    slow_start = SlowStart(width=4, under_way=2, usual=0.01)
    assert slow_start.record_success(0.3, 1.0, 0.5).width == 2
    assert slow_start.record_success(0.2, 1.0, 0.5).width == 8, "a quarter of a second is nothing"


def test_what_says_nothing_changes_nothing():
    assert SlowStart(width=4, under_way=1).remove_dial() == SlowStart(width=4)


def test_it_expires_when_nobody_dials_any_more():
    slow_start = SlowStart(until=10.0)
    assert not slow_start.is_expired(10.0 + CALM - 0.1)
    assert slow_start.is_expired(10.0 + CALM)
    assert not slow_start.add_dial().is_expired(10.0 + CALM), "one is under way"


@given(st.floats(0.3, 60.0), random)
def test_a_slow_dial_that_was_not_attended_to_is_neither_trouble_nor_success(seconds, number):
    slow_start = SlowStart(width=4, under_way=2, usual=0.01, row=1, first=False)
    after = slow_start.record_success(seconds, 10.0, number, attended=False)
    assert (after.width, after.under_way, after.row, after.wait(10.0)) == (4, 1, 1, 0.0)
    assert slow_start.record_success(0.02, 10.0, number, attended=False).width == 8, (
        "a quick one shows room all the same"
    )


@given(st.floats(0.0, 60.0), random)
def test_who_has_none_any_more_waits_after_one_trouble_as_long_as_it_took(seconds, number):
    slow_start = SlowStart(usual=0.005, under_way=1, first=False).record_failure(seconds, 10.0, number)
    assert slow_start.wait(10.0, alone=True) <= min(slow_start.wait(10.0), max(LEAST, seconds)) + 1e-9


@given(st.lists(st.floats(0.0, 60.0), min_size=1), random)
def test_who_has_none_never_waits_longer_than_others_nor_after_a_quick_probe(troubles, number):
    slow_start, now = SlowStart(usual=0.005, first=False), 0.0
    for seconds in troubles:
        now += seconds
        slow_start = slow_start.add_dial().record_failure(seconds, now, number)
        assert slow_start.wait(now, alone=True) <= slow_start.wait(now)
    assert slow_start.record_probe(3.0, now) == slow_start
    probed = slow_start.record_probe(0.02, now)
    assert probed.wait(now, alone=True) == 0.0
    assert probed.wait(now) == slow_start.wait(now), "others wait on: one quick handshake is room for one"
