"""Many schedules of a simulation, played by several processes; its planted bugs, hunted; the figures, told.

A simulation's `run` module says what is played and hands its command line to `Campaign.main`. The figures are printed
as a table, and written with ``--json FILE`` as ``{figure: {"value", "unit", "bound", "ok"}}``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.figures import Figure, table, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

TELLING = 4000  # schedules between two lines of progress


class Mutant(Protocol):
    """A planted bug."""

    @property
    def name(self) -> str:
        """What it does wrong."""
        ...

    @property
    def plant(self) -> Callable[[], AbstractContextManager[Any]]:
        """Puts it in, for a while."""
        ...


Found = tuple[Counter[str], list[tuple[int, str]]]
"""What happened in some schedules, and (seed, report) of each violation."""


@dataclass(frozen=True)
class Campaign:
    """What is played.

    Attributes:
        module: the name of the module that is run, for the command that plays a seed again.
        play: plays the schedule of a seed and counts what happened in it; raises where a promise is broken.
        mutants: the planted bugs.
        hunted: each of them is found below this seed.
        schedules: how many are played where nothing else is said.
        chunk: how many a process plays at a time.
        tell: further figures, of what was counted.
    """

    module: str
    play: Callable[[int], Counter[str]]
    mutants: Sequence[Mutant]
    hunted: int
    schedules: int
    chunk: int
    tell: Callable[[Counter[str]], Iterable[Figure]] = lambda _: ()

    def main(self, description: str, arguments: list[str] | None = None) -> int:
        """Do what the command line asks for; 1: something broke its promise, or a planted bug was not found."""
        options = self._options(description, arguments)
        began = time.perf_counter()
        counts, failures = self.simulate(options.seed, options.schedules, options.jobs)
        seconds = time.perf_counter() - began
        print(f"{options.schedules} schedules in {seconds:.1f} s: {dict(counts)}; {len(failures)} violations")
        figures = [
            Figure.told("schedules", options.schedules, ""),
            Figure.at_most("violations", len(failures), "", 0),
            *self.tell(counts),
            Figure.told("rate", round(options.schedules / seconds, 1), "schedules/s"),
        ]
        if options.mutants:
            missed = sum(seed is None for seed in self.hunt_all(options.jobs))
            found = len(self.mutants) - missed
            figures.append(Figure.at_least("planted bugs found", found, "", len(self.mutants)))
        print(table(figures))
        if options.json:
            write_json(figures, options.json)
        return 0 if all(each.ok for each in figures) else 1

    def _options(self, description: str, arguments: list[str] | None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--schedules", type=int, default=self.schedules)
        parser.add_argument("--seed", type=int, default=0, help="first seed")
        parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
        parser.add_argument("--mutants", action="store_true", help="hunt the planted bugs too")
        parser.add_argument("--json", type=Path, metavar="FILE")
        return parser.parse_args(arguments)

    def simulate(self, first: int, schedules: int, jobs: int) -> Found:
        """Play seeds [first, first + schedules) in `jobs` processes."""
        end = first + schedules
        chunks = [range(at, min(at + self.chunk, end)) for at in range(first, end, self.chunk)]
        counts: Counter[str] = Counter()
        failures: list[tuple[int, str]] = []
        with _pool(jobs, self._played) as pool:
            for done, (more, bad) in enumerate(pool.imap_unordered(_call, chunks), 1):
                counts += more
                failures += bad
                for seed, report in bad:
                    replay = f"python -m {self.module} --seed {seed} --schedules 1"
                    print(f"seed {seed}, replay: {replay}\n{report}", flush=True)
                if done * self.chunk % TELLING == 0:
                    print(f"{done * self.chunk} schedules, {len(failures)} violations", file=sys.stderr, flush=True)
        return counts, failures

    def _played(self, seeds: range) -> Found:
        counts: Counter[str] = Counter()
        failures: list[tuple[int, str]] = []
        for seed in seeds:
            try:
                counts += self.play(seed)
            except Exception:  # noqa: BLE001 - any failure of any kind is a finding, to be printed with its seed
                failures.append((seed, traceback.format_exc(limit=-4)))
        return counts, failures

    def hunt_all(self, jobs: int) -> list[int | None]:
        """Hunt every planted bug, in `jobs` processes."""
        with _pool(jobs, self._hunted) as pool:
            found: list[int | None] = pool.map(_call, range(len(self.mutants)), chunksize=1)
        for mutant, seed in zip(self.mutants, found, strict=True):
            print(f"{mutant.name}: {'NOT FOUND' if seed is None else f'found, seed {seed}'}")
        return found

    def _hunted(self, index: int) -> int | None:
        return self.hunt(self.mutants[index], self.hunted)

    def hunt(self, mutant: Mutant, seeds: int) -> int | None:
        """The first seed below `seeds` under which the simulation finds a planted bug, None if it does not."""
        with mutant.plant():
            for seed in range(seeds):
                try:
                    self.play(seed)
                except Exception:  # noqa: BLE001 - a bug may show in any way
                    return seed
        return None


_work: Callable[[Any], Any]  # what a process of the pool does; it inherits it by the fork


def _pool(jobs: int, work: Callable[[Any], Any]) -> Any:
    return multiprocessing.get_context("fork").Pool(jobs, initializer=_adopt, initargs=(work,))


def _adopt(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - functions reach a process by name alone, so that this one is the same for all work
    _work = work


def _call(what: Any) -> Any:
    return _work(what)
