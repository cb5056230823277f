"""``python -m benchmarks.mysql [--kills N] [--failovers N] [--bounded] [--only PART] [--json FILE]``: MySQL's figures.

On the reference cluster of MariaDB (one writer, two readers), with `aurora_router_mysql`. The parts:

* *cost*: a connect by our class and by stock PyMySQL, and stock PyMySQL with the one statement that asks for the role;
  a statement with its row; in turns, TLS off (PyMySQL makes a context for each connection, which would hide the rest).
* *kills*: SIGKILL to the writer, N times. From when an independent process (`mysql_probe`) could first write, until a
  client that has lost its connection has its first acknowledgement.
* *hangs*: a reader stands still. From then until a statement there ends, with each profile.
* *ledger*: four clients write numbers of their own while the writer is killed, stopped, replaced as planned, and
  restarted, in turns. Every acknowledged write has to be there once, no other one twice.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql

import aurora_router_mysql
from aurora_router_cluster import LocalCluster
from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.registry import ClusterDirectory
from benchmarks import paired
from benchmarks.figures import Figure, report
from benchmarks.setting import OURS, STOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLIENTS = 4
ROLE = "SELECT @@innodb_read_only, @@aurora_server_id"
WITH_ROLE = "stock, and the role"
PATIENCE = 60.0
ROUNDS = 400
"""How many connects of each kind are one measurement."""
MOST_CALLS = 430
"""How many functions of Python a connect to a known cluster may call, PyMySQL's own (some 185) among them.

The form for CI is bounded by that: it is the same on every machine, and a new call is seen before its time would be.
"""


class Ground:
    """A cluster, and how to get there."""

    def __init__(self, *, bounded: bool) -> None:
        self.bounded = bounded
        self.cluster = LocalCluster.start(engine="mysql")
        with contextlib.closing(self.ours()) as connection, connection.cursor() as cursor:
            cursor.execute("create table probed (i int)")
            cursor.execute("create table ledger (client int, n int)")

    def ours(self, target: str = "writer", **extra: Any) -> Any:
        """A connection of ours."""
        return aurora_router_mysql.connect(**self.keywords(target, **extra))

    def keywords(self, target: str = "writer", **extra: Any) -> dict[str, Any]:
        """How to connect."""
        return self.cluster.mysql_keywords(target, **{"ssl_disabled": True, "autocommit": True, **extra})

    def stock(self, name: str) -> Any:
        """A stock connection to an instance."""
        at = self.cluster.instance(name)
        login = {"user": "app", "password": "app", "database": "app", "read_timeout": 5}
        return pymysql.connect(host=at.host, port=at.port, ssl_disabled=True, autocommit=True, **login)

    def wait_until_whole(self) -> None:
        """Wait until every instance serves again."""
        self.wait(
            lambda: self.cluster.writer and all(each.state == "available" for each in self.cluster.instances),
            "the cluster is whole",
        )

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: it did not come true; what all threads do was printed, and what the cluster has logged.
        """
        until = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > until:
                faulthandler.dump_traceback()
                raise TimeoutError(f"not within {PATIENCE:g} s: {what}\n{self._describe()}")
            time.sleep(0.02)

    def _describe(self) -> str:
        """The instances, what each says of its role, and the end of the cluster's log."""
        lines = []
        for each in self.cluster.instances:
            try:
                with contextlib.closing(self.stock(each.name)) as connection, connection.cursor() as cursor:
                    cursor.execute(ROLE)
                    says = str(cursor.fetchone())
            except pymysql.err.MySQLError as error:
                says = str(error)
            lines.append(f"{each}: {says}")
        log = ClusterDirectory(self.cluster.key).log.read_text(errors="replace").splitlines()
        return "\n".join([*lines, *log[-20:]])


# ---------------------------------------------------------------- cost


