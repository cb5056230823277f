"""What drivers that wrap the driver get wrong: each thing holds here as on stock psycopg (engines: the sync one)."""

from __future__ import annotations

import asyncio
import secrets

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from psycopg.types import TypeInfo
from sqlalchemy.ext.asyncio import create_async_engine

import aurora_router

pytestmark = pytest.mark.cluster

LEVELS = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.fixture(params=["stock", "ours"])
def source(request, aurora_cluster):
    """A conninfo, the class to connect by and the URL, for stock psycopg and for ours."""
    if request.param == "ours":
        return aurora_cluster.conninfo(), aurora_router.Connection, aurora_cluster.url()
    return aurora_cluster.plain_conninfo(), psycopg.Connection, aurora_cluster.url(driver="postgresql+psycopg")


@pytest.fixture
def conn(source):
    with source[1].connect(source[0]) as conn:
        yield conn


@pytest.fixture
def table(source):
    """A table's name; a test that holds a connection of `conn` names that fixture after this one."""
    name = f"trap_{secrets.token_hex(6)}"
    with source[1].connect(source[0]) as c:
        c.execute(f"create table {name} (id int primary key)")
    yield name
    with source[1].connect(source[0], autocommit=True) as c:
        c.execute(f"drop table {name}")


def level_of(connection):
    return connection.exec_driver_sql("show transaction_isolation").scalar_one().upper()


@pytest.mark.parametrize("level", LEVELS)
def test_isolation_level_by_engine_and_by_execution_option(source, level):
    by_engine = sa.create_engine(source[2], isolation_level=level)
    by_option = sa.create_engine(source[2])
    try:
        with by_engine.connect() as connection:
            assert level_of(connection) == level
        with by_option.connect().execution_options(isolation_level=level) as connection:
            assert level_of(connection) == level
        with by_option.connect() as connection:
            assert level_of(connection) == "READ COMMITTED"
    finally:
        by_engine.dispose()
        by_option.dispose()


def test_autocommit_by_execution_option(source):
    engine = sa.create_engine(source[2])
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            raw = connection.connection.driver_connection
            connection.exec_driver_sql("select 1")
            assert raw.autocommit
            assert raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with engine.connect() as connection:
            assert not connection.connection.driver_connection.autocommit
    finally:
        engine.dispose()


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
def test_isolation_level_by_attribute(conn, level):
    conn.isolation_level = level
    assert conn.isolation_level is level
    (shown,) = conn.execute("show transaction_isolation").fetchone()
    assert shown.upper().replace(" ", "_") == level.name


def test_row_factory_by_attribute_and_by_keyword(source, conn):
    conn.row_factory = dict_row
    assert conn.execute("select 1 as one").fetchone() == {"one": 1}
    with source[1].connect(source[0], row_factory=dict_row) as other:
        assert other.execute("select 2 as two").fetchone() == {"two": 2}


def test_autocommit_by_attribute(conn):
    conn.autocommit = True
    conn.execute("select 1")
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_with_commits_rolls_back_on_an_error_and_closes(source, table):
    with source[1].connect(source[0]) as conn:
        conn.execute(f"insert into {table} values (1)")
    assert conn.closed
    with pytest.raises(ZeroDivisionError), source[1].connect(source[0]) as conn:  # noqa: PT012 - the block is what is tested
        conn.execute(f"insert into {table} values (2)")
        raise ZeroDivisionError
    assert conn.closed
    with source[1].connect(source[0]) as conn:
        assert conn.execute(f"select id from {table}").fetchall() == [(1,)]


def test_a_violation_is_caught_by_its_own_class(table, conn):
    conn.execute(f"insert into {table} values (1)")
    with pytest.raises(psycopg.errors.UniqueViolation) as caught, conn.transaction():
        conn.execute(f"insert into {table} values (1)")
    assert type(caught.value) is psycopg.errors.UniqueViolation
    assert isinstance(caught.value, conn.IntegrityError)
    assert caught.value.diag.constraint_name == f"{table}_pkey"


def test_sqlalchemy_raises_its_integrity_error(source, table):
    engine = sa.create_engine(source[2])
    try:
        with pytest.raises(sa.exc.IntegrityError) as caught, engine.begin() as connection:
            connection.exec_driver_sql(f"insert into {table} values (1), (1)")
        assert type(caught.value.orig) is psycopg.errors.UniqueViolation
    finally:
        engine.dispose()


def test_what_comes_out_is_an_instance_of_the_drivers_classes(conn):
    assert isinstance(conn, psycopg.Connection)
    assert type(conn.cursor()) is psycopg.Cursor
    with conn.cursor("named") as named:
        assert type(named) is psycopg.ServerCursor
    assert type(conn.info) is psycopg.ConnectionInfo


def test_a_type_is_fetched_and_registered(conn):
    info = TypeInfo.fetch(conn, "text")
    assert (info.name, info.oid) == ("text", 25)
    info.register(conn)


def test_two_clusters_in_one_process_are_kept_apart(aurora_cluster_factory):
    one, two = (aurora_cluster_factory(name=f"trap{n}-{secrets.token_hex(3)}", readers=0) for n in (1, 2))
    for cluster in (one, two, one, two):
        with aurora_router.connect(cluster.conninfo()) as conn:
            assert conn.placement.instance == cluster.writer
            assert set(conn.placement.view.instances) == {each.name for each in cluster.instances}


@pytest.mark.parametrize("spelt", [str.upper, lambda host: f"{host}.", lambda host: f"{host.upper()}."])
def test_a_host_name_may_be_in_upper_case_and_end_with_a_dot(aurora_cluster, spelt):
    conninfo = aurora_cluster.conninfo("writer", host=spelt(aurora_cluster.endpoint()))
    with aurora_router.connect(conninfo) as conn:
        assert conn.placement.instance == aurora_cluster.writer
        assert conn.execute("select 1").fetchone() == (1,)


def test_an_async_engine_works_and_its_first_statement_too(source):
    async def check():
        engine = create_async_engine(source[2])
        try:
            async with engine.connect() as connection:
                first = (await connection.exec_driver_sql("select 1")).scalar_one()
                raw = (await connection.get_raw_connection()).driver_connection
            return first, isinstance(raw, psycopg.AsyncConnection)
        finally:
            await engine.dispose()

    assert asyncio.run(check()) == (1, True)
