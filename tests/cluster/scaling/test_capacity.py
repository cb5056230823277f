"""The capacity of serverless instances: within its limits, faster up than down, settled under a constant load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.scaling.capacity import AIM, STEP, CapacityLimits, next_capacity

LIMITS = st.tuples(st.integers(0, 32), st.integers(2, 512)).filter(lambda both: both[0] <= both[1])
CPU = st.floats(0.0, 100.0)


def settle(now, cpu, limits, seconds=1.0):
    steps = [now]
    while (after := next_capacity(steps[-1], cpu, limits, seconds)) != steps[-1]:
        steps.append(after)
        assert len(steps) < 2000
    return steps


@given(LIMITS, st.floats(0.0, 300.0), CPU | st.none(), st.floats(0.0, 100.0))
def test_it_keeps_its_limits(bounds, now, cpu, seconds):
    limits = CapacityLimits(bounds[0] * STEP, bounds[1] * STEP)
    assert limits.first <= next_capacity(now, cpu, limits, seconds) <= limits.most


@given(LIMITS, CPU, CPU)
def test_more_load_needs_no_less(bounds, one, other):
    limits = CapacityLimits(bounds[0] * STEP, bounds[1] * STEP)
    low, high = sorted([one, other])
    assert settle(limits.first, low, limits)[-1] <= settle(limits.first, high, limits)[-1]


@given(LIMITS, st.floats(0.5, 256.0), CPU)
def test_it_settles_where_the_load_is_the_aim_and_does_not_swing(bounds, now, cpu):
    limits = CapacityLimits(bounds[0] * STEP, bounds[1] * STEP)
    steps = settle(now, cpu, limits)
    needed = limits.most * cpu / 100.0 / AIM
    assert abs(steps[-1] - min(max(needed, limits.first), limits.most)) < STEP
    assert steps[1:] in (sorted(steps[1:]), sorted(steps[1:], reverse=True))


def test_it_grows_faster_the_larger_it_is_and_shrinks_slowly():
    limits = CapacityLimits(0.5, 64.0)
    up, down = settle(0.5, 100.0, limits), settle(64.0, 0.0, limits)
    assert up == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert len(down) > 3 * len(up)
    assert down[-1] == 0.5


def test_what_is_not_known_changes_nothing():
    assert next_capacity(4.0, None, CapacityLimits(0.5, 16.0), 10.0) == 4.0
