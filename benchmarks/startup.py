"""How long until a local cluster of one writer and two readers is ready, with its template cached and without.

Its processes may keep compiled bytecode, as they do by default: where that is switched off, compiling all modules again
is half of a start.

On a disk the clusters of a series end together, after it: some file systems are slow to create files for half a minute
after many were deleted (ext4 without a journal looks for inodes that were not deleted recently: 3 s instead of 0.5).
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import LocalCluster
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.setting import Setting

RUNS, FIRST_RUNS = 10, 3
PLACES = {"on disk": ("/var/tmp", 1.0), "on tmpfs": ("/dev/shm", 0.4)}
FIRST_S = 4.0
_CACHE = "AURORA_ROUTER_CACHE"
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


def measure(setting: Setting) -> Iterator[Figure]:
    """Cluster ready: every instance answers."""
    before = os.environ.pop(_NO_BYTECODE, None)
    try:
        yield from _figures(setting)
    finally:
        if before is not None:
            os.environ[_NO_BYTECODE] = before


def _figures(setting: Setting) -> Iterator[Figure]:
    _start(setting.options)
    for place, (directory, bound) in PLACES.items():
        if not os.access(directory, os.W_OK):
            print(f"!!! cluster ready {place} was NOT measured: {directory} can't be written !!!", file=sys.stderr)
            continue
        cached = _starts({**setting.options, "directory": directory}, setting.rounds(RUNS), kept=place == "on disk")
        name = f"cluster ready, {place}, template cached"
        yield Figure.at_most(name, statistics.median(cached), "s", bound, _spread(cached, "starts"))
    first = [_first_ever(setting.options) for _ in range(1 if setting.quick else FIRST_RUNS)]
    yield Figure.at_most("cluster ready, first ever", statistics.median(first), "s", FIRST_S, _spread(first, "starts"))


def _start(options: dict[str, Any]) -> float:
    return _starts(options, 1, kept=False)[0]


def _starts(options: dict[str, Any], times: int, *, kept: bool) -> list[float]:
    seconds: list[float] = []
    with ExitStack() as running:
        for _ in range(times):
            start = perf_counter()
            running.enter_context(LocalCluster.start(**{"readers": 2, **options}))
            seconds.append(perf_counter() - start)
            if not kept:
                running.close()
    return seconds


def _first_ever(options: dict[str, Any]) -> float:
    """Start with an empty cache, below a directory that the instances' account may enter."""
    before = os.environ.get(_CACHE)
    cache = Path(tempfile.mkdtemp(prefix="aurora-router-bench-", dir="/var/tmp"))
    cache.chmod(0o755)
    os.environ[_CACHE] = str(cache)
    try:
        return _start(options)
    finally:
        if before is None:
            del os.environ[_CACHE]
        else:
            os.environ[_CACHE] = before
        shutil.rmtree(cache, ignore_errors=True)


def _spread(seconds: list[float], what: str) -> str:
    return f"{min(seconds):.2f}..{max(seconds):.2f} s in {len(seconds)} {what}"
