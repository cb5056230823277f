"""The asyncio runtime: the same steps as in `runtime.blocking`, awaited for real."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aurora_router import native
from aurora_router.errors import CredentialsUnavailable
from aurora_router.flow.runtime import GLANCE_SECONDS, DialFailed, Resolution, Target
from aurora_router.runtime import sequential_dial
from aurora_router.runtime.real_runtime import RealRuntime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from aurora_router.flow.runtime import Notifier, Wanted
    from aurora_router.runtime.dns import Names


class Closes(Protocol):
    """A connection that can be closed."""

    async def close(self) -> Any:
        """Close it."""
        ...


T = TypeVar("T")
ConnT = TypeVar("ConnT", bound=Closes)


class LoopRuntime(RealRuntime[ConnT]):
    """An event loop, the real clock, sockets that are awaited; of any driver.

    Args:
        open_: makes the connection; ``await open_(target, seconds)``, raising the driver's errors.
        names: resolves host names.
    """

    __slots__ = ("_names", "_open")

    def __init__(self, open_: Callable[[Target, float], Awaitable[ConnT]], names: Names) -> None:
        self._open = open_
        self._names = names

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        await asyncio.sleep(seconds)

    async def call(self, function: Callable[[], T], seconds: float) -> T:
        """Call a function in a thread of its own: the loop goes on, and a process that ends does not wait for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(error: BaseException | None, result: Any) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def run() -> None:
            error, result = None, None
            try:
                result = function()
            except Exception as raised:  # noqa: BLE001 - it is raised where the result is awaited
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, error, result)

        native.start_thread(run, "aurora-router-call")
        done, _ = await asyncio.wait({future}, timeout=seconds)
        if not done:
            future.cancel()
            raise TimeoutError(f"no answer within {seconds:g} s")
        return future.result()

    async def resolve(self, host: str, *, fresh: bool = False) -> Resolution:
        """What a host name stands for."""
        return await self._names.resolve_async(host, fresh=fresh)

    def last_resolution(self, host: str) -> Resolution | None:
        """What a host name stood for when it was resolved last."""
        return self._names.last(host)

    async def dial(self, target: Target, seconds: float) -> ConnT:
        """Open a connection."""
        if len(target.addresses) < 2:
            return await self._dial_one(target, seconds)
        first = self._names.prefers_v6(target.host)
        dials = sequential_dial.one_by_one(target, seconds, v6_first=first, rewrite=self.rewrite)
        single, limit = next(dials)
        while True:
            try:
                connection = await self._dial_one(single, limit)
            except DialFailed as failed:
                single, limit = dials.send(failed)
            else:
                self._names.record_address(target.host, single.addresses[0])
                return connection

    async def _dial_one(self, target: Target, seconds: float) -> ConnT:
        try:
            opening = asyncio.ensure_future(self._open(target, seconds))
            return await _await_dial(opening, seconds, target.wanted, self.drop)
        except asyncio.TimeoutError:
            raise self.new_dial_timeout(target.name, seconds) from None
        except self.driver_errors as error:
            raise DialFailed(self.fault_of(error), error) from error

    async def discard(self, connection: ConnT) -> None:
        """Close a connection."""
        await connection.close()

    async def wait_for_news(self, notifier: Notifier, seen: int, seconds: float) -> None:
        """Wait for news of a cluster."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def waiter() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, future)

        notifier.add_waiter(waiter)
        try:
            if notifier.news == seen:
                await asyncio.wait({future}, timeout=seconds)
        finally:
            notifier.drop_waiter(waiter)
            future.cancel()


def slices(seconds: float, wanted: Wanted | None) -> Iterator[float]:
    """The waits of which a wait consists: it ends before its time when what is waited for is not wanted any more."""
    until = time.monotonic() + seconds
    while True:
        left = max(0.0, until - time.monotonic())
        if wanted is None or left <= GLANCE_SECONDS:
            yield left
            return
        yield GLANCE_SECONDS
        if not wanted():
            return


async def _await_dial(
    dialling: asyncio.Future[ConnT], seconds: float, wanted: Wanted | None, drop: Callable[[ConnT], None]
) -> ConnT:
    """The connection that a dial brings within its time; what it brings after that, or cancelled, is closed.

    psycopg 3.2's dial succeeds now and then although it was cancelled.

    Raises:
        TimeoutError: asyncio's; the time is over, or the connection is not wanted any more.
        CredentialsUnavailable: the provider of credentials took all of the time.
    """
    for glance in slices(seconds, wanted):
        try:
            await asyncio.wait({dialling}, timeout=glance)
        except BaseException:
            _give_up(dialling, drop)
            raise
        if dialling.done():
            return dialling.result()
    _give_up(dialling, drop)
    await asyncio.wait({dialling})
    if not dialling.cancelled() and isinstance(late := dialling.exception(), CredentialsUnavailable):
        raise late
    raise asyncio.TimeoutError


def _give_up(dialling: asyncio.Future[ConnT], drop: Callable[[ConnT], None]) -> None:
    def close_unwanted(dialled: asyncio.Future[ConnT]) -> None:
        if not dialled.cancelled() and dialled.exception() is None:
            drop(dialled.result())

    dialling.add_done_callback(close_unwanted)
    dialling.cancel()


def settle(future: asyncio.Future[None]) -> None:
    """End a wait for a future, if it has not ended."""
    if not future.done():
        future.set_result(None)
