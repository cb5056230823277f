"""The clients of the failover chaos: each writes rows of its own and moves money, in every way that the library offers.

An operation is one transaction: a row in a ledger (client, number, attempt) and a transfer between two accounts. Four
clients use `run_transaction`, whose report is taken for the outcome: their ledger has no key, so what is done
twice shows. Four others do without: they repeat until it is done, and a unique key shows what was done already.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import PoolTimeout

import aurora_router
from aurora_router import CommitOutcomeUnknown
from aurora_router import pool as aurora_pool

if TYPE_CHECKING:
    from collections.abc import Callable

ACCOUNTS = 64
RICHES = 1000
PAUSE = 0.03  # seconds between two operations of a client, on average
WHERE = "current_setting('cluster_name'), ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"

TABLES = f"""
CREATE TABLE ledger (client int, number int, attempt int, source int, target int, amount int, instance text, tli int);
CREATE TABLE keyed (LIKE ledger, PRIMARY KEY (client, number));
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint);
INSERT INTO accounts SELECT i, {RICHES} FROM generate_series(0, {ACCOUNTS - 1}) AS i;
"""
WRITE = "INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s, " + WHERE + ") RETURNING instance, tli"
MOVE = "UPDATE accounts SET balance = balance + %s WHERE id = %s"


@dataclass
class Operation:
    """One operation, as it was reported to its client.

    Attributes:
        number: of the client's own counting.
        reported: what was reported, ``committed``, ``unknown`` or ``not committed: <why>``.
        began: monotonic time at which its last attempt began.
        acked: monotonic time of that report.
        instance: which one took the last attempt.
        tli: the timeline that it wrote to.
        attempts: how often it was tried.
    """

    number: int
    reported: str = ""
    began: float = 0.0
    acked: float = 0.0
    instance: str = ""
    tli: int = 0
    attempts: int = 0


@dataclass
class Client:
    """What all clients share.

    Attributes:
        number: of the client.
        way: what it is, for the report.
        table: where it writes.
        done: its operations, in order.
        failure: what ended it before it was stopped; None: nothing.
    """

    number: int
    way: str
    table: str
    seed: int
    stop: threading.Event
    done: list[Operation] = field(default_factory=list)
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def next(self) -> tuple[Operation, tuple[Any, ...]]:
        """A new operation, and the values of its row but for the attempt's number."""
        operation = Operation(len(self.done))
        self.done.append(operation)
        source, target = self.random.sample(range(ACCOUNTS), 2)
        return operation, (source, target, self.random.randrange(1, 100))

    def pause(self) -> float:
        """Seconds until the next one."""
        return self.random.uniform(0.2, 1.8) * PAUSE

    def row(self, operation: Operation, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row of another attempt, which begins now."""
        operation.attempts += 1
        operation.began = time.monotonic()
        return (self.number, operation.number, operation.attempts, *values)

    def took(self, operation: Operation, found: Any) -> None:
        """Where it was written."""
        operation.instance, operation.tli = found

    def record_report(self, operation: Operation, what: str) -> None:
        """The end of an operation."""
        operation.acked, operation.reported = time.monotonic(), what


def moves(values: tuple[Any, ...]) -> list[tuple[int, int]]:
    """The two updates of a transfer, in the order of the accounts: no two wait for each other."""
    source, target, amount = values
    return sorted([(-amount, source), (amount, target)], key=lambda move: move[1])


# -- blocking --------------------------------------------------------------------------------------------------


def write(client: Client, operation: Operation, values: tuple[Any, ...], conn: psycopg.Connection[Any]) -> None:
    """The statements of one operation."""
    row = client.row(operation, values)
    client.took(operation, conn.execute(WRITE.format(table=client.table), row).fetchone())
    for move in moves(values):
        conn.execute(MOVE, move)


def transact(client: Client, conninfo: str, **options: Any) -> None:
    """`Router.run_transaction` with a pool; what it reports is taken as the outcome."""
    router = aurora_router.Router(conninfo, **options)
    with aurora_pool.ConnectionPool(conninfo, min_size=1, max_size=2) as pool:
        while not client.stop.is_set():
            operation, values = client.next()
            try:
                router.run_transaction(partial(write, client, operation, values), pool=pool)
                client.record_report(operation, "committed")
            except CommitOutcomeUnknown:
                client.record_report(operation, "unknown")
            except (psycopg.Error, PoolTimeout) as error:
                client.record_report(operation, f"not committed: {type(error).__name__}: {error}")
            time.sleep(client.pause())


def repeat(client: Client, once: Callable[[Operation, tuple[Any, ...]], None]) -> None:
    """Repeat each operation until it is done; the key shows when it had been done before."""
    while not client.stop.is_set():
        operation, values = client.next()
        while operation.reported != "committed":
            try:
                once(operation, values)
                client.record_report(operation, "committed")
            except psycopg.errors.UniqueViolation:
                operation.began, operation.tli = 0.0, 0  # an earlier attempt did it, whenever that was
                client.record_report(operation, "committed")
            except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction, OSError):
                time.sleep(0.002)
        time.sleep(client.pause())


def plain(client: Client, conninfo: str) -> None:
    """`connect`, kept until it breaks."""
    held: list[psycopg.Connection[Any]] = []

    def once(operation: Operation, values: tuple[Any, ...]) -> None:
        if not held:
            held.append(aurora_router.connect(conninfo))
        try:
            with held[0].transaction():
                write(client, operation, values, held[0])
        except psycopg.errors.UniqueViolation:
            raise
        except BaseException:
            held.pop().close()
            raise

    try:
        repeat(client, once)
    finally:
        for conn in held:
            conn.close()


def pooled(client: Client, conninfo: str) -> None:
    """`aurora_router.pool`, which is psycopg_pool's with our check."""
    with aurora_pool.ConnectionPool(conninfo, min_size=2, max_size=4) as pool:

        def once(operation: Operation, values: tuple[Any, ...]) -> None:
            with pool.connection() as conn:
                write(client, operation, values, conn)

        repeat(client, once)


# -- asyncio ---------------------------------------------------------------------------------------------------


async def awrite(
    client: Client, operation: Operation, values: tuple[Any, ...], conn: psycopg.AsyncConnection[Any]
) -> None:
    """`write`, awaited."""
    row = client.row(operation, values)
    client.took(operation, await (await conn.execute(WRITE.format(table=client.table), row)).fetchone())
    for move in moves(values):
        await conn.execute(MOVE, move)


async def atransact(client: Client, conninfo: str, **options: Any) -> None:
    """`AsyncRouter.run_transaction` with a pool."""
    router = aurora_router.AsyncRouter(conninfo, **options)
    async with aurora_pool.AsyncConnectionPool(conninfo, min_size=1, max_size=2, open=False) as pool:
        while not client.stop.is_set():
            operation, values = client.next()
            try:
                await router.run_transaction(partial(awrite, client, operation, values), pool=pool)
                client.record_report(operation, "committed")
            except CommitOutcomeUnknown:
                client.record_report(operation, "unknown")
            except (psycopg.Error, PoolTimeout) as error:
                client.record_report(operation, f"not committed: {type(error).__name__}: {error}")
            await asyncio.sleep(client.pause())


async def arepeat(client: Client, once: Callable[[Operation, tuple[Any, ...]], Any]) -> None:
    """`repeat`, awaited."""
    while not client.stop.is_set():
        operation, values = client.next()
        while operation.reported != "committed":
            try:
                await once(operation, values)
                client.record_report(operation, "committed")
            except psycopg.errors.UniqueViolation:
                operation.began, operation.tli = 0.0, 0
                client.record_report(operation, "committed")
            except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction, OSError):
                await asyncio.sleep(0.002)
        await asyncio.sleep(client.pause())


