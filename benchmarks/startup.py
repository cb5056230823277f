"""How long until a local cluster of one writer and two readers is ready, with its template cached and without.

Its processes may keep compiled bytecode, as they do by default: where that is switched off, compiling all modules again
is half of a start.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
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
        cached = [_start({**setting.options, "directory": directory}) for _ in range(setting.rounds(RUNS))]
        name = f"cluster ready, {place}, template cached"
        yield Figure.at_most(name, statistics.median(cached), "s", bound, _spread(cached, "starts"))
    first = [_first_ever(setting.options) for _ in range(1 if setting.quick else FIRST_RUNS)]
    yield Figure.at_most("cluster ready, first ever", statistics.median(first), "s", FIRST_S, _spread(first, "starts"))


def _start(options: dict[str, Any]) -> float:
    start = perf_counter()
    with LocalCluster.start(**{"readers": 2, **options}):
        return perf_counter() - start


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
