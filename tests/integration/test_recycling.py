"""What a pool replaces: the idle connections that are stale, and none that work."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from aurora_router.pool import AsyncConnectionPool, ConnectionPool
from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2, auto=False) as cluster:
        yield cluster


def kill(cluster, backend):
    writer = cluster.instance(cluster.writer)
    login = {"user": "postgres", "dbname": "app", "autocommit": True}
    with psycopg.connect(host=writer.socket_directory, port=writer.port, **login) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (backend,))


def backends(pool):
    return sorted(each.info.backend_pid for each in list(pool._pool))


def wait_until(condition):
    until = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_one_lost_connection_does_not_cost_the_others(cluster):
    with ConnectionPool(cluster.conninfo("writer"), min_size=4) as pool:
        pool.wait(20.0)
        first, *others = [each.info.backend_pid for each in list(pool._pool)]
        kill(cluster, first)
        time.sleep(0.2)
        with pool.connection() as conn:
            assert conn.info.backend_pid != first
        wait_until(lambda: len(pool._pool) == 4)
        assert set(others) < set(backends(pool))


def test_a_reader_that_restarts_does_not_cost_the_connections_to_the_others(cluster):
    with ConnectionPool(cluster.conninfo("reader"), min_size=6) as pool:
        pool.wait(20.0)
        lost, kept = cluster.readers
        stay = {each.info.backend_pid for each in list(pool._pool) if each.placement.instance == kept}
        cluster.restart(lost)

        def is_full():
            with pool.connection():
                pass
            idle = list(pool._pool)
            return len(idle) == 6 and not any(each.closed or not each.sound() for each in idle)

        wait_until(is_full)
        assert len(stay) == 3
        assert stay < set(backends(pool))


async def test_the_same_on_asyncio(cluster):
    async with AsyncConnectionPool(cluster.conninfo("reader"), min_size=6, open=False) as pool:
        await pool.wait(20.0)
        lost, kept = cluster.readers
        stay = {each.info.backend_pid for each in list(pool._pool) if each.placement.instance == kept}
        await asyncio.to_thread(cluster.restart, lost)
        until = time.monotonic() + 20.0
        while len(pool._pool) < 6 or any(each.closed or not each.sound() for each in list(pool._pool)):
            assert time.monotonic() < until
            async with pool.connection():
                await asyncio.sleep(0.02)
        assert stay < set(backends(pool))


def test_a_failover_replaces_all_that_are_stale(cluster):
    with ConnectionPool(cluster.conninfo("writer"), min_size=4) as pool:
        pool.wait(20.0)
        before, old = set(backends(pool)), cluster.writer
        target = cluster.readers[0]
        cluster.failover(target)
        with pool.connection() as conn:
            assert conn.placement.instance == target
        wait_until(lambda: len(pool._pool) == 4)
        assert {each.placement.instance for each in list(pool._pool)} == {target}
        assert old != target
        assert not before & set(backends(pool))
