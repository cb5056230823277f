"""Commits on the reference cluster whose writer dies, freezes or is demoted under them."""

from __future__ import annotations

import asyncio
import threading

import pytest

import aurora_router
from aurora_router.flow import commit_sql

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(aurora_cluster_factory):
    cluster = aurora_cluster_factory(readers=1)
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute("create table ledger (n int)")
    return cluster


def rows(cluster):
    with aurora_router.connect(cluster.conninfo(), aurora_role="writer") as connection:
        return connection.execute("select count(*) from ledger").fetchone()[0]


@pytest.mark.parametrize("way", ["log", "witness"])
@pytest.mark.parametrize("fault", ["kill", "freeze", "failover"])
def test_once_whatever_happens_to_the_writer_at_commit(cluster, fault, way):
    if way == "witness":
        with aurora_router.connect(cluster.conninfo(), autocommit=True) as connection:
            connection.execute(commit_sql.INSTALL.encode())
    router = aurora_router.Router(cluster.conninfo(aurora_outcome=way))
    writer = cluster.writer
    struck = threading.Event()
    calls = []

    def strike():
        if fault == "failover":
            cluster.failover()
        else:
            getattr(cluster, fault)(writer)

    def work(connection):
        calls.append(connection.placement.instance)
        connection.execute("insert into ledger values (1)")
        if not struck.is_set():
            struck.set()
            strike()
        return "done"

    assert router.run_transaction(work) == "done"
    assert calls[0] == writer
    assert rows(cluster) == 1
    assert cluster.writer != writer


async def test_a_pool_of_dead_connections_is_no_obstacle(cluster):
    psycopg_pool = pytest.importorskip("psycopg_pool")
    router = aurora_router.AsyncRouter(cluster.conninfo(aurora_transaction_attempts=2))

    async def work(connection):
        await connection.execute("insert into ledger values (1)")

    async with psycopg_pool.AsyncConnectionPool(
        cluster.conninfo(), connection_class=aurora_router.AsyncConnection, min_size=5, max_size=5, open=False
    ) as pool:
        await pool.wait()
        await router.run_transaction(work, pool=pool)
        await asyncio.to_thread(cluster.failover)
        await router.run_transaction(work, pool=pool)
    assert rows(cluster) == 2
