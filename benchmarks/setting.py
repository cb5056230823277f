"""What the families of measurements share: the cluster, how long to measure, where the stock driver connects."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from benchmarks import paired
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster import LocalCluster

OURS, STOCK, CONTROL = "ours", "stock", "control"
WIDTH = 0.015  # of the 95 % interval of a ratio, at which to stop
SECONDS = 25.0  # for each ratio, after which to stop in any case


@dataclass
class Setting:
    """One run of the benchmarks.

    Attributes:
        quick: a tenth of the time; wider intervals, the same bounds.
        repeats: rounds of what is done in rounds; None: as many as each family wants.
        options: for ``LocalCluster.start``.
        rng: draws the order of blocks.
    """

    quick: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    rng: random.Random = field(default_factory=random.Random)
    repeats: int | None = None
    _started: LocalCluster | None = None

    @cached_property
    def cluster(self) -> LocalCluster:
        """The cluster of this run, started when first asked for."""
        from aurora_router_cluster import LocalCluster

        self._started = LocalCluster.start(**{"readers": 2, **self.options})
        return self._started

    def close(self) -> None:
        """End the cluster, if one was started."""
        if self._started is not None:
            self._started.close()

    def rounds(self, count: int) -> int:
        """How many runs to make where `count` are due."""
        if self.repeats is not None:
            return self.repeats
        return max(3, count // 10) if self.quick else count

    def compare(self, name: str, bound: float, batch: Callable[[], paired.Samples]) -> list[Figure]:
        """Run batches of ours, stock and control until their ratio is known well enough; the figures of it."""
        samples = paired.converge(batch, (OURS, STOCK), width=WIDTH, seconds=SECONDS / (10 if self.quick else 1))
        return compared(name, samples, bound)

    def stock_parameters(self, target: str) -> str:
        """A conninfo with which psycopg alone reaches the same instance: its address is given, it resolves nothing."""
        return self.cluster.plain_conninfo(target)


def compared(name: str, samples: paired.Samples, bound: float) -> list[Figure]:
    """Figures of a comparison: the ratio, what it adds, and the control of the stock one with itself."""
    ours = paired.ratio(samples, OURS, STOCK)
    control = paired.ratio(samples, CONTROL, STOCK)
    added = paired.added(samples, OURS, STOCK)
    note = f"95 % {ours.low:.3f}..{ours.high:.3f}, {len(samples[OURS])} rounds"
    return [
        Figure.at_most(f"{name}, ours / stock", ours.value, "x", bound, f"{note}, {added * 1e6:+.1f} µs a block"),
        Figure.unbounded(f"{name}, stock / stock", control.value, "x", f"95 % {control.low:.3f}..{control.high:.3f}"),
    ]
