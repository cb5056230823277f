"""A balance function reaches the choice, however the connection is made."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import aurora_router
from aurora_router.pool import AsyncConnectionPool, ConnectionPool
from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster
SERVER = "SELECT aurora_db_instance_identifier()"


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=3) as cluster:
        yield cluster


def last(candidates):
    """The last one by name, which no built-in strategy would choose each time."""
    return max(candidates, key=lambda each: each.id)


def by_connect(cluster):
    with aurora_router.connect(cluster.conninfo("reader"), balance=last) as conn:
        return conn.execute(SERVER).fetchone()[0]


def by_router(cluster):
    router = aurora_router.Router(cluster.conninfo("writer"), balance=last)
    with router.connect(role="reader") as conn:
        return conn.execute(SERVER).fetchone()[0]


def by_a_connect_of_a_router(cluster):
    with aurora_router.Router(cluster.conninfo("writer")).connect(role="reader", balance=last) as conn:
        return conn.execute(SERVER).fetchone()[0]


def by_pool(cluster):
    given = {"balance": last}
    with ConnectionPool(cluster.conninfo("reader"), kwargs=given, min_size=1) as pool, pool.connection() as conn:
        return conn.execute(SERVER).fetchone()[0]


def by_engine(cluster):
    engine = sa.create_engine(cluster.url("reader"), connect_args={"balance": last})
    try:
        with engine.connect() as conn:
            return conn.scalar(sa.text(SERVER))
    finally:
        engine.dispose()


def by_asyncio(cluster):
    async def main():
        conn = await aurora_router.AsyncConnection.connect(cluster.conninfo("reader"), balance=last)
        async with conn:
            return (await (await conn.execute(SERVER)).fetchone())[0]

    return asyncio.run(main())


def by_pool_of_asyncio(cluster):
    async def main():
        pool = AsyncConnectionPool(cluster.conninfo("reader"), kwargs={"balance": last}, min_size=1, open=False)
        async with pool, pool.connection() as conn:
            return (await (await conn.execute(SERVER)).fetchone())[0]

    return asyncio.run(main())


def by_engine_of_asyncio(cluster):
    async def main():
        url = cluster.url("reader")
        engine = create_async_engine(url, connect_args={"balance": last})
        async with engine.connect() as conn:
            found = await conn.scalar(sa.text(SERVER))
        await engine.dispose()
        return found

    return asyncio.run(main())


WAYS = [
    by_connect,
    by_router,
    by_a_connect_of_a_router,
    by_pool,
    by_engine,
    by_asyncio,
    by_pool_of_asyncio,
    by_engine_of_asyncio,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_chooses(cluster, way):
    assert {way(cluster) for _ in range(3)} == {"demo-4"}


def test_what_it_raises_leaves_with_a_short_traceback(cluster):
    def broken(candidates):
        raise LookupError("no such shelf")

    with pytest.raises(aurora_router.ExtensionFailed, match="broken raised LookupError: no such shelf") as caught:
        aurora_router.connect(cluster.conninfo("reader"), balance=broken)
    assert len(caught.traceback) <= 3
    assert isinstance(caught.value.__cause__, LookupError)
