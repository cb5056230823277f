"""Driving procedures without a loop; service queries with a deadline, against sockets that misbehave."""

from __future__ import annotations

import asyncio
import threading
import time

import psycopg
import pytest

from aurora_router.flow.cluster import Cluster
from aurora_router.flow.runtime import DialFailed
from aurora_router.flow.topology_query import IN_RECOVERY
from aurora_router.policy.verdict import FaultKind
from aurora_router.runtime.blocking import new_event, run
from aurora_router.runtime.dns import Names
from aurora_router.runtime.libpq_runtimes import BlockingRuntime, EventLoopRuntime
from aurora_router.runtime.registry import Registry


def test_run_gives_the_result_and_raises_what_is_raised():
    async def fine(value):
        return await deeper(value)

    async def deeper(value):
        if value is None:
            raise KeyError("none")
        return value

    assert run(fine(7)) == 7
    with pytest.raises(KeyError):
        run(fine(None))


def test_a_procedure_that_suspends_is_ended_and_told():
    ended = []

    class Suspending:
        def __await__(self):
            yield

    async def suspends():
        try:
            await Suspending()
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="suspended in the blocking runtime"):
        run(suspends())
    assert ended == [True]


@pytest.fixture
def cluster():
    return Cluster(("here", ""), Registry(), threading.Lock())


def runtime():
    return BlockingRuntime(lambda *_: pytest.fail("dialled"), Names(None, 1.0))


def on_asyncio():
    return EventLoopRuntime(lambda *_: pytest.fail("dialled"), Names(None, 1.0))


def test_news_end_a_wait(cluster):
    thread = threading.Timer(0.05, cluster.wake)
    thread.start()
    run(runtime().wait_for_news(cluster, 0, 60.0))
    thread.join()
    assert cluster.news == 1
    assert not cluster._waiters


async def test_news_end_a_wait_on_asyncio(cluster):
    thread = threading.Timer(0.05, cluster.wake)
    thread.start()
    await on_asyncio().wait_for_news(cluster, 0, 60.0)
    thread.join()
    assert not cluster._waiters


async def test_old_news_and_no_news_do_not_hold_up(cluster):
    cluster.wake()
    run(runtime().wait_for_news(cluster, 0, 60.0))
    await on_asyncio().wait_for_news(cluster, 0, 60.0)
    run(runtime().wait_for_news(cluster, 1, 0.01))
    await on_asyncio().wait_for_news(cluster, 1, 0.01)
    assert not cluster._waiters


async def test_a_cancelled_wait_leaves_nobody_behind(cluster):
    task = asyncio.ensure_future(on_asyncio().wait_for_news(cluster, 0, 60.0))
    await asyncio.sleep(0)
    assert cluster._waiters
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not cluster._waiters


def test_a_loop_that_is_gone_is_not_woken(cluster):
    async def left_behind():
        waiting = on_asyncio().wait_for_news(cluster, 0, 60.0)
        waiting.send(None)
        return waiting

    loop = asyncio.new_event_loop()
    waiting = loop.run_until_complete(left_behind())
    loop.close()
    cluster.wake()
    assert not cluster._waiters
    with pytest.raises(RuntimeError):
        waiting.throw(RuntimeError("end"))


# ---------------------------------------------------------------- service queries on a real connection


