"""Engines are on the instances that their URLs call for."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import aurora_router

pytestmark = pytest.mark.cluster

READERS, POOL = 5, 30


def instance_of(connection):
    """Where a connection is by the server's word; it and the placement agree."""
    told = connection.exec_driver_sql("select aurora_db_instance_identifier(), pg_is_in_recovery()").one()
    assert connection.connection.driver_connection.placement.instance == told[0]
    return told


@pytest.mark.parametrize(("target", "reads"), [("writer", False), ("reader", True)])
def test_an_engine_of_an_endpoint(ours, target, reads):
    def check(engine):
        with engine.connect() as connection:
            instance, standby = instance_of(connection)
            assert standby is reads
            assert (instance != ours.cluster.writer) is reads

    ours.run(check, ours.url(target))


def test_an_engine_of_an_instance(ours):
    reader = ours.cluster.readers[0]

    def check(engine):
        with engine.connect() as connection:
            assert instance_of(connection) == (reader, True)

    ours.run(check, ours.url(f"instance:{reader}"))
    ours.run(check, ours.url("writer", aurora_instance=reader))


def test_without_a_pool_each_checkout_is_routed_anew(ours):
    def check(engine):
        seen = []
        for _ in range(4):
            with engine.connect() as connection:
                seen.append(instance_of(connection)[0])
        assert Counter(seen) == dict.fromkeys(ours.cluster.readers, 2)

    ours.run(check, ours.url("reader", aurora_balance="round_robin"), poolclass=NullPool)


def test_a_creator_of_ones_own(aurora_cluster):
    engine = sa.create_engine(
        "postgresql+aurora://", creator=lambda: aurora_router.connect(aurora_cluster.conninfo("reader"))
    )
    with engine.connect() as connection:
        assert instance_of(connection)[1] is True
    engine.dispose()


def test_an_async_creator_of_ones_own(aurora_cluster):
    async def create():
        return await aurora_router.AsyncConnection.connect(aurora_cluster.conninfo("reader"))

    async def check():
        engine = create_async_engine("postgresql+aurora://", async_creator=create)
        async with engine.connect() as connection:
            assert (await connection.run_sync(instance_of))[1] is True
        await engine.dispose()

    asyncio.run(check())


def test_many_tasks_share_an_engine(aurora_cluster):
    async def one(engine, number):
        async with engine.connect() as connection:
            return await connection.scalar(sa.text("select cast(:n as int)"), {"n": number})

    async def check():
        engine = create_async_engine(aurora_cluster.url("reader"), pool_size=4, max_overflow=0)
        assert await asyncio.gather(*(one(engine, n) for n in range(100))) == list(range(100))
        await engine.dispose()

    asyncio.run(check())


@pytest.fixture(scope="module")
def wide_cluster():
    """One writer, five readers."""
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=READERS) as cluster:
        yield cluster


def assert_even(seen, readers, balance):
    """Exactly even by connections; in turn, the first one may be out of turn: it is where the topology was asked."""
    assert set(seen) == set(readers)
    reach = 0 if balance == "least_connections" else 1
    assert all(abs(count - POOL // READERS) <= reach for count in seen.values())


SPREADING = ["least_connections", "round_robin"]


@pytest.mark.parametrize("balance", SPREADING)
def test_a_prefilled_pool_spreads_evenly(wide_cluster, balance):
    engine = sa.create_engine(
        wide_cluster.url("reader", aurora_balance=balance, aurora_cluster=f"sync-{os.getpid()}-{balance}"),
        pool_size=POOL,
    )
    with ExitStack() as open_, ThreadPoolExecutor(POOL) as threads:
        connections = list(threads.map(lambda _: engine.connect(), range(POOL)))
        for connection in connections:
            open_.enter_context(connection)
        seen = Counter(instance_of(connection)[0] for connection in connections)
    engine.dispose()
    assert_even(seen, wide_cluster.readers, balance)


@pytest.mark.parametrize("balance", SPREADING)
def test_a_prefilled_async_pool_spreads_evenly(wide_cluster, balance):
    async def check():
        engine = create_async_engine(
            wide_cluster.url("reader", aurora_balance=balance, aurora_cluster=f"async-{os.getpid()}-{balance}"),
            pool_size=POOL,
        )
        connections = [engine.connect() for _ in range(POOL)]
        await asyncio.gather(*(connection.start() for connection in connections))
        seen = Counter([(await connection.run_sync(instance_of))[0] for connection in connections])
        for connection in connections:
            await connection.close()
        await engine.dispose()
        return seen

    assert_even(asyncio.run(check()), wide_cluster.readers, balance)
