"""What the monitor does with the connections of one cluster, whatever the driver: its own, and those of users.

At a user's connection it only looks, unless it cuts it; both are done only while that user does not close it. The
monitor's thread looks after all clusters, so it never waits for a user's lock. A user's connection has `guard`, held
while its socket is closed, `socket_id`, and `descriptor()`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from aurora_router import observe
from aurora_router.model.bounds import forget_oldest
from aurora_router.policy.hang_detection import with_silence
from aurora_router.runtime import sockets
from aurora_router.runtime.eventloop import Closes, LoopRuntime
from aurora_router.runtime.greenlet_dispatcher import DISPATCHER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Target
    from aurora_router.policy.paths import End
    from aurora_router.runtime.dns import Names

T = TypeVar("T")
ConnT = TypeVar("ConnT", bound=Closes)

_heard: dict[End, float] = {}
"""When bytes last arrived on a dial of the monitor's, by the address and the port that were dialled."""


_silences: dict[End, tuple[float, ...]] = {}
"""How long the last dials of the monitor's waited for the first byte, by the address and the port, in seconds."""


def note_bytes(end: End, now: float, began: float | None) -> None:
    """Note that a server has sent something on a dial; `began`: when the dial began, if these are its first bytes."""
    _heard.pop(end, None)
    _heard[end] = now
    forget_oldest(_heard)
    if began is not None:
        _silences[end] = with_silence(_silences.pop(end, ()), now - began)
        forget_oldest(_silences)


class MonitorLoopRuntime(LoopRuntime[ConnT]):
    """The monitor's runtime for one cluster, in the thread's event loop; each driver family has a subclass.

    Args:
        open_: opens a session of the monitor's, as of `LoopRuntime`.
        cluster: the cluster.
        names: resolves host names.

    Attributes:
        needed_by_failures: modules that are imported late, and are needed when a connection is lost or a dial fails.
    """

    needed_by_failures: ClassVar[tuple[str, ...]] = (
        *(f"aurora_router.{name}" for name in ("retry", "policy.explain", "policy.incidents", "runtime.tracebacks")),
    )

    def __init__(self, open_: Callable[[Target, float], Awaitable[ConnT]], cluster: Cluster, names: Names) -> None:
        super().__init__(open_, names)
        self._cluster = cluster
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, names: Names) -> None:
        """Resolve host names as the last connect does."""
        self._names = names

    def spawn(self, procedure: Coroutine[Any, Any, None]) -> None:
        """Let a procedure go on by itself."""
        task = asyncio.get_running_loop().create_task(procedure)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            DISPATCHER.send(partial(observe.report_bug, self._cluster.name, error))

    async def end(self) -> None:
        """End what goes on by itself."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------ users' connections

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

    def cut(self, held: Any) -> bool:
        """Shut the socket of a user's connection down."""
        return bool(_with_socket(held, sockets.shut_down))


def _with_socket(held: Any, use: Callable[[int, sockets.SocketId], T]) -> T | None:
    """Use the socket of a user's connection; None: there is none any more, or its user closes it now."""
    if held.socket_id is None or not held.guard.acquire(blocking=False):
        return None
    try:
        descriptor = held.descriptor()
        return None if descriptor is None else use(descriptor, held.socket_id)
    finally:
        held.guard.release()
