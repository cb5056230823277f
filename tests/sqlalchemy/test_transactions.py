"""Isolation levels, read-only, deferrable, two-phase: as with the stock dialect."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

pytestmark = pytest.mark.cluster

LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


def shown(connection, setting):
    return connection.exec_driver_sql(f"show {setting}").scalar_one()


@pytest.mark.parametrize("level", LEVELS)
def test_isolation_level_of_the_engine(kind, level):
    def check(engine):
        with engine.connect() as connection:
            assert connection.get_isolation_level() == level
            assert shown(connection, "transaction_isolation") == level.lower()
            assert connection.connection.driver_connection.isolation_level.name == level.replace(" ", "_")

    kind.run(check, isolation_level=level)


@pytest.mark.parametrize("level", LEVELS)
def test_isolation_level_by_execution_option_ends_with_the_checkout(kind, level):
    def check(engine):
        with engine.connect().execution_options(isolation_level=level) as connection:
            assert shown(connection, "transaction_isolation") == level.lower()
            pid = connection.exec_driver_sql("select pg_backend_pid()").scalar_one()
        with engine.connect() as connection:
            assert connection.exec_driver_sql("select pg_backend_pid()").scalar_one() == pid
            assert shown(connection, "transaction_isolation") == "read committed"
        with engine.execution_options(isolation_level=level).connect() as connection:
            assert shown(connection, "transaction_isolation") == level.lower()

    kind.run(check, pool_size=1, max_overflow=0)


def test_autocommit(kind, table):
    def check(engine):
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"create table {table} (n int)")
            assert connection.connection.driver_connection.autocommit
            connection.rollback()
        with engine.connect() as connection:
            assert not connection.connection.driver_connection.autocommit
            assert connection.exec_driver_sql(f"select count(*) from {table}").scalar_one() == 0

    kind.run(check)


def test_unknown_isolation_level_is_refused(kind):
    def check(engine):
        with pytest.raises(exc.ArgumentError, match="Invalid value 'CHAOS' for isolation_level"), engine.connect():
            pass

    kind.run(check, isolation_level="CHAOS")


def test_readonly_and_deferrable_end_with_the_checkout(kind, table):
    def check(engine):
        options = {
            "isolation_level": "SERIALIZABLE",
            "postgresql_readonly": True,
            "postgresql_deferrable": True,
        }
        with engine.connect().execution_options(**options) as connection:
            assert shown(connection, "transaction_read_only") == "on"
            assert shown(connection, "transaction_deferrable") == "on"
            with pytest.raises(exc.InternalError) as caught:
                connection.exec_driver_sql(f"create table {table} (n int)")
            assert isinstance(caught.value.orig, psycopg.errors.ReadOnlySqlTransaction)
        with engine.connect() as connection:
            assert shown(connection, "transaction_read_only") == "off"
            assert shown(connection, "transaction_deferrable") == "off"

    kind.run(check, pool_size=1, max_overflow=0)


def test_savepoints(kind, table):
    def check(engine):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"create table {table} (n int primary key)")
            connection.exec_driver_sql(f"insert into {table} values (1)")
            with pytest.raises(exc.IntegrityError), connection.begin_nested():
                connection.exec_driver_sql(f"insert into {table} values (1)")
            connection.exec_driver_sql(f"insert into {table} values (2)")
        with engine.connect() as connection:
            assert connection.exec_driver_sql(f"select sum(n) from {table}").scalar_one() == 3

    kind.run(check)


def test_two_phase_commit_and_rollback(kind, table):
    def insert(connection, number):
        transaction = connection.begin_twophase()
        connection.execute(sa.text(f"insert into {table} values (:n)"), {"n": number})
        transaction.prepare()
        return transaction

    def check(engine):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"create table {table} (n int)")
        with engine.connect() as connection, engine.connect() as other:
            kept = insert(connection, 1)
            assert kept.xid in other.recover_twophase()
            kept.commit()
            lost = insert(connection, 2)
            lost.rollback()
            assert {kept.xid, lost.xid}.isdisjoint(other.recover_twophase())
            assert connection.exec_driver_sql(f"select array_agg(n) from {table}").scalar_one() == [1]

    kind.run(check)


def test_the_pool_rolls_back_what_was_not_committed(kind, table):
    def check(engine):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"create table {table} (n int)")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"insert into {table} values (1)")
        with engine.connect() as connection:
            assert connection.exec_driver_sql(f"select count(*) from {table}").scalar_one() == 0

    kind.run(check, pool_size=1, max_overflow=0)
