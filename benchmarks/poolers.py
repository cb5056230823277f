"""``python -m benchmarks.poolers [--failovers N] [--seed S] [--json FILE]``: behind poolers, through failovers.

Two reference clusters, whose instances have the same ids, are behind one pooler. Clients connect through it all the
time, as the writer and as a reader, with statements short and long. Meanwhile writers are killed, frozen and switched
over. Each setting goes through N failovers:

* PgBouncer, session pooling, a process for each instance (``aurora_instance_host`` maps them);
* PgBouncer, session pooling, a database name for each cluster, that leads to all instances in turn;
* PgBouncer, transaction pooling, a database name for each cluster, that leads to the writer its operator knows;
* HAProxy in TCP mode, round robin over all instances.

Held to be wrong: a connection for the writer on an instance that was a reader before the connect began; a connection
to the other cluster; a statement that lost its connection, though its instance was neither restarted nor frozen
meanwhile; a client that gets no writer for a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from aurora_router_cluster import LocalCluster
from benchmarks.figures import Figure, report
from tests.poolers.poolers import HAProxy, NotInstalled, PgBouncer, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAMES = ("first", "second")
KINDS = ("kill", "freeze", "switchover")
PATIENCE = 60.0
DETECT = 0.05
LONG_SECONDS = 2.5
"""Of a long statement: more than the driver needs to suspect, probe and condemn an instance."""
WRITERS, READERS = 2, 1
"""Clients with short statements of each cluster; besides, one of each role has long ones."""
WHERE = """
    SELECT (SELECT name FROM pooled_cluster), aurora_db_instance_identifier(), pg_is_in_recovery(),
           extract(epoch FROM pg_postmaster_start_time())::float
