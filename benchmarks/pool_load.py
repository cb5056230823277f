"""Pools of all kinds under load; counts their connections by instance, and what failed."""

from __future__ import annotations

import abc
import asyncio
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aurora_router.pool import AsyncConnectionPool, ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class PoolLoad(abc.ABC):
    """Workers that use one pool without a pause, each with its own statements.

    Args:
        target: the conninfo, or the URL, of what the pool connects to.
        size: how many connections the pool has.
        statement: what each worker executes, again and again.
        workers: how many there are.

    Attributes:
        errors: what was raised by statements, and by checkouts.
        served: how many statements each instance has executed.
    """

    def __init__(self, target: str, size: int, statement: str = "select pg_sleep(0.02)", workers: int = 4) -> None:
        self.target = target
        self.size = size
        self.statement = statement
        self.workers = workers
        self.errors: list[Exception] = []
        self.served: Counter[str] = Counter()
        self.made = 0
        self._connections: list[weakref.ref[Any]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def open(self) -> None:
        """Fill the pool, then start the workers."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the workers, then the pool."""

    def counts(self) -> Counter[str]:
        """The pool's open connections, by instance."""
        with self._lock:
            self._connections = [each for each in self._connections if each() is not None]
            held = [each() for each in self._connections]
        return Counter(_instance_of(each) for each in held if each is not None and not each.closed)

    def _note_made(self, connection: Any) -> None:
        with self._lock:
            self.made += 1
            self._connections.append(weakref.ref(connection))

    def _start(self, *works: Any) -> None:
        self._threads = [threading.Thread(target=each) for each in works]
        for each in self._threads:
            each.start()

    def _join(self) -> None:
        self._ended.set()
        for each in self._threads:
            each.join()


def _instance_of(connection: Any) -> str:
    """The instance that a connection leads to; for the stock driver by the name that was dialled."""
    placement = getattr(connection, "placement", None)
    return str(placement.instance) if placement is not None else str(connection.info.host).partition(".")[0]


class EngineLoad(PoolLoad):
    """SQLAlchemy's `QueuePool`."""

    def open(self) -> None:
        """Fill the pool, then start the workers."""
        self.engine = sa.create_engine(self.target, pool_size=self.size, max_overflow=0)
        sa.event.listen(self.engine, "connect", lambda connection, _: self._note_made(connection))
        held = [self.engine.connect() for _ in range(self.size)]
        for each in held:
            each.close()
        self._start(*[self._work] * self.workers)

    def close(self) -> None:
        """End the workers, then the pool."""
        self._join()
        self.engine.dispose()

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                with self.engine.connect() as connection:
                    connection.exec_driver_sql(self.statement)
                    self.served[_instance_of(connection.connection.driver_connection)] += 1
            except Exception as error:  # noqa: BLE001 - counted
                self.errors.append(error)


class PoolClassLoad(PoolLoad):
    """`aurora_router.pool.ConnectionPool`."""

    def open(self) -> None:
        """Fill the pool, then start the workers."""
        self.pool = ConnectionPool(self.target, min_size=self.size, configure=self._note_made, open=True)
        self.pool.wait()
        self._start(*[self._work] * self.workers)

    def close(self) -> None:
        """End the workers, then the pool."""
        self._join()
        self.pool.close()

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                with self.pool.connection() as connection:
                    connection.execute(self.statement)
                    self.served[_instance_of(connection)] += 1
            except Exception as error:  # noqa: BLE001 - counted
                self.errors.append(error)


class AsyncPoolLoad(PoolLoad):
    """A pool of an event loop, which runs in a thread of its own."""

    def open(self) -> None:
        """Start the loop; returns when the pool is filled."""
        self._ready = threading.Event()
        self._start(lambda: asyncio.run(self._run()))
        self._ready.wait()

    def close(self) -> None:
        """End the workers, the pool and the loop."""
        self._join()

    async def _run(self) -> None:
        try:
            await self._fill()
        finally:
            self._ready.set()
        await asyncio.gather(*[self._work() for _ in range(self.workers)])
        await self._dispose()

    async def _work(self) -> None:
        while not self._ended.is_set():
            try:
                await self._use()
            except Exception as error:  # noqa: BLE001 - counted
                self.errors.append(error)

    @abc.abstractmethod
    async def _fill(self) -> None: ...

    @abc.abstractmethod
    async def _use(self) -> None: ...

    @abc.abstractmethod
    async def _dispose(self) -> None: ...


class AsyncEngineLoad(AsyncPoolLoad):
    """SQLAlchemy's `AsyncAdaptedQueuePool`."""

    engine: AsyncEngine

    async def _fill(self) -> None:
        self.engine = create_async_engine(self.target, pool_size=self.size, max_overflow=0)
        sa.event.listen(
            self.engine.sync_engine, "connect", lambda connection, _: self._note_made(connection.driver_connection)
        )
        held = [await self.engine.connect() for _ in range(self.size)]
        for each in held:
            await each.close()

    async def _use(self) -> None:
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql(self.statement)
            raw = await connection.get_raw_connection()
            self.served[_instance_of(raw.driver_connection)] += 1

    async def _dispose(self) -> None:
        await self.engine.dispose()


class AsyncPoolClassLoad(AsyncPoolLoad):
    """`aurora_router.pool.AsyncConnectionPool`."""

    pool: AsyncConnectionPool

    async def _fill(self) -> None:
        async def note_made(connection: Any) -> None:
            self._note_made(connection)

        self.pool = AsyncConnectionPool(self.target, min_size=self.size, configure=note_made, open=False)
        await self.pool.open(wait=True)

    async def _use(self) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(self.statement)
            self.served[_instance_of(connection)] += 1

    async def _dispose(self) -> None:
        await self.pool.close()


KINDS: Mapping[str, type[PoolLoad]] = {
    "SQLAlchemy": EngineLoad,
    "SQLAlchemy, async": AsyncEngineLoad,
    "aurora_router.pool": PoolClassLoad,
    "aurora_router.pool, async": AsyncPoolClassLoad,
}
"""The pools that rebalance."""


def make_load(kind: str, cluster: Any, size: int, options: Mapping[str, object], **load: Any) -> PoolLoad:
    """A load on the readers of a reference cluster; each counts its connections alone, as if in its own process."""
    apart = {**options, "aurora_cluster": kind.replace(" ", "").replace(",", "-")}
    engine = kind.startswith("SQLAlchemy")
    target = cluster.url("reader", **apart) if engine else cluster.conninfo("reader", **apart)
    return KINDS[kind](target, size, **load)