def measure_cost(ground: Ground) -> Iterator[Figure]:
    """What our class costs, in turns with stock PyMySQL."""
    at = ground.cluster.instance(str(ground.cluster.writer))
    login = {"host": at.host, "port": at.port, "user": "app", "password": "app", "database": "app"}
    keep = ground.ours()
    keywords = ground.keywords()

    def ours() -> float:
        began = time.perf_counter()
        connection = aurora_router_mysql.connect(**keywords)
        took = time.perf_counter() - began
        connection.close()
        return took

    def stock(*, role: bool) -> float:
        began = time.perf_counter()
        connection = pymysql.connect(**login, ssl_disabled=True, autocommit=True)
        if role:
            connection.query(ROLE)
        took = time.perf_counter() - began
        connection.close()
        return took

    contestants = {OURS: ours, STOCK: lambda: stock(role=False), WITH_ROLE: lambda: stock(role=True)}
    samples = paired.alternate(contestants, ROUNDS, random.Random())
    milliseconds = {name: statistics.median(those) * 1e3 for name, those in samples.items()}
    note = ", ".join(f"{name} {value:.2f} ms" for name, value in milliseconds.items())
    name, ratio = "connect / stock with the role's statement", paired.ratio(samples, OURS, WITH_ROLE).value
    yield Figure.unbounded(name, ratio, "x", note) if ground.bounded else Figure.at_most(name, ratio, "x", 1.05, note)
    calls, of_stock = min(count_calls(ours) for _ in range(5)), count_calls(lambda: stock(role=True))
    yield Figure.at_most("functions that a connect calls", calls, "", MOST_CALLS, f"stock, and the role {of_stock}")
    yield Figure.unbounded("connect / stock", paired.ratio(samples, OURS, STOCK).value, "x")

    other = ground.stock(str(ground.cluster.writer))
    loops = {OURS: statement_loop(keep), STOCK: statement_loop(other)}
    samples = paired.alternate({name: (lambda loop=loop: loop(20)) for name, loop in loops.items()},
        60 if ground.bounded else 600, random.Random())  # fmt: skip
    yield Figure.at_most("execute and fetch / stock", paired.ratio(samples, OURS, STOCK).value, "x",
        1.15 if ground.bounded else 1.03, f"{statistics.median(samples[STOCK]) / 20 * 1e6:.0f} µs stock")  # fmt: skip
    keep.close()
    other.close()


