"""Target tracking: how many readers are wanted, under loads that stay, grow and go."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.scaling.tracking import (
    HIGH_POINTS,
    LOW_POINTS,
    LOW_SHARE,
    MOST_READERS,
    Metric,
    ScalingPolicy,
    Tracker,
)

BOUNDS = st.tuples(st.integers(0, MOST_READERS), st.integers(1, MOST_READERS)).filter(lambda both: both[0] <= both[1])
COOLDOWN = 5.0


def policy_of(least=1, most=5, target=10.0, **more):
    more = {"out_cooldown": COOLDOWN, "in_cooldown": COOLDOWN, **more}
    return ScalingPolicy(least, most, Metric.CONNECTIONS, target, **more)


def follow(policy, readers, load, points, tracker=None, begin=0.0):
    """Take data points under loads (of all readers together); returns the tracker and the numbers of readers."""
    tracker, numbers = tracker or Tracker(), []
    for number in range(points):
        mean = None if not readers else load(number) / readers
        tracker, readers = tracker.decide(policy, readers, mean, begin + number)
        numbers.append(readers)
    return tracker, numbers


@given(BOUNDS, st.integers(0, MOST_READERS), st.lists(st.floats(0, 1e6) | st.none(), max_size=60))
def test_the_wanted_number_keeps_the_bounds(bounds, readers, means):
    policy, tracker = policy_of(*bounds), Tracker()
    for number, mean in enumerate(means):
        tracker, readers = tracker.decide(policy, readers, mean, float(number))
        assert policy.least <= readers <= policy.most


@given(BOUNDS, st.integers(1, MOST_READERS), st.floats(0, 1e4), st.floats(0.1, 1e3))
def test_under_a_constant_load_the_number_settles_and_stays(bounds, readers, load, target):
    policy = policy_of(*bounds, target=target)
    _, numbers = follow(policy, readers, lambda _: load, 600)
    assert len(set(numbers[-100:])) == 1
    settled = numbers[-1]
    if settled:
        assert load / settled <= target or settled == policy.most
        may_have_less = settled > max(1, policy.least) and load <= (settled - 1) * target * LOW_SHARE
        assert not may_have_less


@given(BOUNDS, st.integers(1, MOST_READERS), st.floats(0, 1e4), st.floats(0.1, 1e3))
def test_what_was_removed_is_not_added_again_under_the_same_load(bounds, readers, load, target):
    policy = policy_of(*bounds, target=target)
    tracker, before = Tracker(), readers
    _, numbers = follow(policy, before, lambda _: load, 600, tracker)
    steps = [after - now for now, after in pairwise(numbers)]
    falls = [number for number, step in enumerate(steps) if step < 0]
    assert not falls or all(step <= 0 for step in steps[falls[0] :])
    assert all(step >= -1 for step in steps), "one at a time"


def test_readers_are_added_after_so_many_points_and_as_many_as_it_takes():
    _, numbers = follow(policy_of(), 1, lambda _: 35.0, HIGH_POINTS + 1)
    assert numbers == [1] * (HIGH_POINTS - 1) + [4, 4]


def test_a_peak_that_is_over_adds_none():
    _, numbers = follow(policy_of(), 1, lambda number: 35.0 if number % HIGH_POINTS else 5.0, 30)
    assert set(numbers) == {1}


def test_between_two_additions_there_is_a_pause():
    loads = [15.0] * HIGH_POINTS + [25.0] * 20
    _, numbers = follow(policy_of(out_cooldown=10.0), 1, loads.__getitem__, len(loads))
    first, second = numbers.index(2), numbers.index(3)
    assert second - first == 10


def test_readers_are_removed_slowly_and_one_at_a_time():
    _, numbers = follow(policy_of(), 4, lambda _: 5.0, 4 * LOW_POINTS)
    assert [numbers.index(count) + 1 for count in (3, 2, 1)] == [LOW_POINTS, 2 * LOW_POINTS, 3 * LOW_POINTS]


def test_a_reader_is_not_removed_if_the_others_would_be_near_the_target():
    assert set(follow(policy_of(), 2, lambda _: 9.5, 100)[1]) == {2}
    assert follow(policy_of(), 2, lambda _: 9.0, 100)[1][-1] == 1


@pytest.mark.parametrize(("readers", "wanted"), [(0, 2), (1, 2), (7, 5)])
def test_the_bounds_count_at_once(readers, wanted):
    tracker = Tracker(added_at=99.0, changed_at=99.0)
    assert tracker.decide(policy_of(2, 5), readers, None, 100.0)[1] == wanted


def test_what_is_not_known_decides_nothing():
    tracker = Tracker(high=HIGH_POINTS - 1, low=LOW_POINTS - 1)
    after, wanted = tracker.decide(policy_of(), 3, None, 100.0)
    assert (wanted, after.high, after.low) == (3, 0, 0)
    assert follow(policy_of(0, 5), 0, lambda _: math.inf, 50)[1][-1] == 0, "no reader, so nothing is measured"
