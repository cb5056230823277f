"""The capacity of a serverless instance, in ACU, as a figure that follows its load.

The model. The processors of the machine stand for the upper limit. An instance needs the capacity in which what it does
now would be `AIM` of the whole: a use of 35 % of the machine, with a limit of 16 ACU, needs 16 · 0.35 / 0.7 = 8 ACU.
Growing takes steps that are larger where the instance is larger already, as on Aurora: at most by `GROWTH` of the
present capacity per second; shrinking is slower, at most by `SHRINKING` of it. It moves by half an ACU at least. An
instance that sleeps has none.

It is a figure: PostgreSQL gets no more or less of the machine. How Aurora weighs processors, memory and network is not
published; memory, which Aurora keeps longer than it needs it, is not in this model.

Source: Amazon Aurora User Guide, "How Aurora Serverless v2 works" (capacity in steps of 0.5 ACU, 0 to 256; the rate of
scaling depends on the present capacity; scaling down is slower).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STEP = 0.5
MOST_CAPACITY = 256.0
AIM = 0.7
GROWTH = 1.0
SHRINKING = 0.1


@dataclass(frozen=True, slots=True)
class CapacityLimits:
    """Between which capacities an instance moves, in ACU, in steps of 0.5.

    Attributes:
        least: 0: it may sleep.
        most: at least 1, and not below `least`.
    """

    least: float
    most: float

    @property
    def first(self) -> float:
        """The capacity of an instance that was just started."""
        return max(self.least, STEP)


def next_capacity(now: float, cpu: float | None, limits: CapacityLimits, seconds: float) -> float:
    """Return the capacity after some time.

    Args:
        now: the present one, in ACU.
        cpu: use of the machine's processors, in percent; None: not known, so it stays.
        limits: see there.
        seconds: since it was last computed.
    """
    floor = limits.first
    now = min(max(now, floor), limits.most)
    if cpu is None:
        return now
    needed = limits.most * min(100.0, max(0.0, cpu)) / 100.0 / AIM
    needed = min(max(math.ceil(needed / STEP) * STEP, floor), limits.most)
    if needed > now:
        return min(needed, now + max(STEP, math.floor(now * GROWTH * seconds / STEP) * STEP))
    if needed < now:
        return max(needed, now - max(STEP, math.floor(now * SHRINKING * seconds / STEP) * STEP))
    return now
