"""Comparing what differs by less than the machine's noise.

Theory. Noise on a shared machine is mostly slow (another job runs for seconds, the clock frequency drifts) and its
outliers are one-sided. So contestants run in short blocks, all of them once per round, in a new random order for each
round: what is slow hits the blocks of one round alike and cancels in their ratio, and what depends on the position
(a server process that still ends) cancels over rounds. The median over rounds is deaf to outliers.

Blocks are about a millisecond: few of them are interrupted at all. Batches of rounds go on until the interval is as
narrow as asked for or the time is up; that looks at the width alone, never at the value, so it favours none.

The interval is that of the median by order statistics (binomial, 95 %), which supposes nothing about the distribution.
A *control* contestant, the stock one a second time, shows what is left of the noise.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

Block = Callable[[], float]
"""A block of work; returns the seconds that count, so that preparing and clearing away need not."""

Loop = Callable[[int], float]
"""A block of as many operations as asked for; returns the seconds that they took."""

Samples = dict[str, list[float]]
"""Seconds of each block by contestant, in the order of rounds."""


@dataclass(frozen=True)
class Ratio:
    """A median of paired ratios with its 95 % interval.

    Attributes:
        value: the median.
        low: the interval's lower end.
        high: its upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def alternate(contestants: Mapping[str, Block], rounds: int, rng: random.Random) -> Samples:
    """Run every contestant once per round, in an order drawn for each round."""
    names = list(contestants)
    samples: Samples = {name: [] for name in names}
    gc.collect()
    gc.freeze()  # what exists by now is not looked at again by a collection in the middle of a block
    try:
        for _ in range(rounds):
            rng.shuffle(names)
            for name in names:
                samples[name].append(contestants[name]())
    finally:
        gc.unfreeze()
    return samples


def converge(batch: Callable[[], Samples], pair: tuple[str, str], *, width: float, seconds: float) -> Samples:
    """Run batches until the interval of a ratio is narrow enough, three at least.

    Args:
        batch: runs some rounds, for example with connections of its own.
        pair: numerator and denominator of the ratio.
        width: of the interval, above which to go on.
        seconds: how long to go on at most.
    """
    deadline = time.monotonic() + seconds
    parts = [batch() for _ in range(3)]
    while True:
        samples = merged(parts)
        reported = ratio(samples, *pair)
        if reported.high - reported.low <= width or time.monotonic() > deadline:
            return samples
        parts.append(batch())


@contextlib.contextmanager
def apart(servers: Iterable[int]) -> Iterator[None]:
    """Keep this process and the server processes it talks to on a CPU each, so that their placement is no difference.

    Where that is not possible (one CPU, foreign processes, no such call) they stay where the scheduler puts them. The
    servers are expected to end with their connections.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        with contextlib.suppress(OSError):
            for server in servers:
                os.sched_setaffinity(server, {cpus[1]})
            os.sched_setaffinity(0, {cpus[0]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def merged(parts: Sequence[Samples]) -> Samples:
    """The samples of several runs as those of one; rounds stay paired."""
    return {name: [each for part in parts for each in part[name]] for name in parts[0]}


def ratio(samples: Samples, numerator: str, denominator: str) -> Ratio:
    """The median over rounds of how many times longer `numerator` took than `denominator`.

    Raises:
        ValueError: there are no rounds.
    """
    ratios = sorted(above / below for above, below in zip(samples[numerator], samples[denominator], strict=True))
    low, high = _ranks(len(ratios))
    return Ratio(statistics.median(ratios), ratios[low], ratios[high])


def added(samples: Samples, name: str, base: str) -> float:
    """The median over rounds of how many seconds longer `name` took than `base`."""
    return statistics.median(mine - its for mine, its in zip(samples[name], samples[base], strict=True))


def _ranks(count: int) -> tuple[int, int]:
    """Indices, from 0, of the ordered values that enclose the median with a probability of 95 % (normal approximation).

    For few values that is all of them, and the probability is lower.
    """
    if count == 0:
        raise ValueError("no rounds were run: there is nothing to compare")
    reach = 1.96 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - reach))
    return low, count - 1 - low


def count_for(loop: Loop, seconds: float, most: int = 1_000_000) -> int:
    """How many operations make a block of about `seconds`."""
    count = 1
    while count < most:
        took = loop(count)
        if took >= seconds / 4:
            return max(1, min(most, round(count * seconds / took)))
        count = min(most, count * 4)
    return most