def count_calls(action: Callable[[], Any]) -> int:
    """How many functions of Python this thread calls meanwhile."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def statement_loop(connection: Any) -> Callable[[int], float]:
    """A loop of statements with a row each."""
    cursor = connection.cursor()

    def loop(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            cursor.execute("select 1")
            cursor.fetchone()
        return time.perf_counter() - began

    return loop


# ---------------------------------------------------------------- kills


class Probe:
    """The independent process, and when it could write."""

    def __init__(self, cluster: LocalCluster) -> None:
        hosts = [each.host for each in cluster.instances]
        command = [sys.executable, "-m", "benchmarks.mysql_probe", str(cluster.port), *hosts]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.times: list[float] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.times.append(float(line))

    def first_after(self, moment: float) -> float | None:
        """The first success after a moment."""
        return next((each for each in self.times[-20000:] if each > moment), None)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


class Writer(threading.Thread):
    """A client that writes without a pause and connects again when it has to."""

    def __init__(self, ground: Ground, number: int = 0) -> None:
        super().__init__(daemon=True)
        self.ground = ground
        self.number = number
        self.acknowledged: list[tuple[float, int]] = []
        self.sent = 0
        self.stopping = False

    def run(self) -> None:
        """Write until it is stopped."""
        keywords = self.ground.keywords()
        while not self.stopping:
            try:
                connection = aurora_router_mysql.connect(**keywords)
            except pymysql.err.MySQLError:
                continue
            with contextlib.suppress(pymysql.err.MySQLError), connection.cursor() as cursor:
                while not self.stopping:
                    self.sent += 1
                    cursor.execute("insert into ledger values (%s, %s)", (self.number, self.sent))
                    self.acknowledged.append((time.monotonic(), self.sent))
                    time.sleep(0.001)
            if connection.open:
                connection.close()

    def first_after(self, moment: float) -> float | None:
        """The first acknowledgement after a moment."""
        return next((at for at, _ in self.acknowledged[-20000:] if at > moment), None)


def measure_kills(ground: Ground, kills: int) -> Iterator[Figure]:
    """From the earliest possible write after a SIGKILL to the writer until a client's first acknowledgement."""
    probe, client = Probe(ground.cluster), Writer(ground)
    client.start()
    late, whole = [], []
    for _ in range(kills):
        ground.wait_until_whole()
        time.sleep(1.5)
        gc.collect()
        moment = time.monotonic()
        ground.cluster.kill(ground.cluster.writer)
        gone = time.monotonic()  # what is acknowledged later is the new writer's
        ground.wait(lambda gone=gone: probe.first_after(gone) and client.first_after(gone), "a write after a kill")
        earliest, first = probe.first_after(gone), client.first_after(gone)
        assert earliest is not None
        assert first is not None
        late.append((first - earliest) * 1e3)
        whole.append((first - moment) * 1e3)
    client.stopping = True
    client.join()
    probe.close()
    late.sort()
    note = f"{kills} kills; from the kill on {statistics.median(whole):.0f} ms"
    bounds = (200.0, 1000.0) if ground.bounded else (30.0, 200.0)
    yield Figure.at_most("kill -9: acknowledged after the earliest possible, median", statistics.median(late), "ms",
        bounds[0], note)  # fmt: skip
    last = late[-max(1, len(late) // 100)]
    yield Figure.at_most("kill -9: acknowledged after the earliest possible, p99", last, "ms", bounds[1])


# ---------------------------------------------------------------- hangs


def measure_hangs(ground: Ground, times: int) -> Iterator[Figure]:
    """From when a reader stands still until a statement there ends."""
    for profile, bound in (("default", 2.5), ("aggressive", 0.6)):
        took = []
        for _ in range(times):
            ground.wait_until_whole()
            connection = ground.ours("reader", aurora_profile=profile)
            time.sleep(1.0)
            name = connection.placement.instance
            ground.cluster.freeze(name)
            began = time.monotonic()
            with contextlib.suppress(pymysql.err.MySQLError), connection.cursor() as cursor:
                cursor.execute("select 1")
            took.append(time.monotonic() - began)
            ground.cluster.thaw(name)
            with contextlib.suppress(pymysql.err.MySQLError):
                connection.close()
        yield Figure.at_most(f"frozen reader: the statement ends, {profile}", statistics.median(took), "s",
            bound * (2.0 if ground.bounded else 1.0), f"longest of {times}: {max(took):.2f} s")  # fmt: skip


# ---------------------------------------------------------------- the ledger


def kill(cluster: LocalCluster) -> None:
    """SIGKILL."""
    cluster.kill(cluster.writer)


def hang(cluster: LocalCluster) -> None:
    """SIGSTOP."""
    cluster.freeze(cluster.writer)


def plan(cluster: LocalCluster) -> None:
    """A planned failover."""
    cluster.failover()


def plan_to(cluster: LocalCluster) -> None:
    """A planned failover to a reader that is named."""
    cluster.failover(random.choice(cluster.readers))


WAYS = {"kill -9": kill, "frozen": hang, "planned": plan, "planned, named": plan_to}


def measure_ledger(ground: Ground, failovers: int) -> Iterator[Figure]:
    """Writes under failovers of four kinds: each acknowledged one is there once, no other one twice."""
    with contextlib.closing(ground.ours()) as connection, connection.cursor() as cursor:
        cursor.execute("truncate table ledger")
    clients = [Writer(ground, number) for number in range(CLIENTS)]
    for each in clients:
        each.start()
    for number in range(failovers):
        ground.wait_until_whole()
        before = ground.cluster.writer
        list(WAYS.values())[number % len(WAYS)](ground.cluster)
        ground.wait(lambda before=before: ground.cluster.writer not in {None, before}, "another writer")
        moment = time.monotonic()
        ground.wait(lambda moment=moment: all(each.first_after(moment) for each in clients), "every client writes")
    for each in clients:
        each.stopping = True
    for each in clients:
        each.join()
    ground.wait_until_whole()
    with contextlib.closing(ground.ours()) as connection, connection.cursor() as cursor:
        cursor.execute("select client, n from ledger")
        rows = cursor.fetchall()
    there = set(rows)
    acknowledged = {(each.number, n) for each in clients for _, n in each.acknowledged}
    sent = sum(each.sent for each in clients)
    note = f"{failovers} failovers ({', '.join(WAYS)}), {len(acknowledged)} acknowledged"
    yield Figure.at_most("ledger: acknowledged writes that are lost", len(acknowledged - there), "", 0, note)
    yield Figure.at_most("ledger: writes that are there twice", len(rows) - len(there), "", 0)
    unknown = sent - len(acknowledged)
    stayed = len(there - acknowledged)
    yield Figure.unbounded("ledger: writes without an answer, of a thousand", unknown / sent * 1e3, "",
        f"{unknown} of {sent}; {stayed} of them are there")  # fmt: skip


PARTS = ("cost", "kills", "hangs", "ledger")


def main() -> int:
    """Measure; 0: every figure keeps its bound."""
    parser = argparse.ArgumentParser(prog="benchmarks.mysql")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--failovers", type=int)
    parser.add_argument("--bounded", action="store_true", help="the form for CI, of about a minute")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    kills = args.kills or (3 if args.bounded else 30)
    failovers = args.failovers or (4 if args.bounded else 200)
    try:
        ground = Ground(bounded=args.bounded)
    except BinariesError as error:
        sys.stderr.write(f"!!! MySQL is not measured: {error} !!!\n")
        return 1
    measures = {
        "cost": lambda: measure_cost(ground),
        "kills": lambda: measure_kills(ground, kills),
        "hangs": lambda: measure_hangs(ground, 1 if args.bounded else 5),
        "ledger": lambda: measure_ledger(ground, failovers),
    }
    try:
        figures = [each for name in PARTS if args.only in {None, name} for each in measures[name]()]
    finally:
        ground.cluster.close()
    return report(figures, args.json)


if __name__ == "__main__":
    sys.exit(main())
