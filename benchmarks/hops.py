"""``python -m benchmarks.hops [--only NAME] [--list] [--json FILE]``: how many files and frames a path takes.

A path that a user follows should be short: few files, a shallow stack. This counts, for each, the files of ours that
are entered, and the most frames of ours on the stack at once, those of other libraries in between left out:

- a warm connect, in the thread that connects. It is any but the first ones of a process: nothing is imported any more,
  names are resolved, the cluster is known, and the monitor has checked that role reports can be believed.
- a commit through the storage, in the reference cluster's supervisor: the files that each commit enters, and the depth
  that half of them reach. What the supervisor does beside them every now and then is not in all of them, so there are
  as many commits as it takes until `COMMITS` in a row leave the same files.
- a planned failover, in the same place: the files of ``control/`` and ``storage/``, the supervisor's other work
  included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from aurora_router_cluster import LocalCluster
from benchmarks.figures import Figure, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Counted = tuple[Figure, list[str]]

MOST_FILES, MOST_FRAMES = 15, 12
"""What a warm connect may take."""
MOST_COMMIT_FILES, MOST_COMMIT_FRAMES = 18, 14
MOST_FAILOVER_FILES, MOST_FAILOVER_FRAMES = 30, 16
COMMITS, MOST_COMMITS = 10, 200
WARMING_SECONDS = 2.0
"""How long the monitor may take to check the role reports; before that a connect queries the role."""


class Trace:
    """What was entered of a package while it was traced.

    Args:
        package: its name.
        beneath: a file whose frames are not counted: those beneath an event loop.

    Attributes:
        files: the files of the package that were entered, in this order.
        deepest: the most frames of the package that were on the stack at once, outermost first.
    """

    def __init__(self, package: str, beneath: str | None = None) -> None:
        self._root = str(Path(str(sys.modules[package].__file__)).parent) + "/"
        self._beneath = beneath
        self.files: list[str] = []
        self.deepest: list[str] = []

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Note that a function was called, or a generator resumed; for `sys.setprofile`."""
        if event != "call" or not frame.f_code.co_filename.startswith(self._root):
            return
        if (file := self._name(frame)) not in self.files:
            self.files.append(file)
        stack: list[str] = []
        at: FrameType | None = frame
        while at is not None:
            if at.f_code.co_filename.startswith(self._root) and self._name(at) != self._beneath:
                stack.append(f"{self._name(at)}:{at.f_code.co_name}")
            at = at.f_back
        if len(stack) > len(self.deepest):
            self.deepest = stack[::-1]

    def _name(self, frame: FrameType) -> str:
        return frame.f_code.co_filename.removeprefix(self._root)


@contextmanager
def tracing(package: str) -> Iterator[Trace]:
    """Trace a package in this thread meanwhile."""
    trace = Trace(package)
    sys.setprofile(trace.note)
    try:
        yield trace
    finally:
        sys.setprofile(None)


def trace_warm_connect(connect: Callable[[str], psycopg.Connection[Any]], conninfo: str, package: str) -> Trace:
    """Trace a connect after another one, which is kept open, as in a process that has some."""
    earlier = connect(conninfo)
    time.sleep(WARMING_SECONDS)
    try:
        with tracing(package) as trace:
            connection = connect(conninfo)
        connection.close()
    finally:
        earlier.close()
    return trace


def measure_connects() -> Iterator[Counted]:
    """Yield the figures of warm connects, each with what it counts."""
    with LocalCluster.start(readers=1) as cluster:
        yield from _trace_connects(cluster)


def _trace_connects(cluster: LocalCluster) -> Iterator[Counted]:
    for role in ("writer", "reader"):
        trace = trace_warm_connect(aurora_router.connect, cluster.conninfo(role), "aurora_router")
        name = f"warm connect to the {role}"
        yield Figure.at_most(f"{name}: files entered", len(trace.files), "", MOST_FILES), trace.files
        yield Figure.at_most(f"{name}: deepest stack", len(trace.deepest), "", MOST_FRAMES), trace.deepest
    trace = trace_warm_connect(psycopg.connect, cluster.plain_conninfo("writer"), "psycopg")
    yield Figure.unbounded("psycopg's own connect: files entered", len(trace.files), ""), trace.files
    yield Figure.unbounded("psycopg's own connect: deepest stack", len(trace.deepest), ""), trace.deepest