async def aplain(client: Client, conninfo: str) -> None:
    """`AsyncConnection.connect`, kept until it breaks."""
    held: list[psycopg.AsyncConnection[Any]] = []

    async def once(operation: Operation, values: tuple[Any, ...]) -> None:
        if not held:
            held.append(await aurora_router.AsyncConnection.connect(conninfo))
        try:
            async with held[0].transaction():
                await awrite(client, operation, values, held[0])
        except psycopg.errors.UniqueViolation:
            raise
        except BaseException:
            await held.pop().close()
            raise

    try:
        await arepeat(client, once)
    finally:
        for conn in held:
            await conn.close()


async def apooled(client: Client, conninfo: str) -> None:
    """`aurora_router.pool.AsyncConnectionPool`."""
    async with aurora_pool.AsyncConnectionPool(conninfo, min_size=2, max_size=4, open=False) as pool:

        async def once(operation: Operation, values: tuple[Any, ...]) -> None:
            async with pool.connection() as conn:
                await awrite(client, operation, values, conn)

        await arepeat(client, once)


# -- all of them -----------------------------------------------------------------------------------------------


class Reader:
    """Looks at the bank through the reader endpoint: in whatever snapshot, the sum is the same."""

    def __init__(self, conninfo: str, stop: threading.Event) -> None:
        self.looks = 0
        self.wrong: list[str] = []
        self.failure: BaseException | None = None
        self._conninfo = conninfo
        self._stop = stop

    def run(self) -> None:
        """Until it is stopped."""
        while not self._stop.is_set():
            passing = contextlib.suppress(psycopg.OperationalError)
            with passing, aurora_router.connect(self._conninfo) as conn:
                while not self._stop.is_set():
                    row = conn.execute("SELECT count(*), sum(balance) FROM accounts").fetchone()
                    conn.rollback()
                    self.looks += 1
                    if row != (ACCOUNTS, ACCOUNTS * RICHES):
                        self.wrong.append(f"a reader saw {row} instead of {(ACCOUNTS, ACCOUNTS * RICHES)}")
                    time.sleep(PAUSE)
            time.sleep(0.005)


