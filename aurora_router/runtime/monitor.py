"""The background thread: one per process, for all clusters, with an event loop of its own.

It starts with the first connection that wants it and ends when no connection exists, is made or is waited for. It is a
daemon and is woken and joined at exit, so that it never delays it. Where no thread is to be had (a container's limit,
an interpreter that shuts down) connections are made without it, and the next one tries again. The child of a fork
starts with none: the parent's loop and sockets are left alone (closing the loop would take the parent's epoll
descriptor apart), and kept from the garbage collector, which would close them.

In a process that gevent or eventlet has patched it is a thread of the system all the same; see `native`. Its loop
stands on what is not patched, and what it publishes is published by a greenlet; see `runtime.courier`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import selectors
import time
import weakref
from collections import deque
from functools import partial
from select import POLLIN, POLLOUT
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from psycopg import pq

from aurora_router import native, observe
from aurora_router.flow.monitor import ClusterMonitor
from aurora_router.flow.probe import Access
from aurora_router.flow.runtime import Activity, DialFailed, Target
from aurora_router.forks import IMPORTING, step_by_step
from aurora_router.model.bounds import forget_oldest
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.runtime import libpq, session_cache, sockets
from aurora_router.runtime.connect_args import opening_async
from aurora_router.runtime.courier import COURIER
from aurora_router.runtime.eventloop import EventLoopRuntime
from aurora_router.runtime.passfile import Parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Rows, Wanted
    from aurora_router.policy.paths import End
    from aurora_router.policy.route import Route
    from aurora_router.runtime.connect_args import ConnectArgs
    from aurora_router.runtime.dns import Names

T = TypeVar("T")

EXIT_SECONDS = 0.05
"""How long the exit waits for the thread, which then is left to end with the process."""

SESSION_NAME = "aurora-router monitor"
"""``application_name`` of the monitor's sessions; that of the user follows in brackets."""
OFFER_SECONDS = 0.5
"""How long the server may take to give a session its user's name back."""
SETTLED_SECONDS = 1.0
"""When a cluster has been monitored for so long, it is worth having ready what a failover needs."""

RENEWAL_SECONDS = 5.0
"""How often the monitor looks whether a credential is to be renewed."""

NO_THREAD = (
    "no background thread could be started ({}): until one can, hung instances and failovers are not looked for; raise "
    "the limit of threads, or set aurora_monitor=off"
)

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