"""
WRONG_ROLE, WRONG_CLUSTER, CUT, BROKEN = (
    "writer connections on a reader", "connections to the wrong cluster", "healthy statements cut",
    "clients that broke or hung",
)  # fmt: skip

log = logging.getLogger(__name__)


@dataclass
class Books:
    """What a setting came to."""

    failovers: int = 0
    connects: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    statements: int = 0
    lost: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def blame(self, kind: str, text: str) -> None:
        """Something is wrong."""
        with self.lock:
            self.wrong.setdefault(kind, []).append(text)


class Ground:
    """The two clusters, and which of their instances are disturbed on purpose."""

    def __init__(self, clusters: Mapping[str, LocalCluster]) -> None:
        self.clusters = clusters
        self.disturbed: list[tuple[str, str, float, float]] = []
        self.addresses = {
            name: {each.name: (each.host, each.port) for each in cluster.instances}
            for name, cluster in clusters.items()
        }
        self.direct = {name: self._direct(cluster) for name, cluster in clusters.items()}

    @staticmethod
    def _direct(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
        keys = {"dbname": "app", "user": "postgres", "connect_timeout": 2, "autocommit": True}
        return {each.name: {**keys, "host": each.socket_directory, "port": each.port} for each in cluster.instances}

    def is_disturbed(self, name: str, instance: str, since: float) -> bool:
        """Whether an instance was frozen or killed at any moment from `since` to now."""
        return any((cluster, id_) == (name, instance) and end >= since for cluster, id_, _, end in list(self.disturbed))

    def started_at(self, name: str, instance: str) -> float | None:
        """When the postmaster of an instance was started; None: it does not answer."""
        try:
            with psycopg.connect(**self.direct[name][instance]) as conn:
                row = conn.execute("SELECT extract(epoch FROM pg_postmaster_start_time())::float").fetchone()
                return None if row is None else float(row[0])
        except psycopg.Error:
            return None


class Client(threading.Thread):
    """Connects through the pooler, again and again."""

    def __init__(self, name: str, role: str, conninfo: str, ground: Ground, books: Books, *, long: bool) -> None:
        super().__init__(name=f"{name} {role}{' long' if long else ''}", daemon=True)
        self.cluster, self.role, self.conninfo, self.long = name, role, conninfo, long
        self.ground, self.books = ground, books
        self.served: tuple[str, float] = ("", 0.0)
        self.rng = random.Random(self.name)
        self.ending = threading.Event()

    def run(self) -> None:
        """Until it is ended."""
        try:
            while not self.ending.is_set():
                self._connect()
        except Exception as error:  # noqa: BLE001 - it is reported
            self.books.blame(BROKEN, f"{self.name}: {error!r}")

    def _connect(self) -> None:
        began = time.time()
        try:
            conn = aurora_router.connect(self.conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            self.books.refused += 1
            log.debug("%s: %s", self.name, error)
            return
        self.books.connects[self.role] += 1
        try:
            with contextlib.closing(conn):
                self._use(conn, began)
        except psycopg.OperationalError:
            self.books.lost += 1

    def _use(self, conn: aurora_router.Connection[Any], began: float) -> None:
        row = conn.execute(WHERE).fetchone()
        assert row is not None
        name, instance, standby, started = row
        if name != self.cluster:
            self.books.blame(WRONG_CLUSTER, f"{self.name} was led to {instance} of {name}")
        if self.role == "writer" and standby and started < began:
            self.books.blame(WRONG_ROLE, f"{self.name} was led to {instance}, a reader for {began - started:.3f} s")
        self.served = (instance, time.time())
        for _ in range(1 if self.long else 3):
            seconds = LONG_SECONDS if self.long else self.rng.uniform(0.0, 0.2)
            self._statement(conn, seconds)

    def _statement(self, conn: aurora_router.Connection[Any], seconds: float) -> None:
        """One statement, in a transaction: so that it is on one instance also behind a pooler of transactions."""
        instance, started, began = "", 0.0, 0.0
        try:
            with conn.transaction():
                row = conn.execute(WHERE).fetchone()
                assert row is not None
                instance, started, began = row[1], row[3], time.time()
                conn.execute("SELECT pg_sleep(%s)", [seconds])
        except psycopg.OperationalError as error:
            if instance and not self.ground.is_disturbed(self.cluster, instance, began):
                self._judge(instance, started, began, error)
            raise
        self.books.statements += 1

    def _judge(self, instance: str, started: float, began: float, error: psycopg.Error) -> None:
        """A statement was lost: that is right only where its instance was restarted or disturbed."""
        now = time.time()
        if self.ground.started_at(self.cluster, instance) == started:
            text = f"{self.name}: a statement on {instance}, after {now - began:.3f} s"
            notes = "; ".join(getattr(error, "__notes__", ()))
            self.books.blame(CUT, " ".join(f"{text}: {error}; {notes}".split()))


# ---------------------------------------------------------------- settings


@contextlib.contextmanager
def pgbouncer_each(ground: Ground) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
    """PgBouncer with session pooling in front of each instance."""
    with contextlib.ExitStack() as running:
        conninfos = {}
        for name, addresses in ground.addresses.items():
            poolers = {id_: running.enter_context(_pgbouncer({"app": each})) for id_, each in addresses.items()}
            hosts = ",".join(f"{id_}={each.host}:{each.port}" for id_, each in poolers.items())
            first = next(iter(poolers.values()))
            conninfos[name] = _conninfo(first.port, "app", aurora_instance_host=hosts)
        yield conninfos, lambda _: None


@contextlib.contextmanager
def pgbouncer_session(ground: Ground) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
    """One PgBouncer with session pooling, that leads to all instances of a cluster in turn.

    It dials a server only where none is free: without a short ``server_lifetime`` it may come to keep connections to
    one reader alone, and to lead every client there.
    """
    kept = {"server_lifetime": 2, "server_round_robin": 1}
    with _pgbouncer({name: _all_of(ground, name) for name in NAMES}, **kept) as pooler:
        yield {name: _conninfo(pooler.port, name) for name in NAMES}, lambda _: None


@contextlib.contextmanager
def pgbouncer_transaction(ground: Ground) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
    """One PgBouncer with transaction pooling, that leads to the writers; its operator follows the failovers."""
    targets = {name: ground.addresses[name][cluster.writer or ""] for name, cluster in ground.clusters.items()}
    with _pgbouncer(targets, pool_mode="transaction") as pooler:

        def follow(name: str) -> None:
            targets[name] = ground.addresses[name][ground.clusters[name].writer or ""]
            pooler.redirect(targets)

        yield {name: _conninfo(pooler.port, name) for name in NAMES}, follow


@contextlib.contextmanager
def haproxy(ground: Ground) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
    """HAProxy, round robin over all instances of a cluster, a port for each cluster."""
    with contextlib.ExitStack() as running:
        balancers = {
            name: running.enter_context(HAProxy(list(ground.addresses[name].values()))) for name in ground.clusters
        }
        yield {name: _conninfo(each.port, "app") for name, each in balancers.items()}, lambda _: None


SETTINGS = {
    "PgBouncer before each instance": pgbouncer_each,
    "PgBouncer, session pooling": pgbouncer_session,
    "PgBouncer, transaction pooling": pgbouncer_transaction,
    "HAProxy, round robin": haproxy,
}


def _pgbouncer(targets: Mapping[str, tuple[str, int]], **settings: object) -> PgBouncer:
    fast = {"server_connect_timeout": 2, "query_wait_timeout": 20, "client_login_timeout": 20}
    return PgBouncer(targets, dbname="app", **{**fast, **settings})


def _all_of(ground: Ground, name: str) -> tuple[str, int]:
    addresses = list(ground.addresses[name].values())
    assert len({port for _, port in addresses}) == 1, "a list of hosts has one port"
    return ",".join(host for host, _ in addresses), addresses[0][1]


def _conninfo(port: int, dbname: str, **options: object) -> str:
    keys = {
        "host": "127.0.0.1", "port": port, "dbname": dbname, "user": "app", "password": "app", "sslmode": "disable",
        "gssencmode": "disable", "aurora_failover_timeout": 10, **options,
    }  # fmt: skip
    return " ".join(f"{key}={value}" for key, value in keys.items())


# ---------------------------------------------------------------- one setting


def play(setting: str, ground: Ground, failovers: int, rng: random.Random) -> Books:
    """Go through the failovers under load."""
    books = Books()
    with SETTINGS[setting](ground) as (conninfos, follow):
        clients = [
            Client(name, role, f"{conninfos[name]} aurora_role={role}", ground, books, long=long)
            for name in NAMES
            for role, count in (("writer", WRITERS), ("reader", READERS))
            if role == "writer" or setting != "PgBouncer, transaction pooling"  # it leads to writers alone
            for long in (*[False] * count, True)
        ]
        for each in clients:
            each.start()
        try:
            for number in range(failovers):
                name, kind = NAMES[number % 2], KINDS[number % len(KINDS)]
                _fail_over(name, kind, ground, clients, follow, rng)
                books.failovers += 1
        except TimeoutError as error:
            books.blame(BROKEN, f"failover {books.failovers + 1}: {error}")
        finally:
            for cluster in ground.clusters.values():
                _thaw(cluster)
            for each in clients:
                each.ending.set()
            for each in clients:
                each.join(PATIENCE)
                if each.is_alive():
                    books.blame(BROKEN, f"{each.name} does not end")
    return books


def _fail_over(
    name: str,
    kind: str,
    ground: Ground,
    clients: list[Client],
    follow: Callable[[str], None],
    rng: random.Random,
) -> None:
    cluster = ground.clusters[name]
    mine = [each for each in clients if each.cluster == name and each.role == "writer"]
    _eventually(lambda: _ready(cluster), f"{name} has a writer and readers")
    time.sleep(rng.uniform(0.0, 0.5))
    old = cluster.writer or ""
    began = time.time()
    ground.disturbed.append((name, old, began, float("inf")))
    if kind == "switchover":
        cluster.failover()
    else:
        getattr(cluster, kind)(old)
    _eventually(lambda: cluster.writer not in {None, old}, f"{name} has another writer after {kind}")
    follow(name)
    if kind == "freeze":
        time.sleep(rng.uniform(0.0, LONG_SECONDS))
        _thaw(cluster)
    _eventually(lambda: _ready(cluster), f"{name} is whole after {kind}")
    ground.disturbed[-1] = (name, old, began, time.time())
    new = cluster.writer or ""
    _eventually(
        lambda: any(each.served[0] == new and each.served[1] > began for each in mine),
        f"a client of {name} is on {new} after {kind}",
    )
    log.info("%s: %s, %s -> %s, %.1f s", name, kind, old, new, time.time() - began)


def _thaw(cluster: LocalCluster) -> None:
    for each in cluster.instances:
        if each.frozen:
            cluster.thaw(each.name)


def _ready(cluster: LocalCluster) -> bool:
    status = cluster.status()
    return status.writer is not None and all(each.state == "available" for each in status.instances)


def _eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not after {PATIENCE:g} s: {what}")
        time.sleep(0.02)


def figures(setting: str, books: Books, failovers: int) -> list[Figure]:
    """What is reported of a setting."""
    connects = ", ".join(f"{count} {role}" for role, count in sorted(books.connects.items()))
    return [
        Figure.at_least(f"{setting}: failovers", books.failovers, "", failovers),
        Figure.at_least(
            f"{setting}: connects", books.connects.total(), "", failovers, f"{connects}; {books.refused} refused"
        ),
        Figure.unbounded(f"{setting}: statements", books.statements, "", f"{books.lost} connections lost"),
        *(
            Figure.at_most(f"{setting}: {kind}", len(books.wrong.get(kind, ())), "", 0)
            for kind in (WRONG_ROLE, WRONG_CLUSTER, CUT, BROKEN)
        ),
    ]


def measure(failovers: int, seed: int, chosen: list[str]) -> Iterator[Figure]:
    """All figures; what is wrong is printed as well."""
    rng = random.Random(seed)
    with contextlib.ExitStack() as running:
        clusters = {name: running.enter_context(LocalCluster.start(readers=2, detect=DETECT)) for name in NAMES}
        for name, cluster in clusters.items():
            with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as conn:
                conn.execute(f"CREATE TABLE pooled_cluster AS SELECT '{name}' AS name")
        ground = Ground(clusters)
        for setting in chosen:
            began = time.monotonic()
            books = play(setting, ground, failovers, rng)
            for kind, texts in books.wrong.items():
                sys.stdout.write(f"WRONG: {len(texts)} {kind}\n" + "".join(f"  {text}\n" for text in texts[:10]))
            for each in figures(setting, books, failovers):
                sys.stdout.write(each.line(60) + "\n")
                yield each
            sys.stdout.write(f"-- {setting}: {time.monotonic() - began:.0f} s\n")
            sys.stdout.flush()


def main() -> int:
    """Returns 1 where something is wrong, or a pooler is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failovers", type=int, default=50, metavar="N", help="of each setting (default: 50)")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--only", action="append", choices=list(SETTINGS), metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--verbose", action="store_true", help="print each failover on standard error")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = parser.parse_args()
    for quiet in ("aurora_router", "psycopg"):  # what they warn of is what is done to them here
        logging.getLogger(quiet).addHandler(logging.NullHandler())
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.DEBUG if args.verbose else logging.ERROR)
    try:
        for name in ("pgbouncer", "haproxy"):
            program(name)
    except NotInstalled as missing:
        sys.stdout.write(f"!!! {missing}: nothing was tested behind poolers !!!\n")
        return 1
    seed = random.SystemRandom().randrange(1, 1 << 30) if args.seed is None else args.seed
    sys.stdout.write(f"seed {seed}\n")
    found = list(measure(args.failovers, seed, args.only or list(SETTINGS)))
    return report(found, args.json)


if __name__ == "__main__":
    sys.exit(main())
