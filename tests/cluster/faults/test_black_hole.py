"""A writer whose packets are dropped: what its clients notice. (How soon is measured by ``benchmarks.failover``.)"""

from __future__ import annotations

import contextlib
import threading

import psycopg
import pytest

import aurora_router
from aurora_router.pool import ConnectionPool
from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def shared():
    with LocalCluster.start(readers=2, faults=True) as cluster:
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as writer:
            writer.execute("create table ledger (i int)")
        yield cluster


@pytest.fixture
def cluster(shared, eventually):
    eventually(lambda: shared.writer is not None and all(one.state == "available" for one in shared.instances))
    yield shared
    shared.faults.heal()


def writes(conninfo, old, eventually):
    """Connect again until another instance takes a row; returns its name."""

    def took():
        with (
            contextlib.suppress(psycopg.OperationalError),
            aurora_router.connect(conninfo, autocommit=True) as conn,
        ):
            conn.execute("insert into ledger values (1)")
            return conn.placement.instance

    new = eventually(took, 90)
    assert new != old
    return new


@pytest.mark.parametrize("waits", ["insert", "select", "listen"])
def test_who_waits_for_it_is_told(cluster, waits, eventually):
    conninfo = cluster.conninfo()
    with contextlib.closing(aurora_router.connect(conninfo, autocommit=True)) as conn:
        old = conn.placement.instance
        raised = []

        def wait():
            try:
                if waits == "insert":
                    while True:
                        conn.execute("insert into ledger values (2)")
                elif waits == "select":
                    conn.execute("select pg_sleep(600)")
                else:
                    conn.execute("listen news")
                    list(conn.notifies())
            except psycopg.Error as error:
                raised.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: conn.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE or waits == "listen")
        cluster.faults.partition(old)
        writes(conninfo, old, eventually)
        waiting.join(60)
        assert [type(error) for error in raised] == [psycopg.OperationalError]


def test_a_pool_gives_none_of_its_connections_out_again(cluster, eventually):
    with ConnectionPool(cluster.conninfo(), min_size=8, max_size=8, kwargs={"autocommit": True}) as pool:
        pool.wait(60)
        with pool.connection() as conn:
            old = conn.placement.instance
        cluster.faults.partition(old)
        with contextlib.suppress(psycopg.OperationalError), pool.connection() as conn:
            conn.execute("insert into ledger values (3)")
        new = writes(cluster.conninfo(), old, eventually)
        for _ in range(16):
            with pool.connection(timeout=60) as conn:
                assert conn.placement.instance == new
                conn.execute("insert into ledger values (4)")
