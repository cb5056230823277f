"""Pools while the writer is lost: threads and tasks go on, each sees few errors, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import threading
import time

import psycopg
import pytest

import aurora_router
from aurora_router.pool import AsyncConnectionPool, ConnectionPool

pytestmark = pytest.mark.cluster

WORKERS = 6
BEFORE, AFTER = 5, 10
ERRORS = 2
"""What a worker may see of one failover: the statement under way, and a connection that died in its hands."""
PATIENCE = 90.0


@pytest.fixture
def cluster(aurora_cluster_factory):
    cluster = aurora_cluster_factory(readers=1)
    with psycopg.connect(cluster.plain_conninfo()) as conn:
        conn.execute("create table ledger (worker int, n int, primary key (worker, n))")
    return cluster


class Worker:
    """Writes numbers, one after the other, until enough of them were taken by the new writer."""

    def __init__(self, number: int, old: str) -> None:
        self.number = number
        self.old = old
        self.acknowledged: list[int] = []
        self.errors: list[Exception] = []
        self.by_the_new = 0
        self.given_up = time.monotonic() + PATIENCE

    def statement(self):
        n = len(self.acknowledged) + len(self.errors)
        return "insert into ledger values (%s, %s)", [self.number, n], n

    def acknowledge(self, n, conn):
        self.acknowledged.append(n)
        self.by_the_new += conn.placement.instance != self.old

    @property
    def done(self) -> bool:
        assert time.monotonic() < self.given_up, f"worker {self.number} does not get on: {self.errors}"
        return self.by_the_new >= AFTER

    def work(self, pool):
        while not self.done:
            sql, parameters, n = self.statement()
            try:
                with pool.connection() as conn:
                    conn.execute(sql, parameters)
                self.acknowledge(n, conn)
            except Exception as error:  # noqa: BLE001 - looked at in the end
                self.errors.append(error)

    async def work_async(self, pool):
        while not self.done:
            sql, parameters, n = self.statement()
            try:
                async with pool.connection() as conn:
                    await conn.execute(sql, parameters)
                self.acknowledge(n, conn)
            except Exception as error:  # noqa: BLE001 - looked at in the end
                self.errors.append(error)


def verify(cluster, workers):
    with aurora_router.connect(cluster.conninfo()) as conn:
        written = set(conn.execute("select worker, n from ledger").fetchall())
    for each in workers:
        assert all(isinstance(error, psycopg.OperationalError) for error in each.errors), each.errors
        assert len(each.errors) <= ERRORS, each.errors
        assert {(each.number, n) for n in each.acknowledged} <= written


@pytest.mark.parametrize("fault", ["kill", "freeze", "failover"])
def test_threads_go_on(cluster, fault):
    old = cluster.writer
    workers = [Worker(number, old) for number in range(WORKERS)]
    with ConnectionPool(
        cluster.conninfo(), role="writer", min_size=3, max_size=WORKERS, timeout=60, kwargs={"autocommit": True}
    ) as pool:
        threads = [threading.Thread(target=each.work, args=(pool,)) for each in workers]
        for each in threads:
            each.start()
        wait_until(lambda: all(len(each.acknowledged) >= BEFORE for each in workers))
        fail(cluster, fault, old)
        for each in threads:
            each.join()
    verify(cluster, workers)


@pytest.mark.parametrize("fault", ["kill", "freeze", "failover"])
async def test_tasks_go_on(cluster, fault):
    old = cluster.writer
    workers = [Worker(number, old) for number in range(WORKERS)]
    async with AsyncConnectionPool(
        cluster.conninfo(),
        role="writer",
        min_size=3,
        max_size=WORKERS,
        timeout=60,
        kwargs={"autocommit": True},
        open=False,
    ) as pool:
        tasks = [asyncio.create_task(each.work_async(pool)) for each in workers]
        while not all(len(each.acknowledged) >= BEFORE for each in workers):  # noqa: ASYNC110 - they are what is tested
            await asyncio.sleep(0.01)
        await asyncio.to_thread(fail, cluster, fault, old)
        await asyncio.gather(*tasks)
    await asyncio.to_thread(verify, cluster, workers)


def fail(cluster, fault, old):
    if fault == "failover":
        cluster.failover()
    else:
        getattr(cluster, fault)(old)


def wait_until(condition):
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
