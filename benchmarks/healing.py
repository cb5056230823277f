"""Commits with three of the six storage nodes down: they wait, and are acknowledged when the write quorum is back.

On a cluster of its own: a node that comes up reads its journal, so the time grows with the log since the last base.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg

from aurora_router_cluster import LocalCluster
from benchmarks.failover import p99
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.setting import Setting

ROUNDS = 20
BOUND_MS = 100.0
BLOCKED = 0.3  # seconds for which a commit is watched to wait


def measure(setting: Setting) -> Iterator[Figure]:
    """The figures."""
    with (
        LocalCluster.start(**{"readers": 2, **setting.options}) as cluster,
        psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection,
    ):
        connection.execute("CREATE TABLE IF NOT EXISTS healing_ledger (n int)")
        took = sorted(_healed(cluster, connection) * 1e3 for _ in range(setting.rounds(ROUNDS)))
    note = f"median {took[len(took) // 2]:.0f} ms of {len(took)}, from the request to bring one node up"
    yield Figure.at_most("three nodes down: commit acked after one is up again, p99", p99(took), "ms", BOUND_MS, note)


def _healed(cluster: LocalCluster, connection: psycopg.Connection) -> float:
    """Seconds from asking for the fourth node to the ack of a commit that waits for it."""
    lost = [each["node"] for each in cluster.nodes][:3]
    acked: list[float] = []

    def commit() -> None:
        connection.execute("INSERT INTO healing_ledger VALUES (1)")
        acked.append(time.monotonic())

    for node in lost:
        cluster.nodes.down(node)
    waiting = threading.Thread(target=commit)
    waiting.start()
    time.sleep(BLOCKED)
    blocked = not acked
    began = time.monotonic()
    for node in lost:
        cluster.nodes.up(node)
    waiting.join()
    if not blocked:
        raise RuntimeError("a commit was acknowledged with three of six nodes down")
    return acked[0] - began