class TracedSupervisor:
    """A reference cluster whose supervisor is traced while something is done.

    Args:
        folder: for what it writes.
        readers: how many the cluster has.
    """

    def __init__(self, folder: Path, readers: int) -> None:
        self._file = folder / "hops.json"
        here = Path(__file__).parent
        ours = {"PYTHONPATH": f"{here / 'traced_supervisor'}:{here.parent}", "HOPS_FILE": str(self._file)}
        before = dict(os.environ)
        os.environ.update(ours)
        try:
            self.cluster = LocalCluster.start(readers=readers)
        finally:
            for name in ours:
                os.environ.pop(name)
            os.environ.update(before)
        found = ["pgrep", "--parent", str(os.getpid()), "--full", "aurora_router_cluster.supervisor"]
        self._process = int(subprocess.run(found, capture_output=True, check=True, text=True).stdout.split()[-1])

    @property
    def address(self) -> str:
        """A conninfo of the writer, for psycopg alone."""
        return self.cluster.plain_conninfo("writer")

    def trace(self, action: Callable[[], object]) -> tuple[list[str], list[str]]:
        """The files that were entered during an action, and the deepest stack."""
        self._signal(signal.SIGUSR1)
        action()
        files, deepest = json.loads(self._signal(signal.SIGUSR2))
        return files, deepest

    def _signal(self, number: signal.Signals) -> str:
        """Send a signal, and wait until the supervisor has written its answer; returns that."""
        self._file.unlink(missing_ok=True)
        os.kill(self._process, number)
        while not self._file.exists():
            time.sleep(0.001)
        return self._file.read_text()


@contextmanager
def traced_supervisor(readers: int = 2) -> Iterator[TracedSupervisor]:
    """Start a cluster with a supervisor that can be traced, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        traced = TracedSupervisor(Path(folder), readers)
        with traced.cluster:
            yield traced


def _trace_until_settled(traced: TracedSupervisor, action: Callable[[], object]) -> tuple[set[str], list[str]]:
    """The files that an action enters each time, and the deepest stack that it reaches half of the times."""
    first, deepest = traced.trace(action)
    files, stacks, unchanged = set(first), [deepest], 1
    while unchanged < COMMITS and len(stacks) < MOST_COMMITS:
        entered, deepest = traced.trace(action)
        stacks.append(deepest)
        unchanged = unchanged + 1 if files.issubset(entered) else 1
        files &= set(entered)
    return files, sorted(stacks, key=len)[len(stacks) // 2]


def measure_commit() -> Iterator[Counted]:
    """Yield the figures of a commit through the storage, each with what it counts.

    What sends the log on to readers is no part of a commit, and runs in the same call: it is counted apart.
    """
    files, deepest = _trace_commits(readers=0)
    yield Figure.at_most("commit: files entered", len(files), "", MOST_COMMIT_FILES), files
    yield Figure.at_most("commit: deepest stack", len(deepest), "", MOST_COMMIT_FRAMES), deepest
    files, deepest = _trace_commits(readers=2)
    yield Figure.unbounded("commit, sent on to two readers: files entered", len(files), ""), files
    yield Figure.at_most("commit, sent on to two readers: deepest stack", len(deepest), "", MOST_COMMIT_FRAMES), deepest


def _trace_commits(readers: int) -> tuple[list[str], list[str]]:
    with traced_supervisor(readers) as traced, psycopg.connect(traced.address, autocommit=True) as connection:
        connection.execute("CREATE TABLE committed (number int)")
        commit = partial(connection.execute, "INSERT INTO committed VALUES (1)")
        for _ in range(COMMITS):
            commit()
        time.sleep(WARMING_SECONDS)
        entered, deepest = _trace_until_settled(traced, commit)
    return sorted(entered), deepest


def measure_failover() -> Iterator[Counted]:
    """Yield the figures of a planned failover, each with what it counts."""
    with traced_supervisor() as traced:
        files, deepest = traced.trace(traced.cluster.failover)
    files = sorted(each for each in files if each.startswith(("control/", "storage/")))
    yield Figure.at_most("planned failover: files entered", len(files), "", MOST_FAILOVER_FILES), files
    yield Figure.at_most("planned failover: deepest stack", len(deepest), "", MOST_FAILOVER_FRAMES), deepest


FAMILIES = {"connect": measure_connects, "commit": measure_commit, "failover": measure_failover}


def main(arguments: list[str] | None = None) -> int:
    """Count; 0: every figure keeps its bound, 1: one does not."""
    parser = argparse.ArgumentParser(description="Counts the files and frames that a path through the code takes.")
    parser.add_argument("--only", choices=FAMILIES, help="one of them")
    parser.add_argument("--list", action="store_true", help="also list the files and the frames")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as JSON, too")
    options = parser.parse_args(arguments)
    families = [FAMILIES[options.only]] if options.only else list(FAMILIES.values())
    counted = [each for family in families for each in family()]
    for figure, entries in counted if options.list else ():
        print(figure.name, *entries, sep="\n  ")
    figures = [figure for figure, _ in counted]
    return report(figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
