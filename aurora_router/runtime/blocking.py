"""The blocking world: every step is done at once, so its coroutines never suspend."""

from __future__ import annotations

import select
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psycopg

from aurora_router.flow.world import DialFailed, Resolution, Rows, Target
from aurora_router.runtime import libpq
from aurora_router.runtime.real import HasPgconn, RealWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from psycopg import pq

    from aurora_router.flow.cluster import Cluster
    from aurora_router.runtime.dns import Names

T = TypeVar("T")


class Closes(HasPgconn, Protocol):
    """A connection that can be closed."""

    def close(self) -> Any:
        """Close it."""
        ...


ConnT = TypeVar("ConnT", bound=Closes)


def run(procedure: Coroutine[Any, Any, T]) -> T:
    """Drive a procedure over a blocking world to its end."""
    try:
        procedure.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    procedure.close()
    raise RuntimeError("a procedure suspended in the blocking world: this is a bug of aurora_router")


class BlockingWorld(RealWorld[ConnT]):
    """Threads, the real clock, blocking sockets.

    Args:
        open_: makes the connection; ``open_(target, seconds)``, raising the driver's errors.
        names: resolves host names.
    """

    __slots__ = ("_names", "_open")

    def __init__(self, open_: Callable[[Target, float], ConnT], names: Names) -> None:
        self._open = open_
        self._names = names

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        time.sleep(seconds)  # noqa: ASYNC251 - this world's coroutines are driven without an event loop

    async def resolve(self, host: str, *, fresh: bool = False) -> Resolution:
        """What a host name stands for."""
        return self._names.resolve(host, fresh=fresh)

    async def dial(self, target: Target, seconds: float) -> ConnT:
        """Open a connection."""
        if len(target.addresses) < 2:
            return self._dial_one(target, seconds)
        dials = libpq.one_by_one(target, seconds, v6_first=self._names.prefers_v6(target.host))
        single, limit = next(dials)
        while True:
            try:
                connection = self._dial_one(single, limit)
            except DialFailed as failed:
                single, limit = dials.send(failed)
            else:
                self._names.answered(target.host, single.addresses[0])
                return connection

    def _dial_one(self, target: Target, seconds: float) -> ConnT:
        try:
            return self._open(target, seconds)
        except psycopg.Error as error:
            raise DialFailed(libpq.fault_of(error), error) from error

    async def ask(self, connection: ConnT, sql: str, seconds: float) -> Rows:
        """One service query by the simple protocol."""
        return libpq.rows_of(_query(connection.pgconn, sql.encode(), seconds))

    async def discard(self, connection: ConnT) -> None:
        """Close a connection."""
        connection.close()

    async def changed(self, cluster: Cluster, seen: int, seconds: float) -> None:
        """Wait for news of a cluster."""
        event = threading.Event()
        cluster.add_waiter(event.set)
        try:
            if cluster.news == seen:
                event.wait(seconds)
        finally:
            cluster.drop_waiter(event.set)


def _query(pgconn: pq.abc.PGconn, sql: bytes, seconds: float) -> pq.abc.PGresult | None:
    """Send one statement and wait for its last result, for `seconds` at most."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    try:
        pgconn.send_query(sql)
        while pgconn.flush():
            _wait(poll, pgconn.socket, select.POLLIN | select.POLLOUT, deadline, seconds)
            pgconn.consume_input()
        result = None
        while True:
            while pgconn.is_busy():
                _wait(poll, pgconn.socket, select.POLLIN, deadline, seconds)
                pgconn.consume_input()
            following = pgconn.get_result()
            if following is None:
                return result
            result = following
    except psycopg.OperationalError as error:
        raise libpq.lost(libpq.first_line(error)) from error


def _wait(poll: select.poll, socket: int, events: int, deadline: float, seconds: float) -> None:
    poll.modify(socket, events)
    left = max(0.0, deadline - time.monotonic())  # what is there when the time is over counts
    if not poll.poll(left * 1000):
        raise libpq.late("topology query", seconds)
