"""Choosing among instances that suit equally: one small function per strategy, each with its promise.

A chooser orders *all* candidates, because a connect goes on to the next one when the first cannot be reached. What is
promised holds for the first of the order, over many selections of which each is counted in `Load.connections` (or in
`Context.turn`) before the next one is made; tests state it as figures.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.policy.options import Balance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aurora_router.model.instance import Instance
    from aurora_router.policy.context import Context

    Chooser = Callable[[Sequence[Instance], Context], list[Instance]]

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0

FAST_FACTOR = 1.25
"""A latency up to this factor above the lowest one counts as equally low: measurements scatter."""
FAST_MARGIN = 0.001
"""… and so does one up to this many seconds above it."""


def random(candidates: Sequence[Instance], context: Context) -> list[Instance]:
    """Each with the same probability, independently of all else.

    Promise: of N selections among n each gets N/n, give or take five standard deviations of a binomial distribution,
    5 · sqrt(N · (n - 1)) / n: 200 ± 63 of 1,000 among five.
    """
    return sorted(candidates, key=lambda _: context.rng.random())


def round_robin(candidates: Sequence[Instance], context: Context) -> list[Instance]:
    """One after the other, by `Context.turn`.

    Promise: of N selections with consecutive turns each gets N/n exactly, rounded down or up. What would have gone to
    one that cannot be reached is spread evenly over the others: the digits of the turn, in a mixed base, choose them.
    """
    order, left, turn = [], list(candidates), context.turn
    while left:
        turn, position = divmod(turn, len(left))
        order.append(left.pop(position))
    return order


def weighted(candidates: Sequence[Instance], context: Context) -> list[Instance]:
    """In proportion to the weights, by `Context.turn`, without clustering.

    The turn's multiple of the golden ratio, modulo 1, is a point in an interval that is divided by weight. These points
    are spread more evenly than random ones (L. Kuipers, H. Niederreiter, "Uniform Distribution of Sequences", 1974,
    chapter 2, theorem 3.4: the discrepancy is O(log N / N)).

    Promise: of N <= 10,000 selections with consecutive turns each gets its share, give or take 5.
    """
    order, left, point = [], list(candidates), context.turn * _GOLDEN % 1.0
    while left:
        position, point = _divide([context.weight(each) for each in left], point)
        order.append(left.pop(position))
    return order


def _divide(weights: Sequence[int], point: float) -> tuple[int, float]:
    """Which part of the unit interval, divided by weight, a point is in, and where in that part (again 0..1)."""
    place = point * sum(weights)
    for position, weight in enumerate(weights[:-1]):
        if place < weight:
            return position, place / weight
        place -= weight
    return len(weights) - 1, min(max(place / weights[-1], 0.0), 1.0)


def least_connections(candidates: Sequence[Instance], context: Context) -> list[Instance]:
    """The one with the fewest connections of this process; equals in random order.

    Promise: the counts of any two that are there all the time differ by 1 at most, once they have done so; an instance
    that joins is chosen until it has caught up.
    """
    return sorted(candidates, key=lambda each: (context.load(each).connections, context.rng.random()))


def two_choices(candidates: Sequence[Instance], context: Context) -> list[Instance]:
    """Of two drawn at random, the one under less pressure.

    Pressure is (connections + 1) · (1 + CPU share) · (1 + lag in seconds); what is unknown counts as the mean of
    what is known. It reacts to what other processes do to an instance, without all of them reacting in the same way at
    once (Y. Azar, A. Broder, A. Karlin, E. Upfal, "Balanced Allocations", 1994).

    Promise: under equal CPU and lag, the counts of five differ by 10 at most, however many selections are made.
    """
    order, left, pressures = [], list(candidates), pressure(candidates, context)
    while left:
        first = int(context.rng.random() * len(left))
        second = (first + 1 + int(context.rng.random() * (len(left) - 1))) % len(left)
        order.append(left.pop(min(first, second, key=lambda position: pressures[left[position].id])))
    return order


def pressure(candidates: Sequence[Instance], context: Context) -> dict[str, float]:
    """The pressure on each, by id; see `two_choices`."""
    cpu = _fill_unknown([each.cpu for each in candidates])
    lag = _fill_unknown([each.lag for each in candidates])
    return {
        each.id: (context.load(each).connections + 1) * (1.0 + cpu[position] / 100.0) * (1.0 + lag[position])
        for position, each in enumerate(candidates)
    }


def _fill_unknown(values: Sequence[float | None]) -> list[float]:
    """The values, with the mean of the known ones in place of the unknown."""
    known = [each for each in values if each is not None]
    mean = sum(known) / len(known) if known else 0.0
    return [mean if each is None else each for each in values]


def fastest(candidates: Sequence[Instance], context: Context) -> list[Instance]:
    """The one with the lowest latency, without a herd.

    Four groups, one after the other; within each the fewest connections first, equals in random order:

    1. not measured, and no connection made or being made: one probe each;
    2. a latency equal to the lowest one, but for `FAST_FACTOR` or `FAST_MARGIN`;
    3. not measured, the probe is under way;
    4. the others, by latency.

    Promise: all of the equally fast are within 1 of each other, an instance that is clearly slower is chosen only while
    no faster one can be reached, and an unmeasured one gets one connection until its measurement is there.
    """
    limit = _fast_limit(candidates, context)

    def key(instance: Instance) -> tuple[int, float, int, float]:
        load = context.load(instance)
        if load.latency is None:
            group, slowness = (2 if load.connections else 0), 0.0
        else:
            group, slowness = (1, 0.0) if load.latency <= limit else (3, load.latency)
        return group, slowness, load.connections, context.rng.random()

    return sorted(candidates, key=key)


def are_fast(candidates: Sequence[Instance], context: Context) -> list[Instance]:
    """Those that `fastest` spreads connections over: the equally fast, and those to be measured."""
    limit = _fast_limit(candidates, context)

    def is_fast(instance: Instance) -> bool:
        load = context.load(instance)
        return not load.connections if load.latency is None else load.latency <= limit

    return [each for each in candidates if is_fast(each)]


def _fast_limit(candidates: Sequence[Instance], context: Context) -> float:
    """Up to which latency, in seconds, one counts as equally fast."""
    known = [load.latency for each in candidates if (load := context.load(each)).latency is not None]
    lowest = min(known, default=0.0)
    return max(lowest * FAST_FACTOR, lowest + FAST_MARGIN)


CHOOSERS: Mapping[Balance, Chooser] = MappingProxyType(
    {
        Balance.RANDOM: random,
        Balance.ROUND_ROBIN: round_robin,
        Balance.WEIGHTED: weighted,
        Balance.LEAST_CONNECTIONS: least_connections,
        Balance.TWO_CHOICES: two_choices,
        Balance.FASTEST: fastest,
    }
)
