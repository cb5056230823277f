"""kill -9 of node processes, writers, readers and the supervisor at random, under a ledger of acknowledged commits.

A cluster of three instances over six storage nodes in processes of their own keeps its data (`data=DIR`). A random
number of node processes, sometimes more than a quorum can lose and sometimes while they start, the writer's or a
reader's postmaster, or the supervisor itself is killed, again and again. A supervisor that was killed takes its cluster
along: it is started again over its data. Meanwhile eight clients write as in the failover chaos (`chaos_clients`), and
in the end all that was reported to them is compared with the rows, and all nodes and instances have to be back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from aurora_router_cluster import ClusterError, LocalCluster
from benchmarks.chaos_clients import TABLES, Crowd
from benchmarks.chaos_failovers import BANK, CLIENT, CONNINFO, FENCED, LOST, ROLLED_BACK, TWICE, Books, check, install
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTES = 30.0
PAUSE = 1.5  # seconds between two kills, on average
PATIENCE = 120.0  # seconds until all are back
KINDS = {"nodes": 12, "writer": 4, "reader": 4, "supervisor": 1}
"""How often each, in proportion."""


class Killer:
    """Kills processes of a cluster that keeps its data.

    Args:
        data: its directory.
        rng: what chooses.
    """

    def __init__(self, data: Path, rng: random.Random) -> None:
        self._data = data
        self._rng = rng
        self.cluster = LocalCluster.start(data=str(data), readers=2, isolated=True)
        self.kills: Counter[str] = Counter()
        self.starts: list[float] = []

    def kill_some(self) -> None:
        """Kill what the dice say."""
        kind = self._rng.choices(list(KINDS), list(KINDS.values()))[0]
        status = self.cluster.status()
        if kind == "supervisor":
            self._kill(kind, [status.supervisor])
            self.start_again()
        elif kind == "nodes":
            pids = [node["pid"] for node in status.volume["nodes"] if node["pid"]]
            self._kill(kind, self._rng.sample(pids, min(len(pids), self._rng.choice((1, 1, 1, 2, 2, 3, 4, 6)))))
        else:
            pids = [one.pid for one in status.instances if one.pid and one.role == kind]
            self._kill(kind, self._rng.sample(pids, min(len(pids), 1)))

    def _kill(self, kind: str, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills[kind] += 1

    def start_again(self) -> None:
        """Start the cluster over its data, once nothing of the killed one is left."""
        began = time.monotonic()
        self.cluster.close()
        while True:
            try:
                self.cluster = LocalCluster.start(data=str(self._data))
                break
            except ClusterError:  # its processes end one after the other, and use the data until then
                if time.monotonic() - began > PATIENCE:
                    raise
                time.sleep(0.1)
        self.starts.append(time.monotonic() - began)

    def back(self) -> list[str]:
        """Wait until all are back; returns what is not."""
        missing: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status = self.cluster.status()
            missing = [f"{one.name} is {one.state}" for one in status.instances if one.state != "available"]
            missing += [f"node {node['node']} is down" for node in status.volume["nodes"] if not node["up"]]
            if len({node.get("scl") for node in status.volume["nodes"]}) > 1:
                missing.append("the copies differ")
            if not missing:
                break
            time.sleep(0.1)
        return missing


def measure(minutes: float) -> Iterator[Figure]:
    """The figures."""
    for quiet in ("aurora_router", "psycopg"):
        logging.getLogger(quiet).addHandler(logging.NullHandler())
    seed = random.SystemRandom().randrange(1, 1 << 30)
    sys.stdout.write(f"seed {seed}\n")
    directory = Path(tempfile.mkdtemp(prefix="aurora-soak-", dir="/var/tmp"))
    directory.chmod(0o711)
    try:
        yield from _played(directory / "data", seed, minutes)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _played(data: Path, seed: int, minutes: float) -> Iterator[Figure]:
    rng, books = random.Random(seed), Books(seed)
    killer = Killer(data, rng)
    try:
        with psycopg.connect(killer.cluster.plain_conninfo()) as connection:
            connection.execute(TABLES)
        install(killer.cluster)
        patient = {**CONNINFO, "aurora_failover_timeout": PATIENCE, "aurora_transaction_timeout": PATIENCE}
        crowd = Crowd(killer.cluster.conninfo(**patient), killer.cluster.conninfo("reader", **patient), seed)
        crowd.start()
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until and not any(client.failure for client in crowd.clients):
            time.sleep(rng.uniform(0.1, 2.0) * PAUSE)
            killer.kill_some()
        began = time.monotonic()
        missing = killer.back()
        healed = time.monotonic() - began
        for text in crowd.end(2 * PATIENCE):
            books.blame(CLIENT, text)
        check(killer.cluster, crowd, books)
    finally:
        killer.cluster.close()
    for texts in books.wrong.values():
        sys.stdout.write("".join(f"  {text}\n" for text in texts[:10]))
    yield from _figures(killer, books, missing, healed)


def _figures(killer: Killer, books: Books, missing: list[str], healed: float) -> Iterator[Figure]:
    for kind in KINDS:
        yield Figure.unbounded(f"kills of {kind}", killer.kills[kind], "")
    yield Figure.unbounded(
        "operations", books.operations, "", f"{books.repeated} disturbed, {books.unknown.total()} unknown"
    )
    yield Figure.unbounded("looks at the sum through readers", books.looks, "")
    for kind in (LOST, TWICE, ROLLED_BACK, FENCED, BANK, CLIENT):
        yield Figure.at_most(kind, len(books.wrong.get(kind, [])), "", 0)
    yield Figure.at_most("nodes and instances not back", len(missing), "", 0, "; ".join(missing)[:200])
    yield Figure.unbounded("all are back after", healed, "s")
    if killer.starts:
        note = f"longest {max(killer.starts):.1f} s"
        yield Figure.unbounded("supervisor killed: ready again, median", statistics.median(killer.starts), "s", note)
