"""The blocking runtime: every step is done at once, so its coroutines never suspend."""

from __future__ import annotations

import _socket
import contextlib
import select
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aurora_router import native
from aurora_router.flow.runtime import DialFailed, Resolution, Target
from aurora_router.runtime import sequential_dial
from aurora_router.runtime.real_runtime import RealRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aurora_router.flow.runtime import Notifier
    from aurora_router.runtime.dns import Names

T = TypeVar("T")


class Closes(Protocol):
    """A connection that can be closed."""

    def close(self) -> Any:
        """Close it."""
        ...


ConnT = TypeVar("ConnT", bound=Closes)


def run(procedure: Coroutine[Any, Any, T]) -> T:
    """Drive a procedure over a blocking runtime to its end."""
    try:
        procedure.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    procedure.close()
    raise RuntimeError("a procedure suspended in the blocking runtime: this is a bug of aurora_router")


class ThreadRuntime(RealRuntime[ConnT]):
    """Threads, the real clock, blocking sockets; of any driver.

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
        time.sleep(seconds)  # noqa: ASYNC251 - this runtime's coroutines are driven without an event loop

    async def call(self, function: Callable[[], T], seconds: float) -> T:  # noqa: ARG002 - its own limits end it
        """Call a function, in the thread of the connect, which waits for it anyhow."""
        return function()

    def can_wait_for(self, thread: int | None) -> bool:
        """Whether a procedure of that thread goes on while this one waits; greenlets share one."""
        return thread != native.get_ident() or native.is_patched()

    async def resolve(self, host: str, *, fresh: bool = False) -> Resolution:
        """What a host name stands for."""
        return self._names.resolve(host, fresh=fresh)

    def last_resolution(self, host: str) -> Resolution | None:
        """What a host name stood for when it was resolved last."""
        return self._names.last(host)

    async def dial(self, target: Target, seconds: float) -> ConnT:
        """Open a connection."""
        if len(target.addresses) > 1:
            return self._dial_one_by_one(target, seconds)
        try:
            return self._open(target, seconds)
        except self.driver_errors as error:
            raise DialFailed(self.fault_of(error), error) from error

    def _dial_one_by_one(self, target: Target, seconds: float) -> ConnT:
        first = self._names.prefers_v6(target.host)
        dials = sequential_dial.one_by_one(target, seconds, v6_first=first, rewrite=self.rewrite)
        single, limit = next(dials)
        while True:
            try:
                connection = self._open(single, limit)
            except self.driver_errors as error:
                single, limit = dials.send(DialFailed(self.fault_of(error), error))
            else:
                self._names.record_address(target.host, single.addresses[0])
                return connection

    async def discard(self, connection: ConnT) -> None:
        """Close a connection."""
        connection.close()

    async def wait_for_news(self, notifier: Notifier, seen: int, seconds: float) -> None:
        """Wait for news of a cluster."""
        event = new_event()
        wake = event.set
        try:
            notifier.add_waiter(wake)
            event.wait(seconds if notifier.news == seen else 0.0)
        finally:
            notifier.drop_waiter(wake)


def new_event() -> _Latch | _Bell:
    """An event that one thread or greenlet waits for, once, and that any thread may set."""
    return _Bell() if native.is_patched() else _Latch()


class _Latch:
    """An event that is a lock, released to set it: a signal handler may set what its own thread is about to wait for.

    `threading.Event` takes a lock of its own in both, and is not reentrant.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = native.new_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the thread that waits."""
        with contextlib.suppress(RuntimeError):  # it was set before
            self._lock.release()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it is set, for `seconds` at most."""
        self._lock.acquire(timeout=-1 if seconds is None else max(0.0, seconds))


class _Bell:
    """An event that a thread of the system may set, and a greenlet waits for: no patched `threading.Event` can do that.

    The greenlet waits for a descriptor. The sockets are not those of `socket`, which are patched.
    """

    def __init__(self) -> None:
        self._ends = _socket.socketpair()
        self._lock = native.new_rlock()

    def set(self) -> None:
        """Wake the greenlet, if it still waits."""
        with self._lock, contextlib.suppress(OSError):
            self._ends[1].send(b"x")

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it is set, for `seconds` at most."""
        try:
            select.select([self._ends[0].fileno()], [], [], seconds)
        finally:
            with self._lock:
                for each in self._ends:
                    each.close()
