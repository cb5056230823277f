"""What is handed out equals what the stock dialect hands out, side by side."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

import aurora_router

pytestmark = pytest.mark.cluster


def session_of(engine):
    """All that a server knows of a session that may differ from one to another."""
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
        connection.rollback()
        idle = connection.connection.driver_connection.info.transaction_status
        query = "select name, setting from pg_settings where source in ('client', 'session') order by 1"
        settings = [tuple(row) for row in connection.exec_driver_sql(query)]
        prepared = connection.exec_driver_sql("select count(*) from pg_prepared_statements").scalar_one()
    return idle, settings, prepared


def dialect_of(engine):
    """What the dialect found out from its first connection."""
    with engine.connect():
        dialect = engine.dialect
    names = (
        "name",
        "driver",
        "server_version_info",
        "default_schema_name",
        "default_isolation_level",
        "_has_native_hstore",
        "_backslash_escapes",
        "insert_executemany_returning",
        "supports_server_side_cursors",
        "is_async",
    )
    return {name: getattr(dialect, name) for name in names}, type(engine.pool)


@pytest.mark.parametrize("told", [session_of, dialect_of])
def test_the_same_as_stock(ours, stock_of, told):
    assert ours.run(told) == stock_of(ours).run(told)


def test_the_connection_is_of_the_drivers_class_and_ours(ours):
    def check(engine):
        with engine.connect() as connection:
            return connection.connection.driver_connection

    made = ours.run(check)
    assert isinstance(made, psycopg.AsyncConnection if ours.is_async else psycopg.Connection)
    assert isinstance(made, aurora_router.AsyncConnection if ours.is_async else aurora_router.Connection)
    assert made.closed


@pytest.mark.parametrize("name", ["postgresql+aurora", "postgresql+aurora_async"])
def test_the_dialects_are_found_by_their_names(name):
    dialect = sa.make_url(f"{name}://").get_dialect()
    assert dialect.is_async is name.endswith("_async")
    assert dialect.get_async_dialect_cls(sa.make_url(f"{name}://")).is_async
    assert dialect.__dict__["supports_statement_cache"] is True
