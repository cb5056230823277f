"""A cluster that is kept (`--data`) is stopped, killed and lost with its machine, again and again, under a ledger.

Clients write rows, and note which of them were acknowledged. In the middle of it, perhaps of a failover or of the
replacement of a storage node, the cluster ends: in order, by SIGINT, by kill -9 of every process, or by a reboot, that
is kill -9, and the loss of the instances' directories and of all that the disk had not synced (`benchmarks.power`).
Then it is started again, and every row is looked for. The first rounds have the storage nodes in one process, the last
ones in processes of their own; bases are taken all the time.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from aurora_router_cluster import ClusterError, LocalCluster
from benchmarks import power
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTES = 30.0
RESTARTS = int(os.environ.get("SOAK_RESTARTS", "50"))
ISOLATED = 1 / 3  # of the rounds
CLIENTS = 4
UP = (0.5, 3.0)  # seconds under load, drawn
LEAST = 20  # commits that are acknowledged in each round; on a busy machine it lasts longer for them
LONGEST = 30.0  # seconds for these
WAYS = ("in order", "SIGINT", "kill -9", "reboot")
OPTIONS = {"readers": 1, "base_bytes": 2 << 20, "scrub_interval": 2.0, "retention": 5.0}
READY = 10.0  # seconds until a cluster with a young base is ready again, at most (median)


@dataclass
class Ledger:
    """What was reported to clients of their rows; a row is (client, number).

    Attributes:
        acked: committed.
        refused: certainly not committed.
        unknown: not to be known.
    """

    acked: set[tuple[int, int]] = field(default_factory=set)
    refused: set[tuple[int, int]] = field(default_factory=set)
    unknown: set[tuple[int, int]] = field(default_factory=set)
    next: list[int] = field(default_factory=lambda: [0] * CLIENTS)
    lost: set[tuple[int, int]] = field(default_factory=set)
    doubled: set[tuple[int, int]] = field(default_factory=set)
    wrong: set[tuple[int, int]] = field(default_factory=set)

    def check(self, rows: Counter[tuple[int, int]]) -> None:
        """Compare what there is with what was reported to clients."""
        self.lost |= self.acked - rows.keys()
        self.doubled |= {row for row, times in rows.items() if times > 1}
        self.wrong |= self.refused & rows.keys()


class Clients:
    """Clients that write to a cluster until the end of the block."""

    def __init__(self, cluster: LocalCluster, ledger: Ledger) -> None:
        self._ledger = ledger
        self._router = aurora_router.Router(cluster.conninfo(aurora_failover_timeout=2))
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(each,), daemon=True) for each in range(CLIENTS)]

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Write no more."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _write(self, client: int) -> None:
        ledger = self._ledger
        while not self._ended.is_set():
            row = (client, ledger.next[client])
            ledger.next[client] += 1

            def insert(connection: Any, row: tuple[int, int] = row) -> None:
                connection.execute("INSERT INTO soak_ledger VALUES (%s, %s, repeat('x', 500))", row)

            try:
                self._router.run_transaction(insert)
            except aurora_router.CommitOutcomeUnknown:
                ledger.unknown.add(row)
            except psycopg.Error:
                ledger.refused.add(row)
            else:
                ledger.acked.add(row)


def measure(minutes: float) -> Iterator[Figure]:
    """The figures."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    rng, until = random.Random(seed), time.monotonic() + minutes * 60
    ledger, ready, ways = Ledger(), list[float](), Counter[str]()
    isolated_rounds = round(RESTARTS * ISOLATED)
    for isolated, rounds in ((False, RESTARTS - isolated_rounds), (True, isolated_rounds)):
        one = Ledger()
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(power.PoweredDisk()) if power.possible() else None
            data = _plain(stack) if disk is None else disk.path / "data"
            for way in _rounds(rng, one, ready, data, disk, isolated=isolated, rounds=rounds):
                ways[way] += 1
                if time.monotonic() > until:
                    break
        for kind in ("acked", "refused", "unknown", "lost", "doubled", "wrong"):
            getattr(ledger, kind).update((isolated, *row) for row in getattr(one, kind))
    note = ", ".join(f"{times} {way}" for way, times in sorted(ways.items()))
    yield Figure.unbounded(
        "restarts", ways.total(), "", note if power.possible() else f"{note}; no loss of power: not root"
    )
    yield Figure.unbounded("commits acknowledged", len(ledger.acked), "", f"{len(ledger.unknown)} unknown at the end")
    yield Figure.at_most("acknowledged commits that were lost", len(ledger.lost), "", 0, _some(ledger.lost))
    yield Figure.at_most("rows that were doubled", len(ledger.doubled), "", 0, _some(ledger.doubled))
    yield Figure.at_most("rows that were refused, and are there", len(ledger.wrong), "", 0, _some(ledger.wrong))
    note = f"{min(ready):.2f}..{max(ready):.2f} s"
    yield Figure.at_most("time until it is ready again, median", statistics.median(ready), "s", READY, note)


