"""Pools of ``psycopg_pool`` (extra ``pool``) that never hand out a stale connection.

>>> with ConnectionPool("host=mydb.cluster-… dbname=app", role="writer", min_size=4) as pool:
...     with pool.connection() as conn: ...

They are psycopg's own pools, with four things set: the class of the connections, the check at checkout, what is
recycled at the return (`aurora_router.is_surplus`), and how long one connect may take. A connect of this library looks
for an instance for up to ``aurora_failover_timeout``. A pool has a time limit of its own: what is left of
``reconnect_timeout``, or for a null pool the ``timeout`` of the caller that waits. It limits the whole connect, so that
``reconnect_failed`` is called and `psycopg_pool.PoolTimeout` raised on time. With psycopg_pool's own classes a connect
may take longer.

The child of a fork has neither the threads nor the connections of a pool that its parent opened: there its first use
opens it again. A pool of asyncio connections is refused there.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import psycopg_pool
from psycopg_pool.pool import AddConnection
from psycopg_pool.pool_async import AddConnection as AddAsyncConnection

from aurora_router.checking import check, find_drained_idle, is_surplus
from aurora_router.connection import AsyncConnection, Connection, within

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from contextlib import AbstractContextManager

    from psycopg.rows import TupleRow

    Conninfo = str | Callable[[], str]
    AsyncConninfo = str | Callable[[], str] | Callable[[], Awaitable[str]]
    Kwargs = dict[str, Any] | Callable[[], dict[str, Any]]
    AsyncKwargs = dict[str, Any] | Callable[[], dict[str, Any]] | Callable[[], Awaitable[dict[str, Any]]]

__all__ = ["AsyncConnectionPool", "AsyncNullConnectionPool", "ConnectionPool", "NullConnectionPool"]

LEAST_SECONDS = 0.1
"""What a connect gets at least, where the pool's time is over."""

_reopening = threading.RLock()
"""Held while a pool opens again, which waits for threads to begin: in a patched process these are greenlets, and it has
to be a lock that lets them run."""

CT = TypeVar("CT", bound="Connection[Any]", default="Connection[TupleRow]")
ACT = TypeVar("ACT", bound="AsyncConnection[Any]", default="AsyncConnection[TupleRow]")


class ConnectionPool(psycopg_pool.ConnectionPool[CT]):
    """A `psycopg_pool.ConnectionPool` of connections to one role of a cluster.

    Args:
        conninfo: as for `aurora_router.connect`; a callable is asked for it at each connect (psycopg_pool 3.3).
        role: ``writer``, ``reader``, ``prefer-reader`` or ``any``; None: by the endpoint.
        kwargs: further keywords of each connect; a callable is asked for them at each connect (psycopg_pool 3.3).
        pool: everything else that psycopg's pool takes.
    """

    def __init__(
        self, conninfo: Conninfo = "", *, role: str | None = None, kwargs: Kwargs | None = None, **pool: Any
    ) -> None:
        self._given = conninfo, role, kwargs, pool
        given: Any = {"connection_class": Connection, "check": check, **pool}
        super().__init__(cast("str", conninfo), kwargs=cast("dict[str, Any]", _with_role(kwargs, role)), **given)
        self._process = os.getpid()  # last: from now on no thread waits for it to be opened again

    def getconn(self, timeout: float | None = None) -> CT:
        """Obtain a connection, as psycopg's pool gives it; one of this process."""
        if self._process != os.getpid():
            self._reopen()
        return super().getconn(timeout)

    def putconn(self, conn: CT) -> None:
        """Return a connection, as to psycopg's pool; one that is surplus is replaced by a worker of the pool."""
        if is_surplus(conn):
            _expire(conn)
            self.replace_idle(find_drained_idle(conn, self._pool.copy()))
        super().putconn(conn)

    def replace_idle(self, those: Collection[Any]) -> None:
        """Replace those connections by new ones, as far as they are idle now."""
        with self._lock:
            gone = [each for each in those if each in self._pool]
            for each in gone:
                self._pool.remove(each)
        for each in gone:
            each.discard()
            self.run_task(AddConnection(self))

    def _reopen(self) -> None:
        """In the child of a fork: start again, without the parent's connections."""
        with _reopening:
            if self._process == os.getpid():
                return
            inherited, is_open = list(self._pool), not self.closed
            conninfo, role, kwargs, pool = self._given
            again = {**pool, "name": self.name, "open": is_open}
            ConnectionPool.__init__(cast("Any", self), conninfo, role=role, kwargs=kwargs, **again)
        for each in inherited:
            each.close()

    def _add_connection(self, attempt: Any, growing: bool = False) -> None:  # noqa: FBT001, FBT002 - psycopg_pool's own
        with within(_seconds_left(self, attempt), lambda: not self.closed):
            super()._add_connection(attempt, growing)

    def _connect(self, timeout: float | None = None) -> CT:
        with _limit(timeout):
            return super()._connect()


