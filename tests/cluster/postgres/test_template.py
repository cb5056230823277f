from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import psycopg
import pytest

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import cache, template

if TYPE_CHECKING:
    from aurora_router_cluster.postgres.engine import Engine

pytestmark = pytest.mark.cluster


@pytest.fixture
async def engine(make_engine, template) -> Engine:
    engine = make_engine("demo-1")
    await engine.clone(template)
    engine.configure({}, standby=False)
    row = {"server_id": "demo-1", "writer": True, "session": "s1", "durable_lsn": 7, "cpu": 1.5}
    other = {"server_id": "demo-2", "writer": True, "session": "s2", "last_update_timestamp": "2026-01-01T00:00:00Z"}
    engine.write_status([row, other])
    engine.start()
    await engine.wait()
    return engine


def connect(engine, dbname, user="postgres"):
    return psycopg.connect(host=str(engine.home), port=engine.port, user=user, dbname=dbname, password="app",
                           autocommit=True)  # fmt: skip


@pytest.mark.parametrize("dbname", ["postgres", "template1", "app"])
async def test_the_surface_is_there_in_every_database_for_a_plain_user(engine, dbname):
    with connect(engine, dbname, "app") as connection:
        identifier = "select pg_catalog.aurora_db_instance_identifier(), pg_catalog.aurora_version()"
        assert connection.execute(identifier).fetchone() == ("demo-1", engine.binaries.version)
        cursor = connection.execute("select * from pg_catalog.aurora_replica_status()")
        assert len(cursor.description) == 22
        assert len(cursor.fetchall()) == 2
        setting = "select setting from pg_catalog.pg_settings where name = 'rds.extensions'"
        assert "aurora_stat_utils" in connection.execute(setting).fetchone()[0]


@pytest.mark.parametrize("source", ["template0", "template1"])
async def test_databases_created_later_have_it_too(engine, source):
    with connect(engine, "postgres") as connection:
        connection.execute(f"create database later template {source}")
    with connect(engine, "later") as connection:
        assert connection.execute("select aurora_db_instance_identifier()").fetchone() == ("demo-1",)


async def test_an_instance_believes_itself_and_no_other_claim(engine):
    query = "select server_id, session_id, last_update_timestamp is null from aurora_replica_status() order by 1"
    with connect(engine, "app") as connection:
        rows = connection.execute(query).fetchall()
    assert rows == [("demo-1", "MASTER_SESSION_ID", True), ("demo-2", "s2", False)]


async def test_an_instance_shows_its_own_position_of_now(engine):
    """The status file says 7, of some moment before."""
    ahead = "durable_lsn - (pg_current_wal_flush_lsn() - '0/0')"
    query = f"select {ahead} from aurora_replica_status() where server_id = 'demo-1'"
    with connect(engine, "app") as connection:
        connection.execute("create table moved as select generate_series(1, 100)")
        assert connection.execute(query).fetchone() == (0,)


async def test_pg_settings_keeps_working(engine):
    with connect(engine, "app", "app") as connection:
        connection.execute("update pg_settings set setting = '7s' where name = 'statement_timeout'")
        assert connection.execute("show statement_timeout").fetchone() == ("7s",)
        wal_level = "select setting, unit, pending_restart from pg_settings where name = 'wal_level'"
        assert connection.execute(wal_level).fetchone() == ("replica", None, False)


async def test_a_search_path_trick_does_not_reach_the_functions(engine):
    with connect(engine, "app", "app") as connection:
        connection.execute("create schema evil")
        connection.execute("create function evil.pg_is_in_recovery() returns boolean language sql as 'select true'")
        connection.execute("set search_path = evil, pg_catalog")
        session = "select session_id from pg_catalog.aurora_replica_status() where server_id = 'demo-1'"
        assert connection.execute(session).fetchone() == ("MASTER_SESSION_ID",)


async def test_the_user_owns_the_database_and_may_not_read_files(engine):
    with connect(engine, "app", "app") as connection:
        connection.execute("create table mine (i int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select pg_read_file('aurora_status.json')")


async def test_a_wrong_password_is_refused(engine):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=str(engine.home), port=engine.port, user="app", dbname="app", password="wrong")


def test_the_log_of_a_template_starts_in_its_only_segment(template, binaries, account):
    from aurora_router_cluster.postgres import template as module

    segments = [path.name for path in (template / "pg_wal").iterdir() if len(path.name) == 24]
    facts = module.control_data(binaries, account, template)
    assert segments == [facts["Latest checkpoint's REDO WAL file"]]
    assert facts["Database cluster state"] == "shut down"


def test_control_data_of_something_else_says_so(binaries, account, run_directory):
    with pytest.raises(EngineError, match="pg_controldata fails"):
        template.control_data(binaries, account, run_directory)


def _ensure(binaries, account, results):
    results.put(template.ensure(binaries, account))


def test_two_processes_at_once_build_it_once(binaries, account, run_directory, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(run_directory / "cache"))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_ensure, args=(binaries, account, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    places = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    results.close()
    results.join_thread()
    assert len(places) == 1
    assert (places.pop() / "PG_VERSION").exists()
    assert not list((run_directory / "cache" / "templates").glob(".*build*"))