def _note_bytes(dialling: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Do the same steps of a dial, and note when the server has sent something for one of them."""
    try:
        wanted = next(dialling)
        while True:
            ready = yield wanted
            if sockets.has_bytes(wanted[0]) and (end := sockets.ends_of(wanted[0])[1]) is not None:
                _heard.pop(end, None)
                _heard[end] = time.monotonic()
                forget_oldest(_heard)
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
    """The monitor's ground for one cluster: raw psycopg connections with the credentials of the last user."""

    def __init__(self, cluster: Cluster, names: Names) -> None:
        super().__init__(self._open_one, names)
        self._cluster = cluster
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered: dict[session_cache.Key, pq.abc.PGconn] = {}

    def take(self, names: Names) -> None:
        """Resolve host names as the last connect does."""
        self._names = names

    async def _open_one(self, target: Target, seconds: float) -> _Own:
        watch = cast("ClusterMonitor[Any] | None", self._cluster.monitor)
        if watch is None:
            raise psycopg.OperationalError("this cluster is not monitored any more")
        base = watch.access.params

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

    # A user's connection is looked at, or cut, only while its user does not close it. The monitor's thread watches over
    # all clusters, so it never waits for a user's.

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


class _Frame:
    """Stands for a call that is under way, and goes with it, also where a signal handler's exception ends it."""

    __slots__ = ("__weakref__",)


def _no_frame() -> None:
    return None


class Monitor:
    """The thread and what it looks after. Safe for threads."""

    def __init__(self) -> None:
        self._lock = native.new_rlock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alive: Any = None
        self._watches: dict[ClusterMonitor[Any], asyncio.Task[None] | None] = {}
        self._ended = False
        self._inherited: list[Any] = []
        self._waiting: deque[tuple[Cluster, Access, Names]] = deque()
        self._beginning: Callable[[], object] = _no_frame

    def attend(self, cluster: Cluster, args: ConnectArgs, route: Route) -> None:
        """Look after a cluster from now on, with the credentials of a user whose connect just succeeded."""
        access, names = Access(args.request, route, args.sources, args.params), args.names
        running = cast("ClusterMonitor[Any] | None", cluster.monitor)
        if running is not None:
            running.on_user_connected(access)
            cast("ThreadMonitorRuntime", running.runtime).take(names)
            return
        refused: list[tuple[Cluster, str]] = []
        frame = _Frame()
        self._waiting.append((cluster, access, names))
        with self._lock:
            while self._waiting and self._beginning() is None:  # else a signal handler interrupted that frame
                self._beginning = weakref.ref(frame)
                try:
                    while self._waiting:
                        refused += self._begin_one(*self._waiting.popleft())
                finally:
                    self._beginning = _no_frame
        for each, why in refused:
            if "shutdown" not in why:
                each.update(ClusterState.advise, "thread", NO_THREAD.format(why), time.monotonic())

    def _begin_one(self, cluster: Cluster, access: Access, names: Names) -> list[tuple[Cluster, str]]:
        """Begin to look after a cluster; returns it, and why, if there is no thread. The caller holds the lock."""
        if self._ended or cluster.monitor is not None:
            return []
        try:
            loop = self._ensure_started()
        except RuntimeError as error:
            return [(cluster, str(error))]
        # In this order: a signal handler's exception may end it at any point, and one that has begun
        # takes its place by itself, while one that was never begun would keep it for good.
        begun: ClusterMonitor[Any] = ClusterMonitor(ThreadMonitorRuntime(cluster, names), cluster, access)
        loop.call_soon_threadsafe(self._begin, begun)
        self._watches.setdefault(begun, None)
        cluster.monitor = begun
        return []

    @property
    def running(self) -> bool:
        """Whether there is a thread."""
        return self._loop is not None

    def stop(self) -> None:
        """End the thread now, and start none any more: the interpreter exits."""
        with self._lock:
            self._ended = True
            loop, alive = self._loop, self._alive
            if loop is not None:
                loop.call_soon_threadsafe(self._cancel)
        if loop is not None:
            alive.acquire(timeout=EXIT_SECONDS)

    def reset(self) -> None:
        """In the child of a fork: there is no thread, and the parent's loop is not ours."""
        self._inherited.append((self._loop, self._watches))
        self._lock = native.new_rlock()
        self._waiting, self._beginning = deque(), _no_frame
        self._loop = None
        COURIER.close()
        self._watches = {}

    # ------------------------------------------------------------ the thread

    def _ensure_started(self) -> asyncio.AbstractEventLoop:
        """The thread's loop; the caller holds the lock.

        Raises:
            RuntimeError: there is no thread to be had.
        """
        if self._loop is not None:
            return self._loop
        loop, alive = _Loop(), native.new_lock()
        alive.acquire()
        try:
            COURIER.open()
            native.start_thread(lambda: _run(loop, alive), "aurora-router-monitor")
            self._loop, self._alive = loop, alive
        except RuntimeError:
            COURIER.close()
            loop.close()
            raise
        except BaseException:  # of a signal handler: the thread may have begun, then it closes the loop
            self._loop = None
            COURIER.close()
            loop.call_soon_threadsafe(loop.stop)
            raise
        return loop

    def _begin(self, watch: ClusterMonitor[Any]) -> None:
        self._watches[watch] = asyncio.get_running_loop().create_task(self._look_after(watch))

    def _cancel(self) -> None:
        for task in self._watches.values():
            if task is not None:
                task.cancel()

    async def _look_after(self, watch: ClusterMonitor[Any]) -> None:
        runtime = cast("ThreadMonitorRuntime", watch.runtime)
        loop = asyncio.get_running_loop()
        preparing = loop.call_later(SETTLED_SECONDS, _prepare)
        keeping = loop.create_task(_keep_credentials(watch))
        try:
            while not self._leave(watch):
                await watch.run()
        except Exception as caught:  # noqa: BLE001 - a bug here must not end the watch over the other clusters
            COURIER.send(partial(observe.report_bug, watch.cluster.name, caught))
        finally:
            preparing.cancel()
            keeping.cancel()
            watch.cluster.monitor = None
            watch.cluster.on_monitor_stopped()
            await runtime.end()
            await watch.close()
            self._retire(watch)

    def _leave(self, watch: ClusterMonitor[Any]) -> bool:
        """Whether no connection needs the monitor. A connect at this moment finds it here, or starts another one."""
        with self._lock:
            watch.cluster.monitor = None
            if watch.wanted:
                watch.cluster.monitor = watch
            return watch.cluster.monitor is None

    def _retire(self, watch: ClusterMonitor[Any]) -> None:
        """The monitor of a cluster has ended; the last one ends the thread."""
        with self._lock:
            self._watches.pop(watch, None)
            if not self._watches and self._loop is not None:
                loop, self._loop = self._loop, None
                loop.call_soon(loop.stop)
                COURIER.close()


async def _keep_credentials(watch: ClusterMonitor[Any]) -> None:
    """Have the credentials of a provider renewed before they expire, also while nothing connects."""
    while True:
        await asyncio.sleep(RENEWAL_SECONDS)
        provider = watch.access.params.provider if isinstance(watch.access.params, Parameters) else None
        if provider is not None:
            with IMPORTING:
                from aurora_router.runtime.credentials import cache_of  # noqa: PLC0415 - few have a provider

            cache_of(provider).renew_due()


def _prepare() -> None:
    """Import now what the first failover needs: then it would take longer than the dial that it is for."""
    with IMPORTING, contextlib.suppress(OSError):  # no descriptor is left: the failover will import it
        import aurora_router.retry  # noqa: F401, PLC0415 - see above; a program that connects once does without


class _Selector(selectors.SelectSelector):
    """A selector on the system's own ``poll``, which waits for this thread alone, also in a patched process."""

    def _select(self, readers: set[int], writers: set[int], _: object, timeout: float | None = None) -> Any:
        poll = native.original("select", "poll")()
        for fd in readers | writers:
            poll.register(fd, (POLLIN if fd in readers else 0) | (POLLOUT if fd in writers else 0))
        ready = poll.poll(None if timeout is None else math.ceil(timeout * 1000))
        awake = [fd for fd, _ in ready]
        return [fd for fd in awake if fd in readers], [fd for fd in awake if fd in writers], []


class _Loop(asyncio.SelectorEventLoop):
    """The thread's event loop: the standard one, also where the process uses another, or patched it."""

    def __init__(self) -> None:
        super().__init__(_Selector() if native.is_patched() else None)


def _run(loop: asyncio.AbstractEventLoop, alive: Any) -> None:
    """The thread: runs until nothing is left to look after."""
    COURIER.serve()
    try:
        loop.run_forever()
    finally:
        loop.close()
        alive.release()


MONITOR = Monitor()
"""The monitor of this process."""

atexit.register(MONITOR.stop)
os.register_at_fork(after_in_child=MONITOR.reset)