@pytest.mark.cluster
class TestAsking:
    def test_rows_nulls_and_refusals(self, aurora_cluster):
        with psycopg.connect(aurora_cluster.plain_conninfo()) as connection:
            assert run(runtime().ask(connection, "SELECT 1, NULL, 'ä'", 5.0)) == [("1", None, "ä")]
            with pytest.raises(DialFailed) as caught:
                run(runtime().ask(connection, "SELECT nothing()", 5.0))
            assert caught.value.fault.sqlstate == "42883"
            assert run(runtime().ask(connection, IN_RECOVERY, 5.0)) == [("f",)]
            assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE

    async def test_rows_on_asyncio(self, aurora_cluster):
        async with await psycopg.AsyncConnection.connect(aurora_cluster.plain_conninfo()) as connection:
            assert await on_asyncio().ask(connection, "SELECT 1, NULL, 'ä'", 5.0) == [("1", None, "ä")]
            with pytest.raises(DialFailed) as caught:
                await on_asyncio().ask(connection, "SELECT nothing()", 5.0)
            assert caught.value.fault.sqlstate == "42883"

    def test_an_answer_that_does_not_come(self, aurora_cluster):
        with psycopg.connect(aurora_cluster.plain_conninfo()) as connection:
            with pytest.raises(DialFailed) as caught:
                run(runtime().ask(connection, "SELECT pg_sleep(60)", 0.1))
            assert caught.value.fault.kind is FaultKind.TIMEOUT
            connection.close()

    def test_an_answer_that_is_not_wanted_any_more(self, aurora_cluster):
        wanted = iter([True, False])
        with psycopg.connect(aurora_cluster.plain_conninfo()) as connection:
            with pytest.raises(DialFailed):
                run(runtime().ask(connection, "SELECT pg_sleep(60)", 60.0, lambda: next(wanted)))
            connection.close()

    async def test_an_answer_that_is_not_wanted_any_more_on_asyncio(self, aurora_cluster):
        wanted = iter([True, False])
        async with await psycopg.AsyncConnection.connect(aurora_cluster.plain_conninfo()) as connection:
            with pytest.raises(DialFailed):
                await on_asyncio().ask(connection, "SELECT pg_sleep(60)", 60.0, lambda: next(wanted))
            await connection.close()

    async def test_an_answer_that_comes_late_and_in_time(self, aurora_cluster):
        """It is waited for in slices, none of which may lose a part of it."""
        sql = "SELECT repeat('x', 100000), pg_sleep(0.35)"
        with psycopg.connect(aurora_cluster.plain_conninfo()) as connection:
            assert len(run(runtime().ask(connection, sql, 60.0, lambda: True))[0][0]) == 100000
        async with await psycopg.AsyncConnection.connect(aurora_cluster.plain_conninfo()) as connection:
            assert len((await on_asyncio().ask(connection, sql, 60.0, lambda: True))[0][0]) == 100000

    async def test_an_answer_that_does_not_come_on_asyncio(self, aurora_cluster):
        async with await psycopg.AsyncConnection.connect(aurora_cluster.plain_conninfo()) as connection:
            with pytest.raises(DialFailed) as caught:
                await on_asyncio().ask(connection, "SELECT pg_sleep(60)", 0.1)
            assert caught.value.fault.kind is FaultKind.TIMEOUT
            await connection.close()

    def test_a_connection_that_is_ended_meanwhile(self, aurora_cluster):
        with (
            psycopg.connect(aurora_cluster.plain_conninfo()) as connection,
            psycopg.connect(aurora_cluster.plain_conninfo(), autocommit=True) as other,
        ):
            pid = connection.info.backend_pid
            other.execute("select pg_terminate_backend(%s)", (pid,))
            deadline = time.monotonic() + 20
            while other.execute("select 1 from pg_stat_activity where pid = %s", (pid,)).fetchone():
                assert time.monotonic() < deadline
            with pytest.raises(DialFailed) as caught:
                run(runtime().ask(connection, IN_RECOVERY, 5.0))
            assert caught.value.fault.kind in {FaultKind.RESET, FaultKind.REJECTED}
            connection.close()


# ---------------------------------------------------------------- events


def test_an_event_may_be_set_twice_and_before_it_is_waited_for():
    event = new_event()
    event.set()
    event.set()
    began = time.monotonic()
    event.wait(20.0)
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize("seconds", [0.05, 0.0, -1.0])
def test_an_event_is_waited_for_no_longer_than_wanted(seconds):
    began = time.monotonic()
    new_event().wait(seconds)
    assert time.monotonic() - began >= seconds


def test_a_blocking_procedure_cannot_wait_for_one_of_its_own_thread():
    """Which a signal handler interrupted; on an event loop all tasks go on."""
    blocking, awaited = BlockingRuntime(None, None), EventLoopRuntime(None, None)
    assert blocking.thread == awaited.thread == threading.get_ident()
    assert not blocking.can_wait_for(threading.get_ident())
    assert blocking.can_wait_for(None)
    assert awaited.can_wait_for(threading.get_ident())
