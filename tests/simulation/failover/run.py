"""Play many schedules: ``python -m tests.simulation.failover.run --schedules 20000``; ``--seed N --schedules 1``: one.

Ends with status 1 if any schedule breaks a promise, or if a planted bug is not found (``--mutants``). With ``--json
FILE`` the figures are written there as ``{figure: {"value", "unit", "bound", "ok"}}``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from .mutants import MUTANTS, Mutant
from .schedule import play

CHUNK = 25
HUNTED = 1500
"""Within so many seeds every planted bug is found."""


def replay(seed: int) -> str:
    """The command that plays a seed again."""
    return f"python -m tests.simulation.failover.run --seed {seed} --schedules 1"


def play_chunk(seeds: range) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Play the schedules of some seeds; return what happened in them, and (seed, report) of each violation."""
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    for seed in seeds:
        try:
            counts += play(seed)
        except Exception:  # noqa: BLE001  # any failure of any kind is a finding, to be printed with its seed
            failures.append((seed, traceback.format_exc(limit=-3)))
    return counts, failures


def hunt(mutant: Mutant, seeds: int = HUNTED) -> int | None:
    """The first seed below `seeds` under which the simulation finds a planted bug, None if it does not."""
    with mutant.plant():
        for seed in range(seeds):
            try:
                play(seed)
            except Exception:  # noqa: BLE001  # a bug may show in any way
                return seed
    return None


def simulate(first: int, schedules: int, jobs: int) -> tuple[Counter[str], list[tuple[int, str]], float]:
    """Play seeds [first, first + schedules) in `jobs` processes; return counts, violations and seconds."""
    chunks = [range(i, min(i + CHUNK, first + schedules)) for i in range(first, first + schedules, CHUNK)]
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    began = time.perf_counter()
    with multiprocessing.Pool(jobs) as pool:
        for done, (more, bad) in enumerate(pool.imap_unordered(play_chunk, chunks), 1):
            counts += more
            failures += bad
            for seed, report in bad:
                print(f"seed {seed}, replay: {replay(seed)}\n{report}", flush=True)
            if done % 40 == 0:
                print(f"{done * CHUNK} schedules, {len(failures)} violations", file=sys.stderr, flush=True)
    return counts, failures, time.perf_counter() - began


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutants", action="store_true", help="hunt the planted bugs too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    counts, failures, seconds = simulate(options.seed, options.schedules, options.jobs)
    print(f"{options.schedules} schedules in {seconds:.1f} s: {dict(counts)}; {len(failures)} violations")
    transactions = counts["acked"] + counts["failed"] + counts["unknown"]
    figures = {
        "schedules": _figure(options.schedules, "schedules", None, ok=True),
        "violations": _figure(len(failures), "schedules", 0, ok=not failures),
        "transactions": _figure(transactions, "transactions", None, ok=True),
        "left unknown": _figure(counts["unknown"], "transactions", None, ok=True),
        "rate": _figure(round(options.schedules / seconds, 1), "schedules/s", None, ok=True),
    }
    if options.mutants:
        with multiprocessing.Pool(options.jobs) as pool:
            found = pool.map(hunt, MUTANTS, chunksize=1)
        for mutant, seed in zip(MUTANTS, found, strict=True):
            print(f"{mutant.name}: {'NOT FOUND' if seed is None else f'found, seed {seed}'}")
        missed = found.count(None)
        figures["planted bugs found"] = _figure(len(MUTANTS) - missed, "bugs", len(MUTANTS), ok=not missed)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figure["ok"] for figure in figures.values()) else 1


def _figure(value: float, unit: str, bound: float | None, *, ok: bool) -> dict[str, object]:
    return {"value": value, "unit": unit, "bound": bound, "ok": ok}


if __name__ == "__main__":
    sys.exit(main())
