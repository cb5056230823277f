"""An error of a statement under way says what happened to its instance; it stays psycopg's own."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import aurora_router
from aurora_router.model.instance import Role
from aurora_router.runtime.registry import REGISTRY

pytestmark = pytest.mark.cluster

SLEEP = "SELECT pg_sleep(60)"
PATIENCE = 30.0


@pytest.fixture(scope="module")
def shared():
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared):
    """The module's cluster; after the test all instances are available, and the driver knows nothing of it."""
    yield shared
    for one in shared.instances:
        if one.frozen:
            until(lambda hung=one.name: shared.writer not in {None, hung}, "another writer")
            shared.thaw(one.name)  # its sessions end: it comes back as a reader
    until(lambda: all(one.state == "available" for one in shared.instances), "all are back")
    REGISTRY.reset()  # refused writes count once in a while only


def blocking(cluster, ready):
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        ready.wait()
        conn.execute(SLEEP)


def awaited(cluster, ready):
    async def go():
        async with await aurora_router.AsyncConnection.connect(cluster.conninfo(), autocommit=True) as conn:
            ready.wait()
            await conn.execute(SLEEP)

    asyncio.run(go())


def by_sqlalchemy(cluster, ready):
    engine = sqlalchemy.create_engine(cluster.url())
    try:
        with engine.connect() as conn:
            ready.wait()
            conn.exec_driver_sql(SLEEP)
    finally:
        engine.dispose()


def by_sqlalchemy_awaited(cluster, ready):
    async def go():
        engine = create_async_engine(cluster.url())
        try:
            async with engine.connect() as conn:
                ready.wait()
                await conn.exec_driver_sql(SLEEP)
        finally:
            await engine.dispose()

    asyncio.run(go())


WAYS = [blocking, awaited, by_sqlalchemy, by_sqlalchemy_awaited]


def errors_of(cluster, fault):
    """What each way raises when the writer is lost under its statement."""
    ready = threading.Barrier(len(WAYS) + 1)

    def caught(way):
        try:
            way(cluster, ready)
        except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
            return error

    with ThreadPoolExecutor(len(WAYS)) as threads:
        running = [threads.submit(caught, way) for way in WAYS]
        ready.wait()
        observer = cluster.plain_conninfo()
        with psycopg.connect(observer, autocommit=True) as conn:
            query = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'"
            until(lambda: conn.execute(query, [SLEEP]).fetchone() == (len(WAYS),), "all statements are under way")
        getattr(cluster, fault)(cluster.writer)
        return [each.result(PATIENCE) for each in running]


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def text_of(error):
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def lose_the_writer(cluster, fault):
    """Returns the incidents; each way's error is checked."""
    old = cluster.writer
    incidents = []
    for way, error in zip(WAYS, errors_of(cluster, fault), strict=True):
        native = getattr(error, "orig", error)
        assert type(native) is psycopg.OperationalError, way
        incident = native.incident
        assert (incident.instance, incident.role_before, incident.lost) == (old, Role.WRITER, True)
        assert incident.events
        where = f"the connection to {old} (cluster {incident.cluster})"
        said = f"{where} was lost" if incident.cut is None else f"this library cut {where}: {incident.cut}"
        for each in (native, error):
            assert f"aurora-router: {said}" in text_of(each), way
        again = pickle.loads(pickle.dumps(native))
        assert (type(again), again.incident) == (type(native), incident)
        assert text_of(again) == text_of(native)
        incidents.append(incident)
    return incidents


def test_a_session_that_an_administrator_ended(cluster):
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        pid = conn.info.backend_pid
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.errors.AdminShutdown) as caught:
            conn.execute("SELECT 1")
    assert caught.value.sqlstate == "57P01"
    assert caught.value.incident.lost
    assert caught.value.incident.cut is None


def test_errors_that_say_nothing_of_the_instance_are_left_alone(cluster):
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        conn.execute("SET statement_timeout = '1ms'")
        with pytest.raises(psycopg.errors.QueryCanceled) as caught:
            conn.execute("SELECT pg_sleep(1)")
    assert not hasattr(caught.value, "incident")
    assert not getattr(caught.value, "__notes__", None)


def test_a_refused_write_has_the_writer_asked(cluster, events):
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        conn.execute("BEGIN READ ONLY")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
            conn.execute("CREATE TABLE refused (n int)")
        conn.execute("ROLLBACK")
        incident = caught.value.incident
        assert (incident.instance, incident.lost, incident.cut) == (cluster.writer, False, None)
        assert "refused to write" in text_of(caught.value)
        until(
            lambda: any(isinstance(each, aurora_router.WriterConfirmed) for each in events),
            "the writer confirmed itself",
        )
        assert [type(each) for each in events].count(aurora_router.WriteRefused) == 1
        assert conn.placement.current
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_session_that_chose_to_be_read_only_is_no_news(cluster, events):
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        conn.execute("SET default_transaction_read_only = on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
            conn.execute("CREATE TABLE refused (n int)")
        assert not hasattr(caught.value, "incident")
    with aurora_router.connect(cluster.conninfo()) as conn:
        conn.read_only = True
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute("CREATE TABLE refused (n int)")
    with (
        aurora_router.connect(cluster.conninfo("reader"), autocommit=True) as conn,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        conn.execute("CREATE TABLE refused (n int)")
    assert not [each for each in events if isinstance(each, aurora_router.WriteRefused)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_the_traceback_shows_it(cluster):
    import traceback

    with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(psycopg.OperationalError) as caught:
            conn.execute("SELECT 1")
    assert "aurora-router: the connection to" in "".join(traceback.format_exception(caught.value))


def test_a_statement_of_a_killed_writer(cluster):
    old = cluster.writer
    assert [each.cut for each in lose_the_writer(cluster, "kill")] == [None] * len(WAYS)
    until(lambda: cluster.writer not in {None, old}, "another writer")


def test_a_statement_of_a_hung_writer(cluster):
    for incident in lose_the_writer(cluster, "freeze"):
        assert "hung" in incident.cut
        assert any(isinstance(event, aurora_router.HangSuspected) for _, event in incident.events)
