"""The monitor's own sessions: named, few, and in no user's way."""

from __future__ import annotations

import time

import psycopg
import pytest

import aurora_router
from aurora_router.runtime.monitor_runtime import SESSION_NAME, ThreadMonitorRuntime
from aurora_router_cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.case]

PATIENCE = 30.0
LIST = "SELECT datname, application_name FROM pg_stat_activity WHERE application_name LIKE %s"


@pytest.fixture(scope="module")
def still():
    """A cluster that does nothing by itself."""
    with LocalCluster.start(readers=1, auto=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def admin(still):
    """A superuser's session with the writer."""
    place = still.instance(still.writer)
    where = f"host={place.socket_directory} port={place.port} user=postgres dbname=postgres"
    with psycopg.connect(where, autocommit=True) as connection:
        yield connection


@pytest.fixture
def dialled(monkeypatch):
    """The targets of the monitor's dials."""
    targets, original = [], ThreadMonitorRuntime._open_one

    async def counted(runtime, target, *rest, **named):
        targets.append(target.name)
        return await original(runtime, target, *rest, **named)

    monkeypatch.setattr(ThreadMonitorRuntime, "_open_one", counted)
    return targets


def sessions(admin):
    return admin.execute(LIST, [f"{SESSION_NAME}%"]).fetchall()


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def pinged(still, admin, **options):
    """A connection whose long statements made the monitor open a session."""
    conn = aurora_router.connect(still.conninfo(aurora_hang_grace=0.2, **options), autocommit=True)

    def suspected():
        conn.execute("SELECT pg_sleep(0.5)")  # again and again: a starved monitor suspects no instance
        return sessions(admin)

    until(suspected, "the monitor has a session")
    return conn


def test_a_session_is_named_and_the_only_one_of_its_instance(still, admin):
    with pinged(still, admin, application_name="shop") as conn:
        assert sessions(admin) == [(conn.info.dbname, f"{SESSION_NAME} (shop)")]
        conn.placement._cluster.suspect_writer("a test", time.monotonic())
        until(lambda: conn.placement._cluster.suspected_at is None, "the suspicion is over")
        assert len(sessions(admin)) <= 1


def test_no_session_is_left_in_a_database_that_nobody_uses(still, admin):
    """DROP DATABASE and ALTER DATABASE RENAME wait for all others to leave, for five seconds."""
    admin.execute("DROP DATABASE IF EXISTS tenant")
    admin.execute(f"CREATE DATABASE tenant OWNER {still.user}")
    with aurora_router.connect(still.conninfo()):  # the monitor goes on
        pinged(still, admin, dbname="tenant").close()
        began = time.monotonic()
        until(lambda: not [name for name, _ in sessions(admin) if name == "tenant"], "the session was closed")
        assert time.monotonic() - began < 5.0, "before PostgreSQL gives up"
        admin.execute("ALTER DATABASE tenant RENAME TO lodger")
        admin.execute("DROP DATABASE lodger")


def test_short_connections_make_the_monitor_open_next_to_none(still, dialled):
    for _ in range(100):
        with aurora_router.connect(still.conninfo()) as conn:
            conn.execute("SELECT 1")
    assert len(dialled) == len(set(dialled)), dialled


def test_the_last_place_is_a_users(still, admin):
    with pinged(still, admin):
        used = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [still.user]).fetchone()[0]
        admin.execute(f"ALTER ROLE {still.user} CONNECTION LIMIT {used}")
        try:
            with aurora_router.connect(still.conninfo(aurora_failover_timeout=0)) as second:
                assert second.execute("SELECT 1").fetchone() == (1,)
        finally:
            admin.execute(f"ALTER ROLE {still.user} CONNECTION LIMIT -1")
