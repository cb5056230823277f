"""How often to look."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.poll_interval import (
    IN_USE_SECONDS,
    JITTER,
    LEAST_LAG,
    LONGEST,
    MISSING_READER,
    SHARE,
    SHORTEST,
    RefreshDemand,
    add_jitter,
    fast_pause,
    time_limit,
)

elapsed = st.floats(0, 1e6)
random = st.floats(0, 1, exclude_max=True)


@given(elapsed, random)
def test_a_pause_is_a_share_of_the_outage_within_bounds(passed, number):
    pause = fast_pause(passed, number)
    assert SHORTEST * (1 - JITTER) <= pause <= LONGEST * (1 + JITTER)
    assert pause <= max(SHORTEST, SHARE * passed) * (1 + JITTER) + 1e-12


@given(st.floats(1e-6, 1e6), random)
def test_jitter_is_bounded(pause, number):
    assert pause * (1 - JITTER) <= add_jitter(pause, number) <= pause * (1 + JITTER)


def test_the_number_of_looks_grows_slowly():
    def looks(outage: float) -> int:
        count, now = 0, 0.0
        while now < outage:
            now += fast_pause(now, 0.5)
            count += 1
        return count

    assert looks(0.3) <= 55
    assert looks(60.0) <= 260


def test_the_refresh_is_as_slow_as_was_asked_for_while_nothing_is_wished():
    assert RefreshDemand(None, None).pause(30.0, 100.0) == 30.0
    assert RefreshDemand((4.0, 100.0), None).pause(30.0, 101.0 + IN_USE_SECONDS) == 30.0
    assert RefreshDemand(None, 100.0).pause(30.0, 101.0 + IN_USE_SECONDS) == 30.0


def test_a_wish_makes_it_faster():
    assert RefreshDemand((4.0, 100.0), None).pause(30.0, 110.0) == 2.0
    assert RefreshDemand(None, 100.0).pause(30.0, 110.0) == MISSING_READER
    assert RefreshDemand((4.0, 100.0), 100.0).pause(1.0, 110.0) == 1.0


def test_a_bound_that_no_look_can_keep_up_with_is_left_to_connects():
    assert RefreshDemand((LEAST_LAG / 2, 100.0), None).pause(30.0, 110.0) == 30.0


@given(st.floats(0.1, 600), st.floats(0, 600))
def test_the_writer_is_asked_once_a_second_at_most(slow, bound):
    assert RefreshDemand((bound, 0.0), None).pause(slow, 1.0) >= min(slow, LEAST_LAG / 2)


def test_the_lowest_bound_in_use_counts():
    demand = RefreshDemand().bound_lag(4.0, 0.0).bound_lag(8.0, 10.0)
    assert demand.max_lag == (4.0, 0.0)
    assert demand.bound_lag(4.0, 10.0).max_lag == (4.0, 10.0)
    assert demand.bound_lag(2.0, 10.0).max_lag == (2.0, 10.0)
    assert demand.bound_lag(8.0, 1.0 + IN_USE_SECONDS).max_lag == (8.0, 1.0 + IN_USE_SECONDS)


@given(st.floats(0.01, 10), st.floats(0.01, 20), st.floats(0.001, 20))
def test_what_answers_within_a_dial_is_heard_in_three_times_as_long(shortest, longest, needed):
    longest = max(shortest, longest)
    spent, expired = 0.0, 0
    while (limit := time_limit(shortest, longest, expired)) < min(needed, longest):
        spent, expired = spent + limit, expired + 1
        assert shortest <= limit <= longest
    assert spent <= 2.0 * min(needed, longest)
    assert time_limit(shortest, longest, 10**6) == longest
