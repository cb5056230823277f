"""Failovers in a row under the load of eight clients, and a ledger and a bank that show whether anything went wrong.

``python -m benchmarks.chaos_failovers [--failovers N] [--seed S] [--json FILE]``

The writer of a cluster of three instances over six storage nodes is lost again and again, each time in one of eight
ways (shuffled by the seed, each as often as the others); the next round begins once six of the eight clients have had
an acknowledgement of the new writer. What the faults do exactly is in ``docs/faults.md``. Every hundred failovers the
books are closed, and the next ones are done to a new cluster, since one's log grows and every former writer replays it.

Checked: an acknowledged operation is there, once; what was said to be rolled back is not; the accounts are what the
ledger says, and their sum is the same in every reader's snapshot; no attempt that began after some client had an
acknowledgement of the new writer was acknowledged by the old one.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import random
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.registry import ClusterDirectory
from benchmarks.chaos_clients import ACCOUNTS, RICHES, TABLES, Crowd
from benchmarks.figures import Figure, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.chaos_clients import Client, Operation

log = logging.getLogger(__name__)

KINDS = (
    "kill", "zombie", "zone down", "freeze", "partition", "switchover", "kill, stale DNS", "kill, stale view",
)  # fmt: skip
PER_CLUSTER = 100
DETECT = 0.05  # seconds between two heartbeats
PATIENCE = 120.0
ENOUGH = 6  # clients; the others may still be in their pauses when the next writer is lost
DWELL = 0.5  # seconds that a zombie has clients that commit to it, and wait
CONNINFO: dict[str, Any] = {
    "aurora_profile": "aggressive",
    "aurora_transaction_attempts": 50,
    "aurora_transaction_timeout": 60,
    "connect_timeout": 10,
}


@dataclass
class Round:
    """One failover.

    Attributes:
        kind: of the fault.
        old: the writer that was lost.
        began: monotonic time of the fault.
        promoted: seconds until the cluster had another writer.
        acked: seconds until the first acknowledgement of it.
        all: seconds until six of the eight clients had one.
    """

    kind: str
    old: str
    began: float
    promoted: float = 0.0
    acked: float = 0.0
    all: float = 0.0


@dataclass
class Books:
    """What all clusters together came to."""

    seed: int
    rounds: list[Round] = field(default_factory=list)
    operations: int = 0
    attempts: int = 0
    repeated: int = 0
    looks: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def blame(self, kind: str, text: str) -> None:
        """Something is wrong."""
        self.wrong.setdefault(kind, []).append(text)

    def add(self, other: Books) -> None:
        """Take over what another cluster came to."""
        self.rounds += other.rounds
        self.operations += other.operations
        self.attempts += other.attempts
        self.repeated += other.repeated
        self.looks += other.looks
        self.unknown += other.unknown
        for kind, texts in other.wrong.items():
            self.wrong.setdefault(kind, []).extend(texts)


LOST, TWICE, FENCED, ROLLED_BACK, BANK, CLIENT = (
    "acknowledged rows lost", "rows twice", "acks of a demoted writer", "wrong 'rolled back'", "sums that are off",
    "clients that broke or hung",
)  # fmt: skip


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not after {PATIENCE:g} s: {what}")
        time.sleep(0.01)


def ready(cluster: LocalCluster) -> bool:
    """Whether there is a writer, and a reader in another zone that could follow it."""
    status = cluster.status()
    there = {each.role: set[str]() for each in status.instances}
    for each in status.instances:
        if each.state == "available":
            there[each.role].add(each.zone)
    return bool(there.get("writer") and there.get("reader", set()) - there["writer"])


@contextlib.contextmanager
def fault(cluster: LocalCluster, kind: str, rng: random.Random) -> Iterator[None]:
    """Lose the writer; what can be healed is at the end of the block."""
    faults, old = cluster.faults, cluster.writer
    assert old is not None
    with contextlib.ExitStack() as healing:
        if kind == "kill, stale DNS":
            healing.enter_context(faults.dns_stale())
        if kind == "kill, stale view":
            healing.enter_context(faults.stale_view(rng.choice(cluster.readers)))
        if kind.startswith("kill"):
            healing.enter_context(faults.kill(old))
        elif kind == "zombie":
            healing.enter_context(faults.partition(old, heartbeat_only=True))
        elif kind == "zone down":
            healing.enter_context(faults.zone_down(cluster.instance(old).zone))
        elif kind == "freeze":
            healing.enter_context(faults.hang(old))
        elif kind == "partition":
            healing.enter_context(faults.partition(old))
        else:
            cluster.failover()
        yield


def play(cluster: LocalCluster, crowd: Crowd, kind: str, rng: random.Random) -> Round:
    """One failover."""
    eventually(lambda: ready(cluster), f"the cluster has a writer and a reader before {kind}")
    time.sleep(rng.uniform(0.0, 0.1))
    before = cluster.status()
    assert before.writer is not None
    timeline = max(crowd.newest())
    reported = Round(kind, before.writer, time.monotonic())
    with contextlib.ExitStack() as healing:
        healing.enter_context(fault(cluster, kind, rng))
        eventually(lambda: cluster.status().epoch > before.epoch, f"another writer after {kind} of {before.writer}")
        reported.promoted = time.monotonic() - reported.began
        if kind == "zombie":
            time.sleep(DWELL)
            healing.close()
        eventually(lambda: _moved(crowd, timeline), f"{ENOUGH} clients are on the new writer after {kind}")
        reported.all = time.monotonic() - reported.began
    reported.acked = first_ack(crowd.clients, timeline) - reported.began
    return reported


def _moved(crowd: Crowd, timeline: int) -> bool:
    broken = [client for client in crowd.clients if client.failure is not None]
    if broken:
        raise RuntimeError(f"{broken[0].way} broke: {broken[0].failure!r}") from broken[0].failure
    return sorted(crowd.newest())[len(crowd.clients) - ENOUGH] > timeline


def first_ack(clients: Sequence[Client], timeline: int) -> float:
    """Monotonic time of the first acknowledgement above a timeline."""
    recent = [each for client in clients for each in client.done[-400:] if each.reported and each.tli > timeline]
    return min(each.acked for each in recent)


class Checked(Protocol):
    """A cluster whose books are checked."""

    def plain_conninfo(self) -> str:
        """A conninfo by which psycopg alone finds the writer."""
        ...


def check(cluster: Checked, crowd: Crowd, books: Books) -> None:
    """Compare what was reported to clients with what is there."""
    with psycopg.connect(cluster.plain_conninfo()) as conn:
        rows = conn.execute(
            "SELECT client, number, source, target, amount FROM ledger UNION ALL "
            "SELECT client, number, source, target, amount FROM keyed"
        ).fetchall()
        balances: dict[int, int] = dict(conn.execute("SELECT id, balance FROM accounts").fetchall())
    there = Counter((client, number) for client, number, *_ in rows)
    for client in crowd.clients:
        for operation in client.done:
            judge(client, operation, there[client.number, operation.number], books)
    expected = dict.fromkeys(range(ACCOUNTS), RICHES)
    for _, _, source, target, amount in rows:
        expected[source] -= amount
        expected[target] += amount
    if balances != expected:
        books.blame(BANK, f"the accounts are not what the ledger says: {balances} instead of {expected}")
    for text in crowd.reader.wrong:
        books.blame(BANK, text)
    books.looks += crowd.reader.looks
    check_demoted(crowd.clients, books)


def judge(client: Client, operation: Operation, rows: int, books: Books) -> None:
    """One operation."""
    books.operations += 1
    books.attempts += operation.attempts
    books.repeated += operation.attempts > 1 or operation.reported != "committed"
    about = f"operation {operation.number} of client {client.number} ({client.way}): {operation}, {rows} rows"
    if rows > 1:
        books.blame(TWICE, about)
    if operation.reported == "committed" and rows == 0:
        books.blame(LOST, about)
    elif operation.reported == "unknown":
        books.unknown[client.way] += 1
    elif operation.reported != "committed" and rows:
        books.blame(ROLLED_BACK, about)


def check_demoted(clients: Sequence[Client], books: Books) -> None:
    """No attempt that began after an acknowledgement of a newer timeline was acknowledged on an older one."""
    acked = [(each, client) for client in clients for each in client.done if each.reported == "committed" and each.tli]
    first: dict[int, float] = {}
    for each, _ in acked:
        first[each.tli] = min(first.get(each.tli, each.acked), each.acked)
    newer: dict[int, float] = {}
    earliest = float("inf")
    for timeline in sorted(first, reverse=True):
        newer[timeline] = earliest
        earliest = min(earliest, first[timeline])
    for each, client in acked:
        if each.began > newer[each.tli]:
            books.blame(FENCED, f"{client.way}: {each}; a newer timeline was acknowledged at {newer[each.tli]}")


def schedule(failovers: int, rng: random.Random) -> list[str]:
    """Each kind as often as the others, in a random order within each turn."""
    kinds: list[str] = []
    while len(kinds) < failovers:
        kinds += rng.sample(KINDS, len(KINDS))
    return kinds[:failovers]


def season(kinds: Sequence[str], seed: int, books: Books, **options: Any) -> None:
    """One cluster, some failovers, and the check."""
    with LocalCluster.start(readers=2, faults=True, detect=DETECT, dns_ttl=1, **options) as cluster:
        disturb(cluster, kinds, seed, books)


def disturb(cluster: LocalCluster, kinds: Sequence[str], seed: int, books: Books) -> None:
    """Failovers of a new cluster under the load of all clients, and the check."""
    rng = random.Random(seed)
    with psycopg.connect(cluster.plain_conninfo()) as conn:
        conn.execute(TABLES)
    install(cluster)
    crowd = Crowd(cluster.conninfo(**CONNINFO), cluster.conninfo("reader", **CONNINFO), seed)
    crowd.start()
    try:
        eventually(lambda: _moved(crowd, 0), "every client has begun")
        for kind in kinds:
            books.rounds.append(play(cluster, crowd, kind, rng))
            log.info("%s", books.rounds[-1])
    except TimeoutError as error:
        log.exception("%s\n%s\n%s", crowd.newest(), cluster.status(), log_of(cluster))
        books.blame(CLIENT, f"failover {len(books.rounds) + 1}: {error}")  # and see what came of the others
    finally:
        cluster.faults.heal()
        for text in crowd.end():
            books.blame(CLIENT, text)
    check(cluster, crowd, books)


def log_of(cluster: LocalCluster) -> str:
    """The end of what the supervisor printed."""
    return ClusterDirectory(cluster.key).log.read_text(encoding="utf-8", errors="replace")[-6000:]


def install(cluster: LocalCluster) -> None:
    """The witness table."""
    from aurora_router.flow import commit_sql

    with psycopg.connect(cluster.plain_conninfo()) as conn:
        conn.execute(commit_sql.INSTALL)


def chaos(
    failovers: int,
    seed: int,
    per_cluster: int = PER_CLUSTER,
    *,
    seconds: float = float("inf"),
    chatty: bool = False,
    **options: Any,
) -> Books:
    """So many failovers, or fewer: none is begun with another cluster after so many seconds."""
    until = time.monotonic() + seconds
    books = Books(seed)
    kinds = schedule(failovers, random.Random(seed))
    for start in range(0, failovers, per_cluster):
        if time.monotonic() > until or books.wrong:
            break
        books.add(one_cluster(kinds[start : start + per_cluster], seed + start, chatty=chatty, **options))
    return books


def chaos_on_several(failovers: int, seed: int, clusters: int) -> Books:
    """So many failovers, over clusters of which so many run at the same time, each with a process of clients.

    A cluster has a part of them at most: five hundred fill ten gigabytes with log and bases.
    """
    books = Books(seed)
    kinds = schedule(failovers, random.Random(seed))
    part = min(PER_CLUSTER, -(-failovers // clusters))
    with ProcessPoolExecutor(clusters, multiprocessing.get_context("spawn"), _quiet) as processes:
        running = [
            processes.submit(one_cluster, kinds[start : start + part], seed + start, chatty=True)
            for start in range(0, failovers, part)
        ]
        for each in running:
            books.add(each.result())
    return books


def one_cluster(kinds: Sequence[str], seed: int, *, chatty: bool, **options: Any) -> Books:
    """The failovers of one cluster; what is wrong is printed."""
    began, books = time.monotonic(), Books(seed)
    try:
        season(kinds, seed, books, **options)
    except RuntimeError as error:
        books.blame(CLIENT, f"failover {len(books.rounds) + 1} ({kinds[len(books.rounds)]}): {error}")
    if books.wrong:
        print_report(books, kinds[: len(books.rounds) + 1], seed)
    elif chatty:
        sys.stdout.write(
            f"{len(books.rounds)} failovers, {books.operations} operations, {books.repeated} disturbed, "
            f"{books.unknown.total()} unknown, nothing wrong; these took {time.monotonic() - began:.0f} s\n"
        )
    sys.stdout.flush()
    return books


def print_report(books: Books, kinds: Sequence[str], seed: int) -> None:
    """What is wrong, and how to have it again."""
    for kind, texts in books.wrong.items():
        sys.stdout.write(f"WRONG: {len(texts)} {kind}\n" + "".join(f"  {text}\n" for text in texts[:20]))
    sys.stdout.write(f"this cluster's seed {seed}, its faults: {list(kinds)}\n")


def figures(books: Books) -> list[Figure]:
    """What is reported."""
    reported = [
        Figure.unbounded("failovers", len(books.rounds), ""),
        Figure.unbounded("operations", books.operations, "", f"{books.attempts} attempts"),
        Figure.unbounded("operations that a failover disturbed", books.repeated, ""),
        Figure.unbounded("sums looked at through readers", books.looks, ""),
    ]
    reported += [
        Figure.at_most(kind, len(books.wrong.get(kind, [])), "", 0)
        for kind in (LOST, TWICE, FENCED, ROLLED_BACK, BANK, CLIENT)
    ]
    share = 100.0 * books.unknown.total() / max(1, books.repeated)
    reported.append(
        Figure.unbounded("left unknown, of the disturbed operations", share, "%", f"{books.unknown.total()} of them")
    )
    witness = sum(count for way, count in books.unknown.items() if "witness" in way)
    reported.append(Figure.unbounded("left unknown with the witness", witness, ""))
    for kind in KINDS:
        rounds = [each for each in books.rounds if each.kind == kind]
        if rounds:
            seconds = sorted(each.acked for each in rounds)
            note = f"longest {seconds[-1]:.2f} s; promoted {statistics.median(r.promoted for r in rounds):.2f} s"
            reported.append(
                Figure.unbounded(f"{kind}: fault to first ack, median", statistics.median(seconds), "s", note)
            )
    return reported


def _quiet() -> None:
    for quiet in ("aurora_router", "psycopg"):  # what they warn of is what is done to them here
        logging.getLogger(quiet).addHandler(logging.NullHandler())


def main() -> int:
    """Returns 1 where a figure misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failovers", type=int, default=1000)
    parser.add_argument("--per-cluster", type=int, default=PER_CLUSTER)
    parser.add_argument("--clusters", type=int, default=1, metavar="N", help="spread them over N clusters at a time")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further cluster after so many")
    parser.add_argument("--verbose", action="store_true", help="report each failover on standard error")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    _quiet()
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO if args.verbose else logging.ERROR)
    seed = random.SystemRandom().randrange(1, 1 << 30) if args.seed is None else args.seed
    sys.stdout.write(f"seed {seed}\n")
    if args.clusters > 1:
        books = chaos_on_several(args.failovers, seed, args.clusters)
    else:
        books = chaos(args.failovers, seed, args.per_cluster, seconds=args.minutes * 60, chatty=True)
    reported = figures(books)
    return report(reported, args.json)


if __name__ == "__main__":
    sys.exit(main())
