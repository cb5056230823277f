"""Checkout from a pool, ``select 1``, checkin: SQLAlchemy with our dialect, and our psycopg_pool, beside the stock one.

As many engines of ours run as stock ones: the interpreter specializes the code that both share for the classes that it
meets most, and a program has one kind of connections.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import sqlalchemy as sa
from psycopg_pool import ConnectionPool as StockPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aurora_router.pool import ConnectionPool
from benchmarks import paired
from benchmarks.setting import CONTROL, OURS, STOCK, Setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from benchmarks.figures import Figure
    from benchmarks.paired import Loop

AGAIN = "ours again"
ROUNDS = 40
BLOCK = 0.002  # seconds
BOUND = 1.05
SELECT = sa.text("select 1")
SERVER = sa.text("select pg_backend_pid()")


def measure(setting: Setting) -> Iterator[Figure]:
    """Sync and async engines, then psycopg_pool; each use of ours also decides whether to rebalance."""
    name = "SQLAlchemy checkout + select 1 + checkin"
    yield from setting.compare(name, BOUND, partial(_batch, setting))
    yield from setting.compare(f"{name}, async", BOUND, partial(_async_batch, setting))
    yield from setting.compare("psycopg_pool checkout + select 1 + return", BOUND, partial(_pool_batch, setting))


def _urls(setting: Setting) -> list[tuple[str, str]]:
    """Each contestant's URL, in a new random order: which connection was made first can be seen in its speed."""
    stock = setting.cluster.url(driver="postgresql+psycopg")
    ours = setting.cluster.url()
    urls = [(OURS, ours), (AGAIN, ours), (STOCK, stock), (CONTROL, stock)]
    setting.rng.shuffle(urls)
    return urls


def _batch(setting: Setting) -> paired.Samples:
    engines = {name: sa.create_engine(url) for name, url in _urls(setting)}
    try:
        servers = [_server(engine) for engine in engines.values()]
        return _alternate(setting, servers, {name: partial(_loop, engine) for name, engine in engines.items()})
    finally:
        for engine in engines.values():
            engine.dispose()


def _server(engine: sa.Engine) -> int:
    """The process id of the server process behind the pool's one connection."""
    with engine.connect() as connection:
        return int(connection.execute(SERVER).scalar_one())


def _loop(engine: sa.Engine, count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        with engine.connect() as connection:
            connection.execute(SELECT).scalar_one()
    return perf_counter() - start


def _pool_batch(setting: Setting) -> paired.Samples:
    kinds = [
        (
            name,
            kind,
            setting.cluster.conninfo("reader") if kind is ConnectionPool else setting.stock_parameters("reader"),
        )
        for name, kind in ((OURS, ConnectionPool), (AGAIN, ConnectionPool), (STOCK, StockPool), (CONTROL, StockPool))
    ]
    setting.rng.shuffle(kinds)
    with ExitStack() as stack:
        pools = {name: stack.enter_context(kind(conninfo, min_size=1)) for name, kind, conninfo in kinds}
        servers = []
        for pool in pools.values():
            with pool.connection() as connection:
                servers.append(connection.info.backend_pid)
        return _alternate(setting, servers, {name: partial(_pool_loop, pool) for name, pool in pools.items()})


def _pool_loop(pool: StockPool, count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        with pool.connection() as connection:
            connection.execute("select 1").fetchone()
    return perf_counter() - start


def _async_batch(setting: Setting) -> paired.Samples:
    events = asyncio.new_event_loop()
    wait = events.run_until_complete
    engines = {name: create_async_engine(url) for name, url in _urls(setting)}

    def awaited(engine: AsyncEngine, count: int) -> float:
        return wait(_async_loop(engine, count))

    try:
        servers = [wait(_async_server(engine)) for engine in engines.values()]
        return _alternate(setting, servers, {name: partial(awaited, engine) for name, engine in engines.items()})
    finally:
        for engine in engines.values():
            wait(engine.dispose())
        events.close()


async def _async_server(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(SERVER)).scalar_one())


async def _async_loop(engine: AsyncEngine, count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        async with engine.connect() as connection:
            (await connection.execute(SELECT)).scalar_one()
    return perf_counter() - start


def _alternate(setting: Setting, servers: Iterable[int], loops: Mapping[str, Loop]) -> paired.Samples:
    with paired.apart(servers):
        count = paired.count_for(loops[STOCK], BLOCK)
        blocks = {name: partial(loop, count) for name, loop in loops.items()}
        paired.alternate(blocks, 10, setting.rng)
        return paired.alternate(blocks, ROUNDS, setting.rng)
