"""``python -m benchmarks.hops [--list] [--json FILE]``: how many files and frames a path through the code takes.

A path that a user follows should be short: few files, a shallow stack. This counts both for a warm connect, in the
thread that connects: the files of ours that are entered, and the most frames of ours on the stack at once, those of
other libraries in between left out. A warm connect is any but the first ones of a process: nothing is imported any
more, names are resolved, the cluster is known, and the monitor has checked that role reports can be believed.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from aurora_router_cluster import LocalCluster
from benchmarks.figures import Figure, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

MOST_FILES, MOST_FRAMES = 15, 12
"""What a warm connect may take."""
WARMING_SECONDS = 2.0
"""How long the monitor may take to check the role reports; before that a connect queries the role."""


class Trace:
    """What was entered of a package while it was traced.

    Attributes:
        files: the files of the package that were entered, in this order.
        deepest: the most frames of the package that were on the stack at once, outermost first.
    """

    def __init__(self, package: str) -> None:
        self._root = str(Path(str(sys.modules[package].__file__)).parent) + "/"
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
            if at.f_code.co_filename.startswith(self._root):
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


def measure(cluster: LocalCluster) -> Iterator[tuple[Figure, list[str]]]:
    """Yield the figures of warm connects, each with what it counts."""
    for role in ("writer", "reader"):
        trace = trace_warm_connect(aurora_router.connect, cluster.conninfo(role), "aurora_router")
        name = f"warm connect to the {role}"
        yield Figure.at_most(f"{name}: files entered", len(trace.files), "", MOST_FILES), trace.files
        yield Figure.at_most(f"{name}: deepest stack", len(trace.deepest), "", MOST_FRAMES), trace.deepest
    trace = trace_warm_connect(psycopg.connect, cluster.plain_conninfo("writer"), "psycopg")
    yield Figure.unbounded("psycopg's own connect: files entered", len(trace.files), ""), trace.files
    yield Figure.unbounded("psycopg's own connect: deepest stack", len(trace.deepest), ""), trace.deepest


def main(arguments: list[str] | None = None) -> int:
    """Count; 0: every figure keeps its bound, 1: one does not."""
    parser = argparse.ArgumentParser(description="Counts the files and frames of a warm connect.")
    parser.add_argument("--list", action="store_true", help="also list the files and the frames")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as JSON, too")
    options = parser.parse_args(arguments)
    with LocalCluster.start(readers=1) as cluster:
        counted = list(measure(cluster))
    for figure, entries in counted if options.list else ():
        print(figure.name, *entries, sep="\n  ")
    figures = [figure for figure, _ in counted]
    return report(figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
