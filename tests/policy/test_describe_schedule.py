"""When a source of attributes is asked: one process, and ten thousand of them together."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.describe_schedule import (
    FIRST_PAUSE,
    INTERVAL,
    LONGEST_PAUSE,
    QUIET_FAILURES,
    SPREAD,
    DescribeSchedule,
)

BEFORE, AFTER = (frozenset({"demo-1", "demo-2"}), "demo-1"), (frozenset({"demo-1", "demo-2"}), "demo-2")
RANDOM = st.floats(0.0, 1.0, exclude_max=True)


def test_the_first_question_is_asked_at_once():
    schedule = DescribeSchedule().see(BEFORE, 10.0, 0.9)
    assert schedule.is_due(10.0)
    assert not schedule.succeed(10.0, 0.0).is_due(10.0 + INTERVAL / 2 - 1)
    assert schedule.succeed(10.0, 0.0).is_due(10.0 + INTERVAL / 2)


@given(RANDOM, RANDOM)
def test_a_change_is_a_reason_to_ask_within_two_minutes(first, second):
    calm = DescribeSchedule().see(BEFORE, 0.0, 0.0).succeed(0.0, first)
    assert calm.see(BEFORE, 130.0, second) is calm
    changed = calm.see(AFTER, 130.0, second)
    assert changed.next_at == 130.0 + SPREAD * second
    assert changed.see(BEFORE, 135.0, first).next_at == changed.next_at, "it is drawn once"
    soon = calm.see(AFTER, 50.0, second)
    assert soon.next_at == SPREAD + SPREAD * second, "two minutes after the last answer, at the earliest"


@given(st.lists(st.tuples(RANDOM, st.booleans()), min_size=1, max_size=8), RANDOM)
def test_no_change_shortens_the_pause_after_failures(failures, other):
    schedule, now = DescribeSchedule().see(BEFORE, 0.0, 0.0), 0.0
    for number, (chance, lasting) in enumerate(failures):
        now = max(now, schedule.next_at)
        schedule = schedule.fail(now, chance, lasting=lasting)
        least = LONGEST_PAUSE if lasting else min(LONGEST_PAUSE, FIRST_PAUSE * 2**number)
        assert least / 2 - 1e-6 <= schedule.next_at - now <= LONGEST_PAUSE * 1.5 + 1e-6
        assert schedule.see(AFTER, now, other).want().next_at == schedule.next_at
    assert schedule.failures == len(failures)
    assert schedule.succeed(now, other).failures == 0


def test_more_that_is_wanted_is_asked_for_at_once():
    assert DescribeSchedule().succeed(0.0, 0.5).want().is_due(0.0)


@given(RANDOM, st.booleans())
def test_another_source_is_asked_soon_after_a_failure_and_else_when_it_is_time(chance, lasting):
    calm = DescribeSchedule().see(BEFORE, 0.0, 0.0).succeed(0.0, chance)
    assert calm.change_source(1.0) is calm
    failing = calm.fail(1.0, chance, lasting=lasting)
    changed = failing.change_source(2.0)
    assert changed.next_at == min(failing.next_at, 2.0 + FIRST_PAUSE)
    assert changed.change_source(3.0).next_at == changed.next_at, "however often it changes"


def test_people_are_not_advised_of_what_passes():
    assert QUIET_FAILURES > 1


# ---------------------------------------------------------------- many processes

PROCESSES = 10_000
CALLS = 2
"""Of one answer: the instances, and the custom endpoints. The cluster is found once."""
LOOK = 1.0
"""How often the monitor looks whether it is time."""


def run(seconds, changes=(), capacity=math.inf, start=INTERVAL, processes=PROCESSES):
    """Calls per second, by second, of all processes together, as if they were `PROCESSES`.

    Args:
        seconds: how long.
        changes: when the topology changes, and into what; each process sees it within a second.
        capacity: calls per second of all processes above which the API refuses.
        start: within which time the processes start.
        processes: how many of them are simulated.
    """
    rng = random.Random(7)
    calls: Counter[int] = Counter()
    each, schedules = PROCESSES / processes, [DescribeSchedule()] * processes
    due = [(rng.random() * start, process, BEFORE) for process in range(processes)]
    due += [(at + rng.random(), process, shape) for at, shape in changes for process in range(processes)]
    shapes = [BEFORE] * processes
    due.sort(key=lambda entry: entry[0])
    while due and due[0][0] < seconds:
        now, process, shape = heapq.heappop(due)
        shapes[process] = shape or shapes[process]
        schedule = schedules[process].see(shapes[process], now, rng.random())
        if schedule.is_due(now):
            if calls[int(now)] * each < capacity:
                calls[int(now)] += CALLS
                schedule = schedule.succeed(now, rng.random())
            else:
                calls[int(now)] += 1
                schedule = schedule.fail(now, rng.random(), lasting=False)
        if schedule.next_at != schedules[process].next_at:
            heapq.heappush(due, (schedule.next_at + LOOK * rng.random(), process, None))
        schedules[process] = schedule
    return Counter({second: count * each for second, count in calls.items()})


def highest(calls, begin, end, window=10):
    """The highest rate within a time, in calls per second over windows of some seconds."""
    return max(sum(calls[second + each] for each in range(window)) / window for second in range(begin, end - window))


def test_in_calm_ten_thousand_processes_stay_below_120_calls_per_second():
    assert highest(run(1200.0), 300, 1200) <= 120.0


def test_also_if_all_of_them_began_at_once():
    assert highest(run(2700.0, start=10.0, processes=2_000), 1200, 2700) <= 120.0


def test_a_failover_is_spread_over_two_minutes():
    """The writer fails over; the former one leaves the view after 5 s, and is back as a reader after 20 s.

    A process that had an answer in the two minutes before asks later.
    """
    less = frozenset({"demo-2"}), "demo-2"
    calls = run(1100.0, [(700.0, (BEFORE[0], None)), (701.0, AFTER), (706.0, less), (720.0, AFTER)])
    assert highest(calls, 700, 1100) <= 200.0
    assert sum(calls[second] for second in range(700, 700 + 2 * int(SPREAD) + 2)) >= PROCESSES * CALLS


@pytest.mark.parametrize("capacity", [20, 60])
def test_an_api_that_throttles_is_not_asked_more_than_one_that_answers(capacity):
    assert highest(run(3600.0, capacity=capacity, processes=1_000), 1800, 3600) <= 120.0
