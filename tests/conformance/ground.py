"""Where a case runs: on stock psycopg or on ours, blocking or on asyncio, always against the same writer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from tests.conformance.spy import LOG, Entry, Spy, note, plain, shown, spied

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aurora_router_cluster import LocalCluster

    Case = Callable[["Ground"], Coroutine[Any, Any, None]]

SIDES = {
    "stock": {"sync": psycopg.Connection, "async": psycopg.AsyncConnection},
    "ours": {"sync": aurora_router.Connection, "async": aurora_router.AsyncConnection},
}
SCHEMA = "conformance"


class Ground:
    """Connections of one kind, to a schema that is empty at first."""

    def __init__(self, cluster: LocalCluster, side: str, mode: str, *, of: Any = None) -> None:
        self.mode = mode
        self.make = Spy(of or SIDES[side][mode])
        place = {"options": f"-csearch_path={SCHEMA} -clock_timeout=20s"}
        self.conninfo = cluster.conninfo(**place) if side == "ours" else cluster.plain_conninfo(**place)
        if side == "ours":
            aurora_router.connect(self.conninfo).close()  # the first connect goes by another name than the later ones
        self.cleaner = cluster.plain_conninfo(options=place["options"])
        self._open: list[Any] = []

    async def connect(self, conninfo: str | None = None, **kwargs: Any) -> Any:
        """A connection, closed with the ground."""
        made = await self.make.connect(self.conninfo if conninfo is None else conninfo, **kwargs)
        self._open.append(plain(made))
        return made

    def told(self, name: str, value: Any) -> None:
        """Put something else into the log."""
        note(self, name, value)

    def shown(self, value: Any) -> tuple[Any, ...]:
        """How the log would show it."""
        return shown(value)

    async def sleep_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until, "waited for half a minute"
            if self.mode == "sync":
                time.sleep(0.005)  # noqa: ASYNC251 - this is the blocking case
            else:
                await asyncio.sleep(0.005)

    async def beside(self, action: Any, then: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `then` while `action` is under way, in a thread or a task; the log has the action after it."""
        log: list[Entry] = []

        async def acted() -> None:
            LOG.set(log)
            with contextlib.suppress(psycopg.Error):
                await action

        if self.mode == "async":
            task = asyncio.create_task(acted())
            await then()
            await task
        else:
            thread = threading.Thread(target=drive, args=(acted(),))
            thread.start()
            await then()
            thread.join()
        LOG.get().extend(log)

    async def running(self, text: str) -> None:
        """Wait until a statement that has this text runs on the server."""
        with psycopg.connect(self.cleaner, autocommit=True) as conn:
            query = (
                "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()"
                " and query like %s"
            )
            await self.sleep_until(lambda: conn.execute(query, [f"%{text}%"]).fetchone() == (1,))

    async def close(self) -> None:
        """Close what was left open."""
        for each in self._open:
            closing = each.close()
            if closing is not None:
                await closing


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a blocking case awaited something")


def run(case: Case, ground: Ground) -> list[Entry]:
    """The log of a case on a ground."""
    with psycopg.connect(ground.cleaner, autocommit=True) as conn:
        for (prepared,) in conn.execute("select gid from pg_prepared_xacts where gid like '%%conformance%%'", []):
            conn.execute(psycopg.sql.SQL("rollback prepared {}").format(prepared))  # by a run that failed
        conn.execute("set client_min_messages = error")
        conn.execute(f"drop schema if exists {SCHEMA} cascade")
        conn.execute(f"create schema {SCHEMA}")

    async def whole() -> None:
        try:
            await case(ground)
        finally:
            await ground.close()

    log: list[Entry] = []
    token = LOG.set(log)
    try:
        if ground.mode == "sync":
            drive(whole())
        else:
            asyncio.run(whole())
    finally:
        LOG.reset(token)
    return log


__all__ = ["Ground", "drive", "run", "spied"]
