"""What the monitor does with the connections of one cluster: its own, and those of users.

It opens its own sessions with the credentials of the last user, names them, and may leave one to a user. At a user's
connection it only looks, unless it cuts it; both are done only while that user does not close it. The monitor's thread
looks after all clusters, so it never waits for a user's lock.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import pq

from aurora_router.flow.runtime import Activity, DialFailed, Target
from aurora_router.forks import step_by_step
from aurora_router.runtime import libpq, session_cache, sockets
from aurora_router.runtime.connect_args import opening_async
from aurora_router.runtime.libpq_runtimes import EventLoopRuntime
from aurora_router.runtime.loop_monitoring import MonitorLoopRuntime, note_bytes

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.monitor import ClusterMonitor
    from aurora_router.flow.runtime import Rows, Wanted
    from aurora_router.policy.paths import End
    from aurora_router.runtime.dns import Names

SESSION_NAME = "aurora-router monitor"
"""``application_name`` of the monitor's sessions; that of the user follows in brackets."""
OFFER_SECONDS = 0.5
"""How long the server may take to give a session its user's name back."""

_ACTIVITY = {
    pq.TransactionStatus.IDLE: Activity.IDLE,
    pq.TransactionStatus.ACTIVE: Activity.WAITING,
    pq.TransactionStatus.INTRANS: Activity.OPEN,
    pq.TransactionStatus.INERROR: Activity.OPEN,
    pq.TransactionStatus.UNKNOWN: Activity.BROKEN,
}


class _Own(psycopg.AsyncConnection[Any]):
    """A connection of the monitor's own."""

    key: session_cache.Key = frozenset()
    is_named = False

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Any:
        return _note_bytes(step_by_step(super()._connect_gen(*args, **kwargs)))


def _note_bytes(dialling: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Do the same steps of a dial, and note when the server has sent something for one of them."""
    began: float | None = time.monotonic()
    try:
        wanted = next(dialling)
        while True:
            ready = yield wanted
            if sockets.has_bytes(wanted[0]) and (end := sockets.ends_of(wanted[0])[1]) is not None:
                note_bytes(end, time.monotonic(), began)
                began = None
            wanted = dialling.send(ready)
    except StopIteration as done:
        return done.value
    finally:
        dialling.close()


def _naming(pgconn: pq.abc.PGconn) -> str:
    """The statement that names a session of the monitor's."""
    users = (pgconn.parameter_status(b"application_name") or b"").decode(errors="replace")
    name = f"{SESSION_NAME} ({users})"[:63] if users else SESSION_NAME
    return f"SET application_name TO {pq.Escaping(pgconn).escape_literal(name.encode()).decode()}"


class ThreadMonitorRuntime(EventLoopRuntime["_Own"], MonitorLoopRuntime["_Own"]):
    """The monitor's runtime for one cluster: psycopg's own connections, with the credentials of the last user."""

    needed_by_failures = (
        *MonitorLoopRuntime.needed_by_failures,
        *(f"aurora_router.{name}" for name in ("runtime.incidents", "checking", "runtime.pooler_check")),
        *(f"aurora_router.{name}" for name in ("policy.recycling", "runtime.languages", "runtime.rebalancing")),
        "hashlib",
    )

    def __init__(self, cluster: Cluster, names: Names) -> None:
        MonitorLoopRuntime.__init__(self, self._open_one, cluster, names)
        self._offered: dict[session_cache.Key, pq.abc.PGconn] = {}

    async def _open_one(self, target: Target, seconds: float) -> _Own:
        monitor = cast("ClusterMonitor[Any] | None", self._cluster.monitor)
        if monitor is None:
            raise psycopg.OperationalError("this cluster is not monitored any more")
        base = monitor.access.params

        async def open_(target: Target, seconds: float, login: Mapping[str, str] = libpq.NO_LOGIN) -> _Own:
            params = libpq.dial_params(base, target, seconds, login)
            connection = await _Own.connect("", autocommit=True, **params)
            connection.key = session_cache.key_of(params)
            return connection

        return await opening_async(open_, base)(target, seconds)

    async def ask(self, connection: _Own, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """One service query; the first one names the session too, without a round trip of its own.

        Not named in the parameters of the dial: a user that gets this session has the name that was asked
        for, also after RESET.
        """
        if connection.is_named:
            return await super().ask(connection, sql, seconds, wanted)
        rows = await super().ask(connection, f"{_naming(connection.pgconn)}; {sql}", seconds, wanted)
        connection.is_named = True
        return rows

    def database(self, connection: Any) -> str:
        """The database of a connection."""
        try:
            name: str = connection.pgconn.db.decode()
        except psycopg.Error:
            return ""
        return name

    async def offer(self, connection: _Own) -> bool:
        """Lay the session under a connection of ours down for a user; see `runtime.session_cache`."""
        try:
            await super().ask(connection, "RESET application_name; SELECT 1", OFFER_SECONDS)
        except DialFailed:
            connection.pgconn.finish()
            return True
        key, pgconn = connection.key, connection.pgconn
        del connection.pgconn  # so that the connection neither closes it nor complains that it was not closed
        session_cache.SESSIONS.lay(key, pgconn)
        self._offered[key] = pgconn
        asyncio.get_running_loop().call_later(session_cache.SECONDS, self._withdraw, key)
        return True

    def _withdraw(self, key: session_cache.Key) -> None:
        pgconn = self._offered.pop(key, None)
        if pgconn is not None:
            session_cache.SESSIONS.clear(key, pgconn)

    async def end(self) -> None:
        """End what goes on by itself."""
        await super().end()
        for key in list(self._offered):
            self._withdraw(key)

    # ------------------------------------------------------------ users' connections

    def activity(self, held: Any) -> Activity:
        """What a user's connection does now."""
        if not held.guard.acquire(blocking=False):
            return Activity.CLOSED
        try:
            found = _ACTIVITY[held.pgconn.transaction_status]
            if found is Activity.BROKEN:
                return found if held.broken else Activity.CLOSED
            return Activity.LISTENING if held.listening and found is not Activity.WAITING else found
        finally:
            held.guard.release()

    def target(self, held: Any, name: str) -> Target | None:
        """Where a user's connection leads."""
        if not held.guard.acquire(blocking=False):
            return None
        try:
            pgconn = held.pgconn
            host, address, port = pgconn.host.decode(), pgconn.hostaddr.decode(), int(pgconn.port)
        except (psycopg.Error, ValueError):
            return None
        finally:
            held.guard.release()
        return Target(name, host, port, (address,) if address else ())

    def ends(self, connection: _Own) -> tuple[End | None, End | None]:
        """Both ends of a connection of the monitor's own."""
        return sockets.ends_of(connection.pgconn.socket)
