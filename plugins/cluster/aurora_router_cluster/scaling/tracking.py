"""Target tracking: how many readers a cluster wants, by the mean of a figure over its readers.

Theory. As on Aurora, the number of readers follows a target: the mean over the readers of their connections, or of
their processor use. One *data point* is taken per period. After `HIGH_POINTS` in a row above the target readers are
added, as many as bring the mean to the target if the load stays. Removing is slower: only after `LOW_POINTS` in a row
below `LOW_SHARE` of the target, one reader at a time, and only if the mean of those that are left stays below that
share, too. So what was removed is not added straight after. Between two changes passes a cool-down; one that adds ends
at once a wait to remove. The bounds count at once, without data points and cool-downs.

Invariants (property tests): the wanted number is within the bounds, or between them and the present one; under a
constant load the number settles, and stays; a removal is never followed by an addition under the same load.

Sources: Amazon Aurora User Guide, "Aurora Auto Scaling"; Application Auto Scaling User Guide, "Target tracking scaling
policies". AWS publishes cool-downs of 300 s and periods of 60 s; how many data points its alarms take, and that it
removes no more than one reader at a time, is not promised there.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

HIGH_POINTS = 3
LOW_POINTS = 15
LOW_SHARE = 0.9
MOST_READERS = 15


class Metric(enum.Enum):
    """The figure whose mean over the readers is tracked; the value is what CloudWatch calls it."""

    CONNECTIONS = "RDSReaderAverageDatabaseConnections"
    CPU = "RDSReaderAverageCPUUtilization"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """How the number of readers follows the load.

    Attributes:
        least: readers at least, those of the user included.
        most: readers at most.
        metric: the figure that is tracked.
        target: what its mean shall be: connections per reader, or percent.
        period: seconds between two data points (Aurora: 60).
        out_cooldown: seconds between two additions (Aurora: 300).
        in_cooldown: seconds from the last change until a removal (Aurora: 300).
        drain: seconds that the sessions of a removed reader get (Aurora: 180).
    """

    least: int
    most: int
    metric: Metric
    target: float
    period: float = 1.0
    out_cooldown: float = 5.0
    in_cooldown: float = 5.0
    drain: float = 60.0


@dataclass(frozen=True, slots=True)
class Tracker:
    """What the decision depends on besides the load; times are in seconds by one clock.

    Attributes:
        high: data points above the target in a row.
        low: data points below `LOW_SHARE` of it in a row.
        added_at: when readers were added last.
        changed_at: when readers were added or removed last.
    """

    high: int = 0
    low: int = 0
    added_at: float = -math.inf
    changed_at: float = -math.inf

    def decide(self, policy: ScalingPolicy, readers: int, mean: float | None, now: float) -> tuple[Tracker, int]:
        """Take a data point.

        Args:
            policy: the policy in force.
            readers: how many there are.
            mean: of the figure over them; None: it is not known, so it decides nothing.
            now: the time.

        Returns:
            The tracker after it, and how many readers are wanted.
        """
        bounded = min(max(readers, policy.least), policy.most)
        if bounded != readers:
            return _note_change(self, now, added=bounded > readers), bounded
        if mean is None or readers == 0:
            return replace(self, high=0, low=0), readers
        low_enough = policy.target * LOW_SHARE
        after = replace(
            self,
            high=self.high + 1 if mean > policy.target else 0,
            low=self.low + 1 if mean < low_enough else 0,
        )
        if after.high >= HIGH_POINTS and now - self.added_at >= policy.out_cooldown:
            wanted = min(policy.most, max(readers + 1, math.ceil(readers * mean / policy.target)))
            return (_note_change(after, now, added=True), wanted) if wanted > readers else (after, readers)
        may_remove = readers > max(1, policy.least) and readers * mean <= (readers - 1) * low_enough
        if after.low >= LOW_POINTS and may_remove and now - self.changed_at >= policy.in_cooldown:
            return _note_change(after, now, added=False), readers - 1
        return after, readers


def _note_change(tracker: Tracker, now: float, *, added: bool) -> Tracker:
    """After readers were added or removed: the data points are counted from the beginning."""
    return Tracker(added_at=now if added else tracker.added_at, changed_at=now)
