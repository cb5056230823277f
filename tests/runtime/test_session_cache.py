"""The monitor's session with a new writer goes to the first user who dials with the same parameters."""

from __future__ import annotations

import contextlib
import time

import psycopg
import pytest

import aurora_router
from aurora_router.runtime import session_cache, sockets
from aurora_router.runtime.session_cache import SessionCache, key_of

pytestmark = pytest.mark.cluster

PATIENCE = 60.0


@pytest.fixture
def session(aurora_cluster):
    """A session that psycopg has made, without a connection around it."""
    connection = psycopg.connect(aurora_cluster.plain_conninfo())
    pgconn = connection.pgconn
    del connection.pgconn
    yield pgconn
    pgconn.finish()


def test_who_dials_with_the_same_parameters_takes_it_once(session):
    shelf, params = SessionCache(), {"host": "a", "port": 5432, "password": "x"}
    shelf.lay(key_of(params), session)
    assert shelf.take({**params, "password": "y"}) is None
    assert shelf.take({**params, "connect_timeout": 3}) is session
    assert shelf.take(params) is None
    shelf.clear(key_of(params), session)
    assert session.status == psycopg.pq.ConnStatus.OK, "it is its taker's"


def test_what_nobody_takes_is_closed(session):
    shelf = SessionCache()
    shelf.lay(key_of({}), session)
    shelf.clear(key_of({}), session)
    assert session.status == psycopg.pq.ConnStatus.BAD
    assert shelf.take({}) is None


def test_a_session_that_the_server_has_ended_is_not_given(session, aurora_cluster):
    shelf = SessionCache()
    shelf.lay(key_of({}), session)
    with psycopg.connect(aurora_cluster.plain_conninfo(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (session.backend_pid,))
    ended, deadline = sockets.end_of(session.socket), time.monotonic() + PATIENCE
    while not ended():
        assert time.monotonic() < deadline
    assert shelf.take({}) is None
    assert session.status == psycopg.pq.ConnStatus.BAD


def test_a_session_in_the_middle_of_something_is_not_given(session):
    shelf = SessionCache()
    session.exec_(b"BEGIN")
    shelf.lay(key_of({}), session)
    assert shelf.take({}) is None


def test_the_child_of_a_fork_takes_nothing_and_closes_nothing(session):
    shelf = SessionCache()
    shelf.lay(key_of({}), session)
    shelf.reset()
    assert shelf.take({}) is None
    assert session.status == psycopg.pq.ConnStatus.OK


@pytest.fixture
def taken(monkeypatch):
    """Process ids of the servers behind the sessions that users took."""
    pids = []
    take = session_cache.SESSIONS.take

    def watched(params):
        session = take(params)
        if session is not None:
            pids.append(session.backend_pid)
        return session

    monkeypatch.setattr(session_cache.SESSIONS, "take", watched)
    return pids


def test_the_first_after_a_failover_gets_it_and_it_is_like_any_other(aurora_cluster_factory, taken):
    cluster = aurora_cluster_factory(readers=1)
    held = aurora_router.connect(cluster.conninfo(), autocommit=True, row_factory=psycopg.rows.dict_row)
    held.execute("CREATE TABLE ledger (n int)")
    fresh = settings(held)
    old = held.placement.instance
    cluster.kill(old)
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            held.execute("INSERT INTO ledger VALUES (1)")
    held.close()
    with aurora_router.connect(cluster.conninfo(), row_factory=psycopg.rows.dict_row) as conn:
        assert taken == [conn.info.backend_pid]
        assert (conn.placement.instance != old, conn.placement.current, conn.autocommit) == (True, True, False)
        conn.execute("INSERT INTO ledger VALUES (2)")
        conn.commit()
        assert settings(conn) == fresh
        assert conn.execute("SELECT count(*) AS n FROM pg_prepared_statements").fetchone() == {"n": 0}
        with aurora_router.connect(cluster.conninfo()) as second:
            assert second.info.backend_pid != conn.info.backend_pid


def settings(conn):
    rows = conn.execute("SELECT name, setting FROM pg_settings WHERE source IN ('client', 'session')").fetchall()
    return {row["name"]: row["setting"] for row in rows}


async def test_an_async_one_gets_it_too(aurora_cluster_factory, taken):
    cluster = aurora_cluster_factory(readers=1)
    async with await aurora_router.AsyncConnection.connect(cluster.conninfo(), autocommit=True) as held:
        await held.execute("CREATE TABLE ledger (n int)")
        cluster.kill(held.placement.instance)
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                await held.execute("INSERT INTO ledger VALUES (1)")
    async with await aurora_router.AsyncConnection.connect(cluster.conninfo(), autocommit=True) as conn:
        assert taken == [conn.info.backend_pid]
        await conn.execute("INSERT INTO ledger VALUES (2)")
        notified = conn.notifies(timeout=10)
        await conn.execute("LISTEN here")
        await conn.execute("NOTIFY here")
        assert (await anext(notified)).channel == "here"
        await notified.aclose()
