"""``python -m benchmarks.leaks [--failovers N] [--json FILE]``: what a process holds after many failovers.

A process of fifty threads, then one of five hundred tasks, write through a pool while the writer is switched over or
killed, N times. Before and after, at rest, its threads, descriptors and private memory are counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aurora_router
from aurora_router_cluster import LocalCluster
from benchmarks.figures import Figure, report
from tests.commits.test_leaks import GROWN_KB, WARM, client, fail_over

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILOVERS = 200
KINDS = {"threads": 50, "tasks": 500}


def measure(cluster: LocalCluster, kind: str, workers: int, failovers: int) -> Iterator[Figure]:
    """The figures of one kind of process."""
    began = time.monotonic()
    with client(kind, cluster.conninfo(), workers) as process:
        for number in range(WARM):
            fail_over(cluster, number)
            process.ask("round")
        before = process.ask("rest")
        for number in range(failovers):
            fail_over(cluster, number)
            process.ask("round")
        after = process.ask("rest")
    name = f"{workers} {kind}"
    yield Figure.unbounded(f"{name}: failovers", failovers, "", f"in {time.monotonic() - began:.0f} s")
    for what, unit, bound in (("threads", "", 0), ("files", "", 0), ("kb", "kB", GROWN_KB)):
        note = f"{before[what]:g} -> {after[what]:g}"
        yield Figure.at_most(f"{name}: growth of {what}", after[what] - before[what], unit, bound, note)


def main() -> int:
    """Returns 1 where something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failovers", type=int, default=FAILOVERS, metavar="N", help=f"default: {FAILOVERS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = parser.parse_args()
    found: list[Figure] = []
    with LocalCluster.start(readers=2) as cluster:
        with aurora_router.connect(cluster.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE ledger (n int)")
        for kind, workers in KINDS.items():
            found += measure(cluster, kind, workers, args.failovers)
    return report(found, args.json)


if __name__ == "__main__":
    sys.exit(main())
