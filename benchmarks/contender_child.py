"""One contender of `failover`, in a process of its own: ``python -m benchmarks.contender_child KIND PLACE [PLACE …]``.

It imports what it needs, says so, and connects at a signal (a line on standard input), so that no imports
are measured. Each line of its output is one JSON object. All clocks are the machine's monotonic one, so that the
figures of different processes can be compared.

The *loop* is the same for every contender, a coroutine that the synchronous ones never suspend: write a row,
autocommit; on an error make it work again in the way that the library wants; go on. It ends with the first
acknowledged write on another instance than the first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INSERT = "INSERT INTO failover_ledger VALUES (1)"
INSTANCE_ID = "SELECT pg_catalog.concat_ws(':', current_setting('cluster_name'), current_setting('port'))"
"""Under a manager one of the two is the same everywhere, and the other one in the reference cluster."""
PAUSE = 0.002  # seconds between two writes, and after a reconnect that failed
POOL = 20
THEIRS = "initial_connection,aurora_connection_tracker,failover_v2,host_monitoring_v2"  # the incumbent's defaults


class Client(Protocol):
    """What the loop needs of a contender."""

    async def write(self) -> None:
        """Write a row."""
        ...

    async def where(self) -> str:
        """Which instance it writes to."""
        ...

    async def renew(self, error: Exception) -> None:
        """Make it work again after an error."""
        ...

    async def pause(self) -> None:
        """Let a moment pass."""
        ...


class Session:
    """A connection that is closed and made again after an error: psycopg's way, and ours."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._connection = connect()

    async def write(self) -> None:
        self._connection.execute(INSERT)

    async def where(self) -> str:
        return str(self._connection.execute(INSTANCE_ID).fetchone()[0])

    async def renew(self, error: Exception) -> None:
        del error
        with contextlib.suppress(Exception):
            self._connection.close()
        self._connection = self._connect()

    async def pause(self) -> None:
        time.sleep(PAUSE)  # noqa: ASYNC251 - the loop of a synchronous contender has no event loop


class Wrapped(Session):
    """The incumbent's: after its ``FailoverSuccessError`` the same connection goes on."""

    async def renew(self, error: Exception) -> None:
        if type(error).__name__ != "FailoverSuccessError":
            await super().renew(error)

    async def write(self) -> None:
        self._connection.cursor().execute(INSERT)

    async def where(self) -> str:
        cursor = self._connection.cursor()
        cursor.execute(INSTANCE_ID)
        return str(cursor.fetchone()[0])