def _some(rows: set[tuple[int, int]]) -> str:
    return str(sorted(rows)[:5]) if rows else ""


def _plain(stack: contextlib.ExitStack) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="aurora-soak-", dir="/var/tmp"))
    directory.chmod(0o711)
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory / "data"


def _rounds(
    rng: random.Random,
    ledger: Ledger,
    ready: list[float],
    data: Path,
    disk: power.PoweredDisk | None,
    *,
    isolated: bool,
    rounds: int,
) -> Iterator[str]:
    """So many ends of one cluster; yields how each was."""
    cluster = LocalCluster.start(data=data, isolated=isolated, **OPTIONS)
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        connection.execute("CREATE TABLE soak_ledger (client int, number int, filler text)")
    try:
        for number in range(rounds):
            way = rng.choice(WAYS)
            clients, before = Clients(cluster, ledger), len(ledger.acked)
            clients.start()
            began = time.monotonic()
            time.sleep(rng.uniform(*UP))
            while len(ledger.acked) < before + LEAST and time.monotonic() - began < LONGEST:
                time.sleep(0.05)
            beside = _beside(rng, cluster)
            time.sleep(rng.uniform(0.0, 0.5))
            _end(cluster, way)
            clients.end()
            beside.join()
            if way == "reboot" and disk is not None:
                disk.lose_power()
            began = time.monotonic()
            cluster = LocalCluster.start(data=data, **OPTIONS)
            ready.append(time.monotonic() - began)
            ledger.check(_found(cluster, "writer"))
            ledger.check(_found(cluster, "reader"))
            print(
                f"{number + 1:3} {way:8} {'isolated' if isolated else ''} ready after {ready[-1]:.2f} s, "
                f"{len(ledger.acked)} acknowledged, {len(ledger.lost)} lost, {len(ledger.doubled)} doubled",
                flush=True,
            )
            yield way
    finally:
        cluster.close()


def _beside(rng: random.Random, cluster: LocalCluster) -> threading.Thread:
    """Begin a change of the cluster, or nothing, in the middle of which it may end."""
    change = rng.choice(("nothing", "failover", "replace"))
    node = rng.randrange(6)

    def run() -> None:
        with contextlib.suppress(ClusterError, OSError, ValueError):
            if change == "failover":
                cluster.failover()
            elif change == "replace":
                cluster.nodes.replace(sorted(one["node"] for one in cluster.nodes)[node])

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _end(cluster: LocalCluster, way: str) -> None:
    if way == "in order":
        cluster.close()
    elif way == "SIGINT":
        os.kill(cluster.status().supervisor, signal.SIGINT)
        cluster.wait()
        cluster.close()
    else:
        power.crash(cluster)


def _found(cluster: LocalCluster, target: str) -> Counter[tuple[int, int]]:
    with psycopg.connect(cluster.plain_conninfo(target)) as connection:
        return Counter(tuple(row) for row in connection.execute("SELECT client, number FROM soak_ledger"))  # type: ignore[misc]
