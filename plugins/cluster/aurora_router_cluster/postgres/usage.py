"""How much of the machine's processors each instance uses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aurora_router_cluster.postgres import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

INTERVAL = 1.0  # seconds; a measurement reads every process of the machine


class ProcessorMeter:
    """Turns processor seconds into percent.

    Args:
        read: postmasters -> processor seconds used so far.
        processors: how many the machine has.
    """

    def __init__(
        self,
        read: Callable[[Collection[int]], Mapping[int, float]] = processes.cpu_seconds,
        processors: int | None = None,
    ) -> None:
        self._read = read
        self._processors = processors or os.cpu_count() or 1
        self._at = float("-inf")
        self._spent: Mapping[int, float] = {}

    def measure(self, postmasters: Collection[int], now: float) -> dict[int, float]:
        """Percent (0 to 100, of all processors) used since the last measurement, for those known then.

        Args:
            postmasters: process ids.
            now: monotonic time, seconds; empty is returned where the last measurement is less than a second ago.
        """
        elapsed = now - self._at
        if elapsed < INTERVAL:
            return {}
        before, self._spent, self._at = self._spent, self._read(postmasters), now
        return {
            pid: max(0.0, min(100.0, 100.0 * (spent - before[pid]) / elapsed / self._processors))
            for pid, spent in self._spent.items()
            if pid in before
        }