class Awaited:
    """Ours, async."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Any = None

    async def _opened(self) -> Any:
        if self._connection is None:
            import aurora_router

            self._connection = await aurora_router.AsyncConnection.connect(self._conninfo, autocommit=True)
        return self._connection

    async def write(self) -> None:
        await (await self._opened()).execute(INSERT)

    async def where(self) -> str:
        cursor = await (await self._opened()).execute(INSTANCE_ID)
        return str((await cursor.fetchone())[0])

    async def renew(self, error: Exception) -> None:
        del error
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.close()
        await self._opened()

    async def pause(self) -> None:
        await asyncio.sleep(PAUSE)


class Engine:
    """A SQLAlchemy engine, ours or the stock one: its pool does what there is to be done."""

    def __init__(self, engine: Any) -> None:
        import sqlalchemy

        self.engine = engine
        self._insert, self._instance_id = sqlalchemy.text(INSERT), sqlalchemy.text(INSTANCE_ID)

    async def write(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(self._insert)

    async def where(self) -> str:
        with self.engine.connect() as connection:
            return str(connection.execute(self._instance_id).scalar_one())

    async def renew(self, error: Exception) -> None:
        del error

    async def pause(self) -> None:
        time.sleep(PAUSE)  # noqa: ASYNC251 - see `Session`


async def loop(client: Client) -> dict[str, Any]:
    """Write until a write is acknowledged by another instance; what happened when, in seconds of the clock."""
    first = await client.where()
    report(ready=first)
    noticed: float | None = None
    last = 0.0
    while True:
        try:
            await client.write()
            acked = time.monotonic()
            if noticed is None:
                last = acked
            elif (instance := await client.where()) != first:
                return {"last": last, "noticed": noticed, "acked": acked, "instance": instance}
        except Exception as error:  # noqa: BLE001 - each contender has errors of its own
            noticed = noticed or time.monotonic()
            with contextlib.suppress(Exception):
                await client.renew(error)
        await client.pause()


# ---------------------------------------------------------------- the contenders


def psycopg_session(conninfo: str) -> Client:
    return Session(lambda: psycopg.connect(conninfo, autocommit=True))


def our_session(conninfo: str) -> Client:
    import aurora_router

    return Session(lambda: aurora_router.connect(conninfo, autocommit=True))


def their_session(conninfo: str) -> Client:
    from aws_advanced_python_wrapper import (  # type: ignore[import-not-found]  # in another environment
        AwsWrapperConnection,
    )

    def connect() -> Any:
        return AwsWrapperConnection.connect(psycopg.Connection.connect, conninfo, plugins=THEIRS, autocommit=True)

    return Wrapped(connect)


def our_engine(url: str, **options: Any) -> Engine:
    import sqlalchemy

    return Engine(sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", **options))


def pre_ping_engine(conninfo: str, **options: Any) -> Engine:
    import sqlalchemy

    options = {"isolation_level": "AUTOCOMMIT", "pool_pre_ping": True, **options}
    connect = {"creator": lambda: psycopg.connect(conninfo)}
    return Engine(sqlalchemy.create_engine("postgresql+psycopg://", **connect, **options))


SESSIONS: dict[str, Callable[[str], Client]] = {
    "psycopg": psycopg_session,
    "ours": our_session,
    "ours-async": Awaited,
    "ours-engine": our_engine,
    "pre-ping": pre_ping_engine,
    "theirs": their_session,
}


IMPORTS = {
    "psycopg": [],
    "probe": [],
    "ours": ["aurora_router.flow.connect", "aurora_router.runtime.blocking", "aurora_router.runtime.monitor"],
    "ours-async": ["aurora_router.flow.connect", "aurora_router.runtime.monitor"],
    "ours-engine": [
        "aurora_router.flow.connect",
        "aurora_router.runtime.blocking",
        "aurora_router.runtime.monitor",
        "sqlalchemy.dialects.postgresql.psycopg",
    ],
    "pre-ping": ["sqlalchemy.dialects.postgresql.psycopg"],
    "theirs": ["aws_advanced_python_wrapper"],
}


# ---------------------------------------------------------------- what stands beside them


def probe(places: Sequence[str]) -> dict[str, Any]:
    """Ask each instance, tightly and on a connection that is there already, for a write; when one was acknowledged.

    That is earlier than any client could have it: no dial, no authentication and no search is in it.
    """
    found: list[float] = []

    def ask(place: str) -> None:
        while not found:
            with contextlib.suppress(psycopg.Error), psycopg.connect(place, autocommit=True) as connection:
                while not found:
                    try:
                        connection.execute("INSERT INTO failover_ledger VALUES (2)")
                        found.append(time.monotonic())
                    except psycopg.errors.ReadOnlySqlTransaction:
                        time.sleep(0.001)
            time.sleep(0.001)

    for place in places:
        threading.Thread(target=ask, args=(place,), daemon=True).start()
    report(ready=None)
    while not found:
        time.sleep(0.001)
    return {"acked": found[0]}


def readers(places: Sequence[str]) -> dict[str, Any]:
    """Read on a connection of ours to each place, until a signal to end; reads and errors, by instance."""
    import aurora_router

    ended = threading.Event()
    reads: dict[str, int] = {}
    errors: dict[str, list[str]] = {}

    def read(place: str) -> None:
        with aurora_router.connect(place, autocommit=True) as connection:
            instance = str(connection.execute(INSTANCE_ID).fetchone()[0])
            reads[instance], errors[instance] = 0, []
            while not ended.is_set():
                try:
                    connection.execute("SELECT count(*) FROM failover_ledger")
                    reads[instance] += 1
                except psycopg.Error as error:
                    errors[instance].append(f"{type(error).__name__}: {error}".splitlines()[0])
                    return
                time.sleep(PAUSE)

    threads = [threading.Thread(target=read, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    report(ready=None)
    sys.stdin.readline()
    ended.set()
    for thread in threads:
        thread.join()
    return {"reads": reads, "errors": errors}


def pool(kind: str, place: str) -> dict[str, Any]:
    """Fill a pool, write through it all the time, and check all of it out at a signal; returns what was handed out."""
    engine = {"ours-engine": our_engine, "pre-ping": pre_ping_engine}[kind](place, pool_size=POOL + 1, max_overflow=0)
    connections = [engine.engine.connect() for _ in range(POOL + 1)]
    for connection in connections:
        connection.close()
    first = run(engine.where())

    def write() -> None:
        while True:
            with contextlib.suppress(Exception):
                run(engine.write())
            time.sleep(PAUSE)

    threading.Thread(target=write, daemon=True).start()
    report(ready=first)
    sys.stdin.readline()
    handed: list[str] = []
    for _ in range(POOL):
        connection = engine.engine.connect()
        handed.append(str(connection.exec_driver_sql(INSTANCE_ID).scalar_one()))
        connections.append(connection)  # kept, so that each checkout gets another one
    return {"stale": handed.count(first), "handed": len(handed)}


# ---------------------------------------------------------------- running


def run(procedure: Any) -> Any:
    """Drive a coroutine that does not suspend to its end."""
    try:
        procedure.send(None)
    except StopIteration as done:
        return done.value
    procedure.close()
    raise RuntimeError("it suspended")


def end_with(parent: int) -> None:
    """End this process when its parent is gone: a loop without a reader would go on forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def report(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main(kind: str, places: Sequence[str]) -> dict[str, Any]:
    for module in IMPORTS.get(kind, IMPORTS["ours-engine"]):
        import_module(module)
    report(imported=True)
    sys.stdin.readline()
    if kind == "probe":
        return probe(places)
    if kind == "readers":
        return readers(places)
    if kind.startswith("pool:"):
        return pool(kind.partition(":")[2], *places)
    if kind == "ours-async":
        return asyncio.run(loop(Awaited(*places)))
    found: dict[str, Any] = run(loop(SESSIONS[kind](*places)))
    return found


if __name__ == "__main__":
    end_with(os.getppid())
    report(**main(sys.argv[1], sys.argv[2:]))
    os._exit(0)  # what is left is threads and sockets; the incumbent's would take seconds to end in order
