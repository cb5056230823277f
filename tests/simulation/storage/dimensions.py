"""Which kinds of trouble a schedule has, beside the incidents that every schedule may have.

Without dimensions one thing happens at a time, on disks that never fail; a seed plays then what it always played. Each
*dimension* adds one kind of trouble. Which ones a schedule has follows from its seed alone, and not from the random
numbers that the rest of the schedule is made of.
"""

from __future__ import annotations

import random
from typing import Final

DIMENSIONS: Final = {
    "failing_disks": "a disk is full, or reports errors, for a while; its node is absent until it is opened again",
    "scrubs_beside": "bytes flip, scrubs run, and the log is read, while other things are under way",
    "concurrent_recoveries": "several recoveries run at once, some of which are broken off",
    "concurrent_changes": "changes of the members and collections of garbage overlap and are interrupted, also by "
    "drivers whose epoch is over; nodes that are no members any more lose their disks",
    "late_messages": "messages arrive twice, or long after their sender gave up",
    "slow_network": "messages take so long that answers come after the deadline",
    "reordered_writes": "of what was not synced a crash keeps any part, also later parts alone",
    "slow_starts": "a node takes a while to start, and may be killed meanwhile",
    "three_left": "three nodes are lost at a time; what is durable can be read all the same",
}
"""Name -> what it adds. Campaigns draw from all of them."""


def draw(seed: int) -> frozenset[str]:
    """The dimensions that the schedule of a seed has: often several, for many faults need two kinds of trouble."""
    rng = random.Random(f"dimensions of {seed}")
    return frozenset(rng.sample(sorted(DIMENSIONS), rng.choice([0, 1, 2, 2, 3, 4])))