class Crowd:
    """Eight clients and a reader, in threads of this process."""

    def __init__(self, conninfo: str, reading: str, seed: int) -> None:
        self.stop = threading.Event()
        ways: list[tuple[str, str, Any, dict[str, Any]]] = [
            ("run_transaction, log position", "ledger", transact, {"aurora_outcome": "log"}),
            ("run_transaction, witness", "ledger", transact, {"aurora_outcome": "witness"}),
            ("run_transaction, asyncio, log position", "ledger", atransact, {"aurora_outcome": "log"}),
            ("run_transaction, asyncio, witness", "ledger", atransact, {"aurora_outcome": "witness"}),
            ("connection and unique key", "keyed", plain, {}),
            ("pool and unique key", "keyed", pooled, {}),
            ("asyncio connection and unique key", "keyed", aplain, {}),
            ("asyncio pool and unique key", "keyed", apooled, {}),
        ]
        self.clients = [
            Client(number, way, table, seed * 100 + number, self.stop) for number, (way, table, _, _) in enumerate(ways)
        ]
        self.reader = Reader(reading, self.stop)
        self._threads = [
            threading.Thread(target=self._run, args=(client, work, conninfo, options), name=client.way, daemon=True)
            for client, (_, _, work, options) in zip(self.clients, ways, strict=True)
        ]
        self._threads.append(threading.Thread(target=self._read, name="reader", daemon=True))

    def _run(self, client: Client, work: Any, conninfo: str, options: dict[str, Any]) -> None:
        try:
            if asyncio.iscoroutinefunction(work):
                asyncio.run(work(client, conninfo, **options))
            else:
                work(client, conninfo, **options)
        except BaseException as error:  # noqa: BLE001 - reported by whoever looks at the crowd
            client.failure = error

    def _read(self) -> None:
        try:
            self.reader.run()
        except BaseException as error:  # noqa: BLE001 - as above
            self.reader.failure = error

    def start(self) -> None:
        """Let them begin."""
        for thread in self._threads:
            thread.start()

    def end(self, patience: float = 120.0) -> list[str]:
        """Let them finish what they do; returns what is wrong with that."""
        self.stop.set()
        for thread in self._threads:
            thread.join(patience)
        wrong = [f"{thread.name} hangs" for thread in self._threads if thread.is_alive()]
        failed = [(client.way, client.failure) for client in self.clients] + [("reader", self.reader.failure)]
        return wrong + [f"{name} broke: {error!r}" for name, error in failed if error is not None]

    def newest(self) -> list[int]:
        """The timeline of each client's newest operation that was acknowledged."""
        return [
            next((each.tli for each in reversed(client.done[-4:]) if each.reported == "committed" and each.tli), 0)
            for client in self.clients
        ]
