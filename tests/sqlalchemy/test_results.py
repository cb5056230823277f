"""Server-side cursors, type adaptation, events and errors: as with the stock dialect."""

from __future__ import annotations

import json
import logging
from decimal import Decimal

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

pytestmark = pytest.mark.cluster

SERIES = sa.text("select generate_series(1, 1000) as n")


@pytest.mark.parametrize(
    ("options", "cursors"), [({}, 0), ({"stream_results": True}, 1), ({"yield_per": 100}, 1)], ids=str
)
def test_server_side_cursors_are_used_when_asked_for(kind, options, cursors):
    def check(engine):
        with engine.connect() as connection:
            result = connection.execute(SERIES, execution_options=options)
            assert result.fetchone() == (1,)
            declared = sa.text("select count(*) from pg_cursors where statement like '%generate_series%'")
            assert connection.execute(declared).scalar_one() == cursors
            assert result.scalars().all() == list(range(2, 1001))

    kind.run(check)


def test_partitions_and_executemany(kind, table):
    numbers = sa.Table(table, sa.MetaData(), sa.Column("n", sa.Integer, primary_key=True), sa.Column("s", sa.Text))

    def check(engine):
        numbers.create(engine)
        with engine.begin() as connection:
            rows = [{"n": each, "s": str(each)} for each in range(1000)]
            connection.execute(numbers.insert(), rows)
            updated = connection.execute(numbers.update().where(numbers.c.n < 10).values(s="x"))
            assert updated.rowcount == 10
            streamed = connection.execution_options(yield_per=300).execute(sa.select(numbers.c.n).order_by("n"))
            assert [len(part) for part in streamed.partitions()] == [300, 300, 300, 100]

    kind.run(check)


VALUES = [
    (sa.JSON, {"a": [1, None, "ä"]}),
    (pg.JSONB, [{"b": True}]),
    (pg.ARRAY(sa.Integer), [1, 2, 3]),
    (pg.INT4RANGE, pg.Range(1, 10)),
    (pg.INT4MULTIRANGE, [pg.Range(1, 3), pg.Range(5, 9)]),
    (sa.Numeric(10, 2), Decimal("12.50")),
    (sa.LargeBinary, b"\x00\xff"),
    (sa.Boolean, True),
    (pg.UUID(as_uuid=False), "6f2b5a3e-4df2-4a0f-9d5c-0f7b1d3c2e1a"),
]


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=lambda each: getattr(each, "__name__", repr(each))[:30])
def test_values_there_and_back(kind, type_, value):
    def check(engine):
        with engine.connect() as connection:
            assert connection.scalar(sa.select(sa.cast(sa.literal(value, type_), type_))) == value

    kind.run(check)


def test_hstore_is_adapted_on_the_first_connection_and_on_later_ones(kind):
    value = {"a": "1", "b": None}

    def check(engine):
        with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                assert connection.scalar(sa.select(sa.literal(value, pg.HSTORE))) == value

    def prepare(engine):
        with engine.begin() as connection:
            connection.exec_driver_sql("select pg_advisory_xact_lock(1)")
            connection.exec_driver_sql("create extension if not exists hstore")

    kind.run(prepare)
    kind.run(check)


def test_json_by_functions_of_ones_own(kind):
    def check(engine):
        with engine.connect() as connection:
            assert connection.scalar(sa.select(sa.cast({"a": 1}, pg.JSONB))) == ("read", {"a": 1, "written": True})

    kind.run(
        check,
        json_serializer=lambda value: json.dumps({**value, "written": True}),
        json_deserializer=lambda text: ("read", json.loads(text)),
    )


def test_inet_as_text_when_asked_for(kind):
    def check(engine):
        with engine.connect() as connection:
            assert connection.exec_driver_sql("select '10.0.0.1'::inet").scalar_one() == "10.0.0.1"

    kind.run(check, native_inet_types=False)


def test_orm(kind, table):
    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = table
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    def check(engine):
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add_all([Account(name=name) for name in "abc"])
        with Session(engine) as session:
            assert session.scalars(sa.select(Account.name).order_by(Account.id)).all() == ["a", "b", "c"]
        columns = sa.inspect(engine).get_columns(table)
        assert [each["name"] for each in columns] == ["id", "name"]

    kind.run(check)


def test_events_and_notices(kind, caplog):
    caplog.set_level(logging.INFO, logger="sqlalchemy.dialects.postgresql")
    connected = []

    def check(engine):
        event.listen(engine, "connect", lambda connection, record: connected.append(connection))
        with engine.connect() as connection:
            connection.exec_driver_sql("do $$ begin raise notice 'look here'; end $$")

    kind.run(check)
    assert len(connected) == 1
    assert "NOTICE: look here" in [record.getMessage() for record in caplog.records]


def test_do_connect_listeners_see_and_change_the_parameters(kind):
    def check(engine):
        @event.listens_for(engine, "do_connect")
        def named(dialect, record, cargs, cparams):
            cparams["application_name"] = "by_the_listener"

        with engine.connect() as connection:
            assert connection.exec_driver_sql("show application_name").scalar_one() == "by_the_listener"

    kind.run(check)


ERRORS = [
    ("select * from no_such_table", exc.ProgrammingError, psycopg.errors.UndefinedTable),
    ("select 1/0", exc.DataError, psycopg.errors.DivisionByZero),
    ("selec", exc.ProgrammingError, psycopg.errors.SyntaxError),
    (
        "create temp table u (n int primary key); insert into u values (1), (1)",
        exc.IntegrityError,
        psycopg.errors.UniqueViolation,
    ),
]


@pytest.mark.parametrize(("statement", "outer", "inner"), ERRORS, ids=lambda each: getattr(each, "__name__", ""))
def test_errors_are_the_drivers_wrapped_as_ever(kind, statement, outer, inner):
    def check(engine):
        with engine.connect() as connection:
            with pytest.raises(outer) as caught:
                connection.exec_driver_sql(statement)
            assert type(caught.value.orig) is inner
            assert not caught.value.connection_invalidated

    kind.run(check)


def kill_own_backend(connection):
    connection.exec_driver_sql("select pg_terminate_backend(pg_backend_pid())")


def test_a_lost_connection_is_noticed_and_replaced(kind):
    def check(engine):
        with engine.connect() as connection, pytest.raises(exc.OperationalError) as caught:
            kill_own_backend(connection)
        assert caught.value.connection_invalidated
        with engine.connect() as connection:
            assert connection.exec_driver_sql("select 1").scalar_one() == 1

    kind.run(check, pool_size=1, max_overflow=0)


def test_pre_ping_replaces_what_died_in_the_pool(kind):
    def check(engine):
        with engine.connect() as idle:
            pid = idle.exec_driver_sql("select pg_backend_pid()").scalar_one()
            with engine.connect() as other:
                idle.rollback()
                idle.close()
                gone = sa.text("select pg_terminate_backend(:pid, 5000)")
                assert other.execute(gone, {"pid": pid}).scalar_one()
        with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                assert connection.exec_driver_sql("select pg_backend_pid()").scalar_one() != pid

    kind.run(check, pool_pre_ping=True, pool_size=2, max_overflow=0)
