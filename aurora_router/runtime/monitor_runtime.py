"""What the monitor does with the connections of one cluster: its own, and those of users.

It opens its own sessions with the credentials of the last user, names them, and may leave one to a user. At a user's
connection it only looks, unless it cuts it; both are done only while that user does not close it. The monitor's thread
looks after all clusters, so it never waits for a user's lock.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from psycopg import pq

from aurora_router import observe
from aurora_router.flow.runtime import Activity, DialFailed, Target
from aurora_router.forks import step_by_step
from aurora_router.model.bounds import forget_oldest
from aurora_router.policy.hang_detection import with_silence
from aurora_router.runtime import libpq, session_cache, sockets
from aurora_router.runtime.connect_args import opening_async
from aurora_router.runtime.courier import COURIER
from aurora_router.runtime.eventloop import EventLoopRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.monitor import ClusterMonitor
    from aurora_router.flow.runtime import Rows, Wanted
    from aurora_router.policy.paths import End
    from aurora_router.runtime.dns import Names

T = TypeVar("T")

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


_heard: dict[End, float] = {}
"""When bytes last arrived on a dial of the monitor's, by the address and the port that were dialled."""


_silences: dict[End, tuple[float, ...]] = {}
"""How long the last dials of the monitor's waited for the first byte, by the address and the port, in seconds."""


def _note_bytes(dialling: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Do the same steps of a dial, and note when the server has sent something for one of them."""
    began: float | None = time.monotonic()
    try:
        wanted = next(dialling)
        while True:
            ready = yield wanted
            if sockets.has_bytes(wanted[0]) and (end := sockets.ends_of(wanted[0])[1]) is not None:
                now = time.monotonic()
                _heard.pop(end, None)
                _heard[end] = now
                forget_oldest(_heard)
                if began is not None:
                    _silences[end] = with_silence(_silences.pop(end, ()), now - began)
                    forget_oldest(_silences)
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


class ThreadMonitorRuntime(EventLoopRuntime["_Own"]):
    """The monitor's runtime for one cluster: psycopg's own connections, with the credentials of the last user."""

    def __init__(self, cluster: Cluster, names: Names) -> None:
        super().__init__(self._open_one, names)
        self._cluster = cluster
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered: dict[session_cache.Key, pq.abc.PGconn] = {}

    def take(self, names: Names) -> None:
        """Resolve host names as the last connect does."""
        self._names = names

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

    def spawn(self, procedure: Coroutine[Any, Any, None]) -> None:
        """Let a procedure go on by itself."""
        task = asyncio.get_running_loop().create_task(procedure)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            COURIER.send(partial(observe.report_bug, self._cluster.name, error))

    async def end(self) -> None:
        """End what goes on by itself."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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

    def heard_at(self, held: Any) -> float | None:
        """When the last data arrived on a user's connection, by the kernel's clock."""
        seconds = _with_socket(held, sockets.since_data)
        return None if seconds is None else self.now() - seconds

    def dial_heard_at(self, target: Target) -> float | None:
        """When the last data arrived on a dial of the monitor's to a target."""
        port = target.port
        found = [_heard.get((each, port)) for each in target.addresses] if port is not None else []
        return max((each for each in found if each is not None), default=None)

    def dial_silence(self, target: Target) -> float | None:
        """How long each of the last dials of a target waited for the first byte at least, in seconds."""
        return min(
            (each for at in target.addresses for each in _silences.get((at, target.port or 0), ())), default=None
        )

    def has_unread(self, held: Any) -> bool:
        """Whether something arrived that its user has not read yet."""
        return bool(_with_socket(held, sockets.has_unread))

    def ends(self, connection: _Own) -> tuple[End | None, End | None]:
        """Both ends of a connection of the monitor's own."""
        return sockets.ends_of(connection.pgconn.socket)

    def cut(self, held: Any) -> bool:
        """Shut the socket of a user's connection down."""
        return bool(_with_socket(held, sockets.shut_down))


def _with_socket(held: Any, use: Callable[[int, sockets.SocketId], T]) -> T | None:
    """Use the socket of a user's connection; None: there is none any more, or its user closes it now."""
    if held.socket_id is None or not held.guard.acquire(blocking=False):
        return None
    try:
        return None if held.pgconn.status == pq.ConnStatus.BAD else use(held.pgconn.socket, held.socket_id)
    finally:
        held.guard.release()
