"""Many schedules of a simulation, played by several processes; a hunt for its planted bugs; the figures of both.

A simulation's `run` module says what is played and hands its command line to `Campaign.main`. The figures are printed
as a table, and written with ``--json FILE`` as ``{figure: {"value", "unit", "bound", "ok"}}``.

A campaign starts at a base seed that is drawn for it and printed, because schedules that were played before prove
nothing about those that were not. A seed that ever failed becomes a test. A planted bug counts as found when `ENOUGH`
seeds found it, or as many as the campaign says: one seed may be luck.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.figures import Figure, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

TELLING = 4000  # schedules between two lines of progress
ENOUGH = 5
"""So many seeds have to find a planted bug."""
LONGEST = 30.0
"""Seconds of CPU after which a schedule, which takes a fraction of one, is taken for endless."""
BASES = range(1_000_000, 1_000_000_000)
"""Base seeds are drawn from these: above all seeds that are tests."""


def draw_base() -> int:
    """A base seed for one campaign; the caller prints it."""
    return random.SystemRandom().choice(BASES)


class Mutant(Protocol):
    """A planted bug; it may have a `play` of its own, where it shows in other schedules than the campaign's."""

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
        hunted: how many schedules a hunt for one of them may take.
        schedules: how many are played where nothing else is said.
        chunk: how many a process plays at a time.
        figures_of: further figures, of what was counted.
        enough: so many seeds have to find each planted bug.
    """

    module: str
    play: Callable[[int], Counter[str]]
    mutants: Sequence[Mutant]
    hunted: int
    schedules: int
    chunk: int
    figures_of: Callable[[Counter[str]], Iterable[Figure]] = lambda _: ()
    enough: int = ENOUGH

    def main(self, description: str, arguments: list[str] | None = None) -> int:
        """Do what the command line asks for; 1: something broke its promise, or a planted bug was not found."""
        options = self._options(description, arguments)
        base = draw_base() if options.seed is None else options.seed
        hunts = " --mutants" if options.mutants else ""
        print(f"base seed {base}, replay: {self.replay(base, options.schedules)}{hunts}", flush=True)
        began = time.perf_counter()
        counts, failures = self.simulate(base, options.schedules, options.jobs)
        seconds = time.perf_counter() - began
        print(f"{options.schedules} schedules in {seconds:.1f} s: {dict(counts)}; {len(failures)} violations")
        figures = [
            Figure.unbounded("schedules", options.schedules, ""),
            Figure.at_most("violations", len(failures), "", 0),
            *self.figures_of(counts),
            Figure.unbounded("rate", round(options.schedules / seconds, 1), "schedules/s"),
        ]
        if options.mutants:
            found = self.hunt_all(base, options.jobs, options.enough)
            figures += [
                Figure.at_least(f"seeds that find: {mutant.name}", len(seeds), "", options.enough)
                for mutant, seeds in zip(self.mutants, found, strict=True)
            ]
        return report(figures, options.json)

    def _options(self, description: str, arguments: list[str] | None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--schedules", type=int, default=self.schedules)
        parser.add_argument("--seed", type=int, default=None, help="the base seed; without it, one is drawn")
        parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
        parser.add_argument("--mutants", action="store_true", help="hunt the planted bugs too")
        parser.add_argument("--enough", type=int, default=self.enough, help="so many seeds have to find each of them")
        parser.add_argument("--json", type=Path, metavar="FILE")
        return parser.parse_args(arguments)

    def replay(self, seed: int, schedules: int = 1) -> str:
        """The command that plays seeds again."""
        return f"python -m {self.module} --seed {seed} --schedules {schedules}"

    def check(self, schedules: int) -> None:
        """Play schedules in this process, from a base seed drawn for them.

        Raises:
            AssertionError: promises were broken; it says by which seeds.
        """
        base = draw_base()
        print(f"base seed {base}, replay: {self.replay(base, schedules)}")
        _, failures = self._played(range(base, base + schedules))
        assert not failures, "\n".join(self._told(*each) for each in failures)

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
                for each in bad:
                    print(self._told(*each), flush=True)
                if done * self.chunk % TELLING == 0:
                    print(f"{done * self.chunk} schedules, {len(failures)} violations", file=sys.stderr, flush=True)
        return counts, failures

    def _play(self, seed: int) -> Counter[str]:
        with _limited():
            return self.play(seed)

    def _hunted(self, mutant: Mutant, seed: int) -> None:
        """Play a seed in the way that a planted bug asks for."""
        with _limited():
            (getattr(mutant, "play", None) or self.play)(seed)

    def _played(self, seeds: range) -> Found:
        counts: Counter[str] = Counter()
        failures: list[tuple[int, str]] = []
        for seed in seeds:
            try:
                counts += self._play(seed)
            except Exception:  # noqa: BLE001 - any failure of any kind is a finding, to be printed with its seed
                failures.append((seed, traceback.format_exc(limit=-4)))
        return counts, failures

    def _told(self, seed: int, report: str) -> str:
        return f"seed {seed}, replay: {self.replay(seed)}\n{report}"

    def hunt_all(self, base: int, jobs: int, enough: int = ENOUGH) -> list[list[int]]:
        """The seeds that find each planted bug, from `base` on; hunted by `jobs` processes."""
        with _pool(jobs, lambda index: self.hunt(self.mutants[index], base, enough=enough)) as pool:
            found: list[list[int]] = pool.map(_call, range(len(self.mutants)), chunksize=1)
        for mutant, seeds in zip(self.mutants, found, strict=True):
            short = "" if len(seeds) >= enough else "TOO FEW "
            print(f"{mutant.name}: {short}{len(seeds)} seeds, the first of them {seeds[:1] or 'none'}")
        return found

    def hunt(self, mutant: Mutant, base: int, schedules: int | None = None, *, enough: int = ENOUGH) -> list[int]:
        """The seeds, from `base` on, that find a planted bug: `enough`, or as many as `schedules` hold."""
        found: list[int] = []
        with mutant.plant():
            for seed in range(base, base + (self.hunted if schedules is None else schedules)):
                try:
                    self._hunted(mutant, seed)
                except Exception:  # noqa: BLE001 - a bug may show in any way
                    found.append(seed)
                if len(found) >= enough:
                    break
        return found


class _Endless(KeyboardInterrupt):
    """A schedule used too much time; like Ctrl-C, it leaves tasks and loops, and no code under test catches it."""


@contextmanager
def _limited() -> Iterator[None]:
    """Raise `AssertionError` in what takes too long: some bugs show as a loop without an end."""

    overdue = False

    def give_up(*_: object) -> None:
        nonlocal overdue
        overdue = True
        raise _Endless

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, LONGEST, 1.0)
    try:
        yield
    except BaseException:
        if not overdue:  # else whatever the interruption led to
            raise
        raise AssertionError(f"a schedule used more than {LONGEST:g} s of CPU") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


_work: Callable[[Any], Any]  # what a process of the pool does; it inherits it by the fork


def _pool(jobs: int, work: Callable[[Any], Any]) -> Any:
    return multiprocessing.get_context("fork").Pool(jobs, initializer=_adopt, initargs=(work,))


def _adopt(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - functions reach a process by name alone, so that this one is the same for all work
    _work = work


def _call(what: Any) -> Any:
    return _work(what)
