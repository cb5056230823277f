"""The asyncio runtime: the same steps as in `runtime.blocking`, awaited for real."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psycopg

from aurora_router import native
from aurora_router.flow.runtime import GLANCE_SECONDS, DialFailed, Resolution, Rows, Target
from aurora_router.psycopg_errors import CredentialsUnavailable
from aurora_router.runtime import libpq
from aurora_router.runtime.faults import fault_of, first_line
from aurora_router.runtime.libpq import HasPgconn, RealRuntime
from aurora_router.runtime.waiting import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from psycopg import pq

    from aurora_router.flow.runtime import Notifier, Wanted
    from aurora_router.runtime.dns import Names


class Closes(HasPgconn, Protocol):
    """A connection that can be closed."""

    async def close(self) -> Any:
        """Close it."""
        ...


T = TypeVar("T")
ConnT = TypeVar("ConnT", bound=Closes)


class EventLoopRuntime(RealRuntime[ConnT]):
    """An event loop, the real clock, sockets that are awaited.

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
        dials = libpq.one_by_one(target, seconds, v6_first=self._names.prefers_v6(target.host))
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
            return await _await_dial(asyncio.ensure_future(self._open(target, seconds)), seconds, target.wanted)
        except asyncio.TimeoutError:
            raise libpq.new_dial_timeout(target.name, seconds) from None
        except psycopg.Error as error:
            raise DialFailed(fault_of(error), error) from error

    async def ask(self, connection: ConnT, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """One service query by the simple protocol; an answer that is there when the time is over counts."""
        return await query(connection.pgconn, sql, seconds, wanted)

    async def discard(self, connection: ConnT) -> None:
        """Close a connection."""
        await connection.close()

    async def wait_for_news(self, notifier: Notifier, seen: int, seconds: float) -> None:
        """Wait for news of a cluster."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def waiter() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, future)

        notifier.add_waiter(waiter)
        try:
            if notifier.news == seen:
                await asyncio.wait({future}, timeout=seconds)
        finally:
            notifier.drop_waiter(waiter)
            future.cancel()


def _slices(seconds: float, wanted: Wanted | None) -> Iterator[float]:
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


async def _await_dial(dialling: asyncio.Future[ConnT], seconds: float, wanted: Wanted | None) -> ConnT:
    """The connection that a dial brings within its time; what it brings after that, or cancelled, is closed.

    psycopg 3.2's dial succeeds now and then although it was cancelled.

    Raises:
        TimeoutError: asyncio's; the time is over, or the connection is not wanted any more.
        CredentialsUnavailable: the provider of credentials took all of the time.
    """
    for glance in _slices(seconds, wanted):
        try:
            await asyncio.wait({dialling}, timeout=glance)
        except BaseException:
            _give_up(dialling)
            raise
        if dialling.done():
            return dialling.result()
    _give_up(dialling)
    await asyncio.wait({dialling})
    if not dialling.cancelled() and isinstance(late := dialling.exception(), CredentialsUnavailable):
        raise late
    raise asyncio.TimeoutError


def _give_up(dialling: asyncio.Future[ConnT]) -> None:
    dialling.add_done_callback(_close_unwanted)
    dialling.cancel()


def _close_unwanted(dialling: asyncio.Future[ConnT]) -> None:
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().pgconn.finish()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def query(pgconn: pq.abc.PGconn, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
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
    for glance in _slices(seconds, wanted):
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
        await _ready(pgconn.socket, writable=True)
        pgconn.consume_input()
    while not _is_complete(pgconn, results):
        await _ready(pgconn.socket)


def _is_complete(pgconn: pq.abc.PGconn, results: list[pq.abc.PGresult]) -> bool:
    """Read what is there already; whether it is the end of the answer. Never waits."""
    pgconn.consume_input()
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:
            return True
        results.append(result)
    return False


async def _ready(socket: int, *, writable: bool = False) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(socket, _settle, future)
    if writable:
        loop.add_writer(socket, _settle, future)
    try:
        await future
    finally:
        loop.remove_reader(socket)
        if writable:
            loop.remove_writer(socket)
