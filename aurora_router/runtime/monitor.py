"""The background thread: one per process, for all clusters, with an event loop of its own.

It starts with the first connection that wants it and ends when no connection exists, is made or is waited for. It is a
daemon and is woken and joined at exit, so that it never delays it. Where no thread is to be had (a container's limit,
an interpreter that shuts down) connections are made without it, and the next one tries again. The child of a fork
starts with none: the parent's loop and sockets are left alone (closing the loop would take the parent's epoll
descriptor apart), and kept from the garbage collector, which would close them.

In a process that gevent or eventlet has patched it is a thread of the system all the same; see `native`. Its loop
stands on what is not patched, and what it publishes is published by a greenlet; see `runtime.greenlet_dispatcher`.
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
from contextvars import Context
from functools import partial
from importlib import import_module
from select import POLLIN, POLLOUT
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aurora_router import native, observe
from aurora_router.flow.monitor import ClusterMonitor
from aurora_router.flow.probe import Access
from aurora_router.forks import IMPORTING, UNREADABLE
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.runtime.greenlet_dispatcher import DISPATCHER
from aurora_router.runtime.passfile import Parameters
from aurora_router.runtime.registry import INSPECT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import MonitorRuntime
    from aurora_router.policy.route import Route
    from aurora_router.runtime.dns import Names
    from aurora_router.runtime.inspection import Inspector
    from aurora_router.runtime.loop_monitoring import MonitorLoopRuntime
    from aurora_router.runtime.parsed_args import ConnectArgs

    MakeRuntime = Callable[[Cluster, Names], MonitorRuntime[Any]]

T = TypeVar("T")

EXIT_SECONDS = 0.05
"""How long the exit waits for the thread, which then is left to end with the process."""
SETTLED_SECONDS = 1.0
"""When a cluster has been monitored for so long, it is worth having ready what a failover needs."""

RENEWAL_SECONDS = 5.0
"""How often the monitor looks whether a credential is to be renewed."""

DESCRIBE_SECONDS = 1.0
"""How often the monitor looks whether a source of attributes is to be asked."""

NO_THREAD = (
    "no background thread could be started ({}): until one can, hung instances and failovers are not looked for; raise "
    "the limit of threads, or set aurora_monitor=off"
)


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
        self._monitors: dict[ClusterMonitor[Any], asyncio.Task[None] | None] = {}
        self._ended = False
        self._inherited: list[Any] = []
        self._waiting: deque[tuple[Cluster, Access, Callable[[], MonitorRuntime[Any]]]] = deque()
        self._beginning: Callable[[], object] = _no_frame

    def attend(self, cluster: Cluster, args: ConnectArgs, route: Route, make_runtime: MakeRuntime) -> None:
        """Look after a cluster from now on, with the credentials of a user whose connect just succeeded.

        Args:
            cluster: the cluster.
            args: the call.
            route: how it was routed.
            make_runtime: makes what does the monitor's I/O, in the driver family of the call.
        """
        access = Access(args.request, route, args.sources, args.params)
        running = cast("ClusterMonitor[Any] | None", cluster.monitor)
        if running is not None:
            running.on_user_connected(access)
            cast("MonitorLoopRuntime[Any]", running.runtime).take(args.names)
            return
        refused: list[tuple[Cluster, str]] = []
        frame = _Frame()
        self._waiting.append((cluster, access, partial(make_runtime, cluster, args.names)))
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

    def _begin_one(
        self, cluster: Cluster, access: Access, make_runtime: Callable[[], MonitorRuntime[Any]]
    ) -> list[tuple[Cluster, str]]:
        """Begin to look after a cluster; returns it, and why, if there is no thread. The caller holds the lock."""
        if self._ended or cluster.monitor is not None:
            return []
        try:
            loop = self._ensure_started()
        except RuntimeError as error:
            return [(cluster, str(error))]
        # In this order: a signal handler's exception may end it at any point, and one that has begun
        # takes its place by itself, while one that was never begun would keep it for good.
        begun: ClusterMonitor[Any] = ClusterMonitor(make_runtime(), cluster, access)
        loop.call_soon_threadsafe(self._begin, begun, context=Context())  # the user's is of one request
        self._monitors.setdefault(begun, None)
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
        self._inherited.append((self._loop, self._monitors))
        self._lock = native.new_rlock()
        self._waiting, self._beginning = deque(), _no_frame
        self._loop = None
        DISPATCHER.close()
        self._monitors = {}

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
            DISPATCHER.open()
            native.start_thread(lambda: self._run(loop, alive), "aurora-router-monitor")
            self._loop, self._alive = loop, alive
        except RuntimeError:
            DISPATCHER.close()
            loop.close()
            raise
        except BaseException:  # of a signal handler: the thread may have begun, then it closes the loop
            self._loop = None
            DISPATCHER.close()
            loop.call_soon_threadsafe(loop.stop)
            raise
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop, alive: Any) -> None:
        """The thread: runs until nothing is left to look after."""
        DISPATCHER.serve()
        inspector = _start_inspection(loop)
        try:
            loop.run_forever()
        finally:
            if inspector is not None:
                inspector.close()
            self._abandon(loop)
            loop.close()
            alive.release()

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up what a loop looked after that an exception has ended; the next connect to each starts another one."""
        with self._lock:
            if self._loop is not loop:
                return
            self._loop, monitors, self._monitors = None, list(self._monitors), {}
            DISPATCHER.close()
        for each in monitors:
            each.cluster.monitor = None
            each.cluster.on_monitor_stopped()

    def _begin(self, monitor: ClusterMonitor[Any]) -> None:
        self._monitors[monitor] = asyncio.get_running_loop().create_task(self._look_after(monitor))

    def _cancel(self) -> None:
        for task in self._monitors.values():
            if task is not None:
                task.cancel()

    async def _look_after(self, monitor: ClusterMonitor[Any]) -> None:
        runtime = cast("MonitorLoopRuntime[Any]", monitor.runtime)
        loop = asyncio.get_running_loop()
        preparing = loop.call_later(SETTLED_SECONDS, _prepare, runtime.needed_by_failures)
        keeping = [loop.create_task(each(monitor)) for each in (_keep_credentials, _keep_described)]
        try:
            while not self._leave(monitor):
                await monitor.run()
        except Exception as caught:  # noqa: BLE001 - a bug here must not end the monitors of the other clusters
            DISPATCHER.send(partial(observe.report_bug, monitor.cluster.name, caught))
        finally:
            preparing.cancel()
            for task in keeping:
                task.cancel()
            monitor.cluster.monitor = None
            monitor.cluster.on_monitor_stopped()
            await runtime.end()
            await monitor.close()
            self._retire(monitor)

    def _leave(self, monitor: ClusterMonitor[Any]) -> bool:
        """Whether no connection needs the monitor. A connect at this moment finds it here, or starts another one."""
        with self._lock:
            monitor.cluster.monitor = None
            if monitor.wanted:
                monitor.cluster.monitor = monitor
            return monitor.cluster.monitor is None

    def _retire(self, monitor: ClusterMonitor[Any]) -> None:
        """The monitor of a cluster has ended; the last one ends the thread."""
        with self._lock:
            self._monitors.pop(monitor, None)
            if not self._monitors and self._loop is not None:
                loop, self._loop = self._loop, None
                loop.call_soon(loop.stop)
                DISPATCHER.close()


