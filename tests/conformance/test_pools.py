"""Pools as they are take our connections: psycopg_pool's, sync and async, and SQLAlchemy's."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import pool as sa_pool
from sqlalchemy.ext.asyncio import create_async_engine

import aurora_router

pytestmark = pytest.mark.cluster


def test_psycopg_pool_prefills_checks_resets_and_resizes(aurora_cluster):
    was_reset = []
    with ConnectionPool(
        aurora_cluster.conninfo(),
        connection_class=aurora_router.Connection,
        check=aurora_router.check,
        reset=was_reset.append,
        min_size=2,
        max_size=3,
        open=False,
    ) as pool:
        pool.wait(timeout=30)
        assert pool.get_stats()["pool_size"] == 2
        with pool.connection() as conn:
            assert type(conn) is aurora_router.Connection
            assert conn.placement.instance == aurora_cluster.writer
        with pool.connection(), pool.connection():  # all are out: what was given back has been reset by now
            assert was_reset == [conn]
        pool.resize(3, 4)
        pool.wait(timeout=30)
        assert 3 <= pool.get_stats()["pool_size"] <= 4  # it may have grown while one was on its way back


async def test_psycopg_pool_on_asyncio(aurora_cluster):
    async with AsyncConnectionPool(
        aurora_cluster.conninfo(), connection_class=aurora_router.AsyncConnection, min_size=2, open=False
    ) as pool:
        await pool.wait(timeout=30)
        assert pool.get_stats()["pool_size"] == 2
        async with pool.connection() as conn:
            assert type(conn) is aurora_router.AsyncConnection
            assert await (await conn.execute("select 1")).fetchone() == (1,)
    assert conn.closed


@pytest.mark.parametrize("kind", [sa_pool.QueuePool, sa_pool.NullPool, sa_pool.StaticPool])
def test_sqlalchemys_pools(aurora_cluster, kind):
    engine = sa.create_engine(aurora_cluster.url(), poolclass=kind)
    try:
        made = []
        for _ in range(2):
            with engine.connect() as connection:
                made.append(connection.connection.driver_connection)
                assert connection.exec_driver_sql("select 1").scalar_one() == 1
        assert type(made[0]) is aurora_router.Connection
        assert (made[0] is made[1]) is (kind is not sa_pool.NullPool)
    finally:
        engine.dispose()


@pytest.mark.parametrize("kind", [sa_pool.AsyncAdaptedQueuePool, sa_pool.NullPool, sa_pool.StaticPool])
async def test_sqlalchemys_pools_on_asyncio(aurora_cluster, kind):
    engine = create_async_engine(aurora_cluster.url(), poolclass=kind)
    try:
        made = []
        for _ in range(2):
            async with engine.connect() as connection:
                made.append((await connection.get_raw_connection()).driver_connection)
                assert (await connection.exec_driver_sql("select 1")).scalar_one() == 1
        assert type(made[0]) is aurora_router.AsyncConnection
        assert (made[0] is made[1]) is (kind is not sa_pool.NullPool)
    finally:
        await engine.dispose()
