"""Failovers of a real cluster: noticed, survived, and no stale connection handed out again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import psycopg
import pytest

import aurora_router
from aurora_router.pool import AsyncConnectionPool, ConnectionPool

pytestmark = pytest.mark.cluster

POOL = 20
PATIENCE = 60.0


@pytest.fixture
def cluster(aurora_cluster_factory):
    return aurora_cluster_factory(readers=2)


def until(condition, what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def writes(cluster, conn) -> str:
    """Write, reconnecting as often as it takes; returns the instance that took it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            conn.execute("INSERT INTO ledger VALUES (1)")
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            conn.close()
            conn = aurora_router.connect(cluster.conninfo(), autocommit=True)
        else:
            instance = conn.placement.instance
            conn.close()
            return instance


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_lost_writer_is_replaced_and_never_handed_out_again(cluster, fault, events):
    with ConnectionPool(cluster.conninfo(), min_size=POOL, max_size=POOL, kwargs={"autocommit": True}) as pool:
        pool.wait()
        with pool.connection() as conn:
            conn.execute("CREATE TABLE ledger (n int)")
        with aurora_router.connect(cluster.conninfo("reader"), autocommit=True) as reader:
            old = cluster.writer
            conn = aurora_router.connect(cluster.conninfo(), autocommit=True)
            getattr(cluster, fault)(old)
            new = writes(cluster, conn)
            assert new != old
            handed = [pool.getconn() for _ in range(POOL)]
            assert {each.placement.instance for each in handed} == {new}
            for each in handed:
                pool.putconn(each)
            if reader.placement.instance != new:
                assert reader.execute("SELECT 1").fetchone() == (1,), "a reader that stayed up raises nothing"
    assert bool(of(events, aurora_router.HangSuspected)) is (fault == "freeze")
    assert of(events, aurora_router.WriterConfirmed)


@pytest.mark.parametrize("fault", ["kill", "freeze", "failover"])
def test_sqlalchemy_replaces_stale_connections_at_checkout(cluster, fault):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(cluster.url(), pool_size=POOL, isolation_level="AUTOCOMMIT")
    held = [engine.connect() for _ in range(POOL)]
    held[0].exec_driver_sql("CREATE TABLE ledger (n int)")
    for each in held:
        each.close()
    old = cluster.writer
    if fault == "failover":
        cluster.failover()
    else:
        getattr(cluster, fault)(old)
    new = writes(cluster, aurora_router.connect(cluster.conninfo(), autocommit=True))
    assert new != old
    for _ in range(POOL):
        held = [engine.connect() for _ in range(POOL)]
        assert {each.connection.driver_connection.placement.instance for each in held} == {new}
        for each in held:
            each.exec_driver_sql("INSERT INTO ledger VALUES (2)")
            each.close()
    engine.dispose()


async def test_asyncio_pool_and_waiting_tasks(cluster):
    async with AsyncConnectionPool(
        cluster.conninfo(), min_size=4, max_size=4, kwargs={"autocommit": True}, open=False
    ) as pool:
        await pool.wait()
        async with pool.connection() as conn:
            await conn.execute("CREATE TABLE ledger (n int)")
            old = conn.placement.instance
        stuck = await aurora_router.AsyncConnection.connect(cluster.conninfo(), autocommit=True)
        await asyncio.to_thread(cluster.freeze, old)
        with pytest.raises(psycopg.OperationalError):
            await stuck.execute("INSERT INTO ledger VALUES (3)")
        await stuck.close()
        async with await aurora_router.AsyncConnection.connect(cluster.conninfo()) as found:  # it waits for a writer
            assert found.placement.instance != old
        async with pool.connection() as conn:
            await conn.execute("INSERT INTO ledger VALUES (4)")
            assert conn.placement.instance != old


def test_who_waits_is_woken_by_the_new_writer(cluster):
    """Fifty threads wait for a writer at once, and all of them get the new one."""
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        old = conn.placement.instance
        cluster.kill(old)
        found: list[str] = []

        def work() -> None:
            with aurora_router.connect(cluster.conninfo(), autocommit=True) as own:
                found.append(own.placement.instance)

        threads = [threading.Thread(target=work) for _ in range(50)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(PATIENCE)
        assert len(found) == 50
        assert old not in found


def test_a_writer_of_which_nothing_was_ever_heard_is_found(aurora_cluster_factory):
    """It joined after the client's last look, and the only instance that the client knows is gone."""
    cluster = aurora_cluster_factory(readers=0)
    with aurora_router.connect(cluster.conninfo()) as held:
        joined = cluster.add_reader()
        cluster.kill(held.placement.instance, hold=True)
        with aurora_router.connect(cluster.conninfo()) as conn:
            assert conn.placement.instance == joined.name


def test_a_writer_without_readers_is_found_again(aurora_cluster_factory):
    """It is rebuilt in its place, and stands in no rows until it is the writer again."""
    cluster = aurora_cluster_factory(readers=0)
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE TABLE ledger (n int)")
        cluster.kill(conn.placement.instance)
        assert writes(cluster, conn) == conn.placement.instance


def test_readers_do_not_wait_for_a_writer(cluster):
    with aurora_router.connect(cluster.conninfo("reader")) as first:
        cluster.kill(cluster.writer, hold=True)
        with aurora_router.connect(cluster.conninfo("reader")) as second:
            assert second.execute("SELECT pg_is_in_recovery()").fetchone() in {(True,), (False,)}
        assert first.execute("SELECT 1").fetchone() == (1,)


def test_a_failover_that_lasts_too_long_is_told_with_its_trail(aurora_cluster_factory):
    cluster = aurora_cluster_factory(readers=1, auto=False)
    conninfo = cluster.conninfo(aurora_failover_timeout=1)
    with aurora_router.connect(conninfo) as conn:
        cluster.kill(cluster.writer)
        with pytest.raises(aurora_router.WriterUnavailable) as caught:
            aurora_router.connect(conninfo)
        error = caught.value
        assert error.sqlstate == "08001"
        assert error.before is not None
        assert error.before.writer == conn.placement.instance
        assert any(isinstance(event, aurora_router.WriterSuspected) for _, event in error.trail)
        assert error.attempts
        with contextlib.suppress(psycopg.Error):
            conn.rollback()


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_nothing_leaks_over_many_failovers(cluster, rounds):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE TABLE ledger (n int)")
    counted = []
    for _ in range(rounds):
        until(lambda: all(each.state == "available" for each in cluster.instances), "the cluster is whole")
        conn = aurora_router.connect(cluster.conninfo(), autocommit=True)
        old = cluster.writer
        cluster.kill(old)
        assert writes(cluster, conn) != old
        until(lambda: "aurora-router-monitor" not in {each.name for each in threading.enumerate()}, "the monitor ended")
        counted.append(descriptors())
    assert counted[-1] <= counted[0]