class NullConnectionPool(psycopg_pool.NullConnectionPool[CT], ConnectionPool[CT]):
    """A `psycopg_pool.NullConnectionPool`, which keeps no connections; otherwise like `ConnectionPool`."""

    def __init__(
        self, conninfo: Conninfo = "", *, role: str | None = None, kwargs: Kwargs | None = None, **pool: Any
    ) -> None:
        given: Any = {"connection_class": Connection, "check": check, **pool}
        super().__init__(cast("str", conninfo), kwargs=cast("dict[str, Any]", _with_role(kwargs, role)), **given)


class AsyncConnectionPool(psycopg_pool.AsyncConnectionPool[ACT]):
    """A `psycopg_pool.AsyncConnectionPool`; otherwise like `ConnectionPool`.

    Callables for `conninfo` and `kwargs` may return an awaitable.
    """

    def __init__(
        self, conninfo: AsyncConninfo = "", *, role: str | None = None, kwargs: AsyncKwargs | None = None, **pool: Any
    ) -> None:
        self._process = os.getpid()
        given: Any = {"connection_class": AsyncConnection, "check": check, **pool}
        super().__init__(cast("str", conninfo), kwargs=cast("dict[str, Any]", _with_role(kwargs, role)), **given)

    async def getconn(self, timeout: float | None = None) -> ACT:
        """Obtain a connection, as psycopg's pool gives it.

        Raises:
            PoolClosed: the pool was opened before a fork, on an event loop of the parent's.
        """
        if self._process != os.getpid():
            raise psycopg_pool.PoolClosed(
                f"the pool {self.name!r} was opened by process {self._process}, of which this one was forked: open one "
                "in each process"
            )
        return await super().getconn(timeout)

    async def putconn(self, conn: ACT) -> None:
        """Return a connection, as to psycopg's pool; one that is surplus is replaced by a worker of the pool."""
        if is_surplus(conn):
            _expire(conn)
            await self.replace_idle(find_drained_idle(conn, self._pool.copy()))
        await super().putconn(conn)

    async def replace_idle(self, those: Collection[Any]) -> None:
        """Replace those connections by new ones, as far as they are idle now."""
        async with self._lock:
            gone = [each for each in those if each in self._pool]
            for each in gone:
                self._pool.remove(each)
        for each in gone:
            each.discard()
            self.run_task(AddAsyncConnection(self))

    async def _add_connection(self, attempt: Any, growing: bool = False) -> None:  # noqa: FBT001, FBT002 - see above
        with within(_seconds_left(self, attempt), lambda: not self.closed):
            await super()._add_connection(attempt, growing)

    async def _connect(self, timeout: float | None = None) -> ACT:
        with _limit(timeout):
            return await super()._connect()


class AsyncNullConnectionPool(psycopg_pool.AsyncNullConnectionPool[ACT], AsyncConnectionPool[ACT]):
    """A `psycopg_pool.AsyncNullConnectionPool`, which keeps no connections; otherwise like `AsyncConnectionPool`."""

    def __init__(
        self, conninfo: AsyncConninfo = "", *, role: str | None = None, kwargs: AsyncKwargs | None = None, **pool: Any
    ) -> None:
        given: Any = {"connection_class": AsyncConnection, "check": check, **pool}
        super().__init__(cast("str", conninfo), kwargs=cast("dict[str, Any]", _with_role(kwargs, role)), **given)


def _expire(conn: Any) -> None:
    """Let the pool take a connection for one whose ``max_lifetime`` is over."""
    conn._expire_at = 0.0  # noqa: SLF001 - psycopg_pool has no other way


def _limit(timeout: float | None) -> AbstractContextManager[None]:
    return nullcontext() if timeout is None else within(max(LEAST_SECONDS, timeout))


def _seconds_left(pool: Any, attempt: Any) -> float:
    """Seconds until a pool gives an attempt to connect up."""
    until = getattr(attempt, "give_up_at", 0.0)
    return max(LEAST_SECONDS, until - time.monotonic() if until else pool.reconnect_timeout)


def _with_role(kwargs: AsyncKwargs | None, role: str | None) -> AsyncKwargs:
    """The keywords of each connect, the role among them."""
    ours: dict[str, Any] = {} if role is None else {"aurora_role": role}
    if not callable(kwargs):
        return {**(kwargs or {}), **ours}
    given = kwargs

    def resolve() -> Any:
        found = given()
        return add_ours(found) if inspect.isawaitable(found) else {**found, **ours}

    async def add_ours(found: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        return {**(await found), **ours}

    return resolve


def _after_fork() -> None:
    global _reopening  # noqa: PLW0603 - the thread that held it does not exist in the child
    _reopening = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
