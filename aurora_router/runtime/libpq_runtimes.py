"""The runtimes of psycopg's connections: blocking and asyncio, each with its service queries on libpq."""

from __future__ import annotations

import asyncio
import select
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import psycopg

from aurora_router.flow.runtime import GLANCE_SECONDS, Rows
from aurora_router.runtime import libpq, sockets
from aurora_router.runtime.blocking import ThreadRuntime
from aurora_router.runtime.eventloop import LoopRuntime, settle, slices
from aurora_router.runtime.faults import first_line
from aurora_router.runtime.libpq import HasPgconn, LibpqRuntime
from aurora_router.runtime.timeouts import wait_at_most

if TYPE_CHECKING:
    from psycopg import pq

    from aurora_router.flow.runtime import Wanted


class Closes(HasPgconn, Protocol):
    """A connection that can be closed."""

    def close(self) -> Any:
        """Close it; awaited by an event loop."""
        ...


ConnT = TypeVar("ConnT", bound=Closes)


class BlockingRuntime(LibpqRuntime[ConnT], ThreadRuntime[ConnT]):
    """Threads, the real clock, blocking sockets; for `psycopg.Connection`."""

    __slots__ = ()

    async def ask(self, connection: ConnT, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """One service query by the simple protocol."""
        return query(connection.pgconn, sql, seconds, wanted)


class EventLoopRuntime(LibpqRuntime[ConnT], LoopRuntime[ConnT]):
    """An event loop, the real clock, sockets that are awaited; for `psycopg.AsyncConnection`."""

    __slots__ = ()

    async def ask(self, connection: ConnT, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """One service query by the simple protocol; an answer that is there when the time is over counts."""
        return await query_async(connection.pgconn, sql, seconds, wanted)


# ---------------------------------------------------------------- service queries, blocking


def query(pgconn: pq.abc.PGconn, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
    """One service query by the simple protocol; see `Runtime.ask`."""
    return libpq.rows_of(_query(pgconn, sql.encode(), seconds, wanted))


def _query(pgconn: pq.abc.PGconn, sql: bytes, seconds: float, wanted: Wanted | None) -> pq.abc.PGresult | None:
    """Send one statement and wait for its last result, for `seconds` at most and while it is wanted."""
    patience = _Patience(time.monotonic() + seconds, seconds, wanted)
    try:
        pgconn.send_query(sql)
        while pgconn.flush():
            _wait(pgconn.socket, patience, writing=True)
            pgconn.consume_input()
        result = None
        while True:
            while pgconn.is_busy():
                _wait(pgconn.socket, patience)
                pgconn.consume_input()
            following = pgconn.get_result()
            if following is None:
                return result
            result = following
    except psycopg.OperationalError as error:
        raise libpq.new_connection_lost(first_line(error)) from error


class _Patience(NamedTuple):
    """For how long an answer is waited for: until when, how long that is in all, and whether it is still wanted."""

    until: float
    seconds: float
    wanted: Wanted | None


def _wait(socket: int, patience: _Patience, *, writing: bool = False) -> None:
    events = select.POLLIN | select.POLLOUT if writing else select.POLLIN
    while True:
        left = max(0.0, patience.until - time.monotonic())  # what is there when the time is over counts
        glance = left if patience.wanted is None else min(left, GLANCE_SECONDS)
        if sockets.wait(socket, events, glance):
            return
        if glance == left or not (patience.wanted is None or patience.wanted()):
            raise libpq.new_timeout("topology query", patience.seconds)


# ---------------------------------------------------------------- service queries, asyncio


async def query_async(pgconn: pq.abc.PGconn, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
    """One service query by the simple protocol; see `Runtime.ask`."""
    results: list[pq.abc.PGresult] = []
    try:
        pgconn.send_query(sql.encode())
        complete = await _complete(pgconn, results, seconds, wanted)
    except psycopg.OperationalError as error:
        raise libpq.new_connection_lost(first_line(error)) from error
    if not complete:
        raise libpq.new_timeout("topology query", seconds)
    return libpq.rows_of(results[-1] if results else None)


async def _complete(
    pgconn: pq.abc.PGconn, results: list[pq.abc.PGresult], seconds: float, wanted: Wanted | None
) -> bool:
    """Await the results of a statement that was sent; whether all of them came in time."""
    for glance in slices(seconds, wanted):
        try:
            await wait_at_most(glance, _await_results(pgconn, results))
        except asyncio.TimeoutError:
            if _is_complete(pgconn, results):
                return True
        else:
            return True
    return False


async def _await_results(pgconn: pq.abc.PGconn, results: list[pq.abc.PGresult]) -> None:
    """Await what is left of the results of a statement that was sent."""
    while pgconn.flush():
        await wait_until_ready(pgconn.socket, writable=True)
        pgconn.consume_input()
    while not _is_complete(pgconn, results):
        await wait_until_ready(pgconn.socket)


def _is_complete(pgconn: pq.abc.PGconn, results: list[pq.abc.PGresult]) -> bool:
    """Read what is there already; whether it is the end of the answer. Never waits."""
    pgconn.consume_input()
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:
            return True
        results.append(result)
    return False


async def wait_until_ready(socket: int, *, writable: bool = False) -> None:
    """Wait, on the running loop, until a socket is readable, or writable where that is asked for, too."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(socket, settle, future)
    if writable:
        loop.add_writer(socket, settle, future)
    try:
        await future
    finally:
        loop.remove_reader(socket)
        if writable:
            loop.remove_writer(socket)