async def _keep_credentials(monitor: ClusterMonitor[Any]) -> None:
    """Have the credentials of a provider renewed before they expire, also while nothing connects."""
    while True:
        await asyncio.sleep(RENEWAL_SECONDS)
        provider = monitor.access.params.provider if isinstance(monitor.access.params, Parameters) else None
        if provider is not None:
            with IMPORTING:
                from aurora_router.runtime.credentials import cache_of  # noqa: PLC0415 - few have a provider

            cache_of(provider).renew_due()


async def _keep_described(monitor: ClusterMonitor[Any]) -> None:
    """Have a source of attributes asked about the cluster, where users have one."""
    while True:
        if any(isinstance(each.params, Parameters) and each.params.attributes is not None for each in monitor.accesses):
            with IMPORTING:
                from aurora_router.runtime.describing import describer_of  # noqa: PLC0415 - few have a source

            describer_of(monitor.cluster).tick(monitor.cluster, monitor.accesses)
        await asyncio.sleep(DESCRIBE_SECONDS)


def _prepare(needed: Sequence[str]) -> None:
    """Import now what the first failure needs; a program that connects once does without.

    Then it would take longer than the dial that it is for, and the files may be out of reach. No thread that imports
    late waits for more than one of the modules.
    """
    for name in needed:
        with IMPORTING, contextlib.suppress(*UNREADABLE):
            import_module(name)


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
        self.set_exception_handler(_on_loop_error)


def _on_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report an error that nothing else handled: `asyncio` would log it by itself, and let a handler's error out."""
    error = context.get("exception")
    DISPATCHER.send(partial(observe.logger.error, "the monitor: %s", context.get("message"), exc_info=error))


def _start_inspection(loop: asyncio.AbstractEventLoop) -> Inspector | None:
    """Serve the inspection socket, where the environment asks for one and it can be had."""
    if not os.environ.get(INSPECT):
        return None
    with IMPORTING, contextlib.suppress(*UNREADABLE):
        from aurora_router.runtime import inspection  # noqa: PLC0415 - few processes are inspected

        return inspection.start(loop)
    return None


MONITOR = Monitor()
"""The monitor of this process."""

atexit.register(MONITOR.stop)
os.register_at_fork(after_in_child=MONITOR.reset)
