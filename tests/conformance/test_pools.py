"""Pools as they are take our connections: psycopg_pool's, sync and async, and SQLAlchemy's."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import pool as sa_pool
from sqlalchemy.ext.asyncio import create_async_engine

import aurora_router
import aurora_router.pool

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


async def test_psycopg_pool_on_asyncio_does_as_well(aurora_cluster):
    was_reset = []

    async def reset(conn):
        was_reset.append(conn)

    async with AsyncConnectionPool(
        aurora_cluster.conninfo(),
        connection_class=aurora_router.AsyncConnection,
        check=aurora_router.check,
        reset=reset,
        min_size=2,
        max_size=3,
        open=False,
    ) as pool:
        await pool.wait(timeout=30)
        assert pool.get_stats()["pool_size"] == 2
        async with pool.connection() as conn:
            assert type(conn) is aurora_router.AsyncConnection
            assert await (await conn.execute("select 1")).fetchone() == (1,)
        async with pool.connection(), pool.connection():
            assert was_reset == [conn]
        await pool.resize(3, 4)
        await pool.wait(timeout=30)
        assert 3 <= pool.get_stats()["pool_size"] <= 4
    assert conn.closed


def test_psycopg_pool_shrinks_to_what_it_needs(aurora_cluster):
    with ConnectionPool(
        aurora_cluster.conninfo(),
        connection_class=aurora_router.Connection,
        min_size=1,
        max_size=4,
        max_idle=0.1,
        open=False,
    ) as pool:
        with pool.connection() as one, pool.connection() as two, pool.connection() as three:
            assert len({id(one), id(two), id(three)}) == 3
        give_up = time.monotonic() + 30
        while pool.get_stats()["pool_size"] > 1:
            assert time.monotonic() < give_up, "the pool did not shrink"
            with pool.connection():  # a pool looks at what is idle when something is given back, and by itself
                time.sleep(0.01)
        with pool.connection() as conn:
            assert conn.placement.instance == aurora_cluster.writer


@pytest.mark.parametrize(("role", "answers"), [("writer", False), ("reader", True)])
async def test_our_pools_take_a_role(aurora_cluster, role, answers):
    kinds = aurora_router.pool.ConnectionPool, aurora_router.pool.AsyncConnectionPool
    blocking, on_asyncio = (kind(aurora_cluster.conninfo(), role=role, min_size=1, open=False) for kind in kinds)
    with blocking, blocking.connection() as conn:
        assert conn.execute("select pg_is_in_recovery()").fetchone() == (answers,)
    async with on_asyncio, on_asyncio.connection() as conn:
        assert await (await conn.execute("select pg_is_in_recovery()")).fetchone() == (answers,)


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


@pytest.mark.case
def test_keywords_and_conninfo_that_are_asked_for_at_each_connect(aurora_cluster):
    asked = []

    def conninfo():
        asked.append("conninfo")
        return aurora_cluster.conninfo(password=None)

    def token():
        asked.append("token")
        return {"password": aurora_cluster.password}

    with aurora_router.pool.ConnectionPool(conninfo, role="reader", kwargs=token, min_size=2, open=False) as pool:
        pool.wait(timeout=30)
        with pool.connection() as conn:
            assert conn.placement.instance != aurora_cluster.writer
    assert asked.count("token") == asked.count("conninfo") >= 2


@pytest.mark.case
async def test_keywords_that_are_awaited_at_each_connect(aurora_cluster):
    async def conninfo():
        return aurora_cluster.conninfo(password=None)

    async def token():
        return {"password": aurora_cluster.password}

    pool = aurora_router.pool.AsyncNullConnectionPool(conninfo, role="writer", kwargs=token, open=False)
    async with pool, pool.connection() as conn:
        assert conn.placement.instance == aurora_cluster.writer
