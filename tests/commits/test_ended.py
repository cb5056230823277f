"""Works that end their transaction themselves and then fail, on a real server: they are never run again."""

from __future__ import annotations

import asyncio

import psycopg
import psycopg_pool
import pytest

import aurora_router
from aurora_router import TransactionEnded
from aurora_router.pool import AsyncConnectionPool, ConnectionPool

from .relay import Cut
from .test_cut_off import prepare, rows

pytestmark = [pytest.mark.cluster, pytest.mark.case]

INSERT = "insert into public.ledger values (1)"


@pytest.fixture(scope="module")
def pair(make_module_pair):
    pair = make_module_pair()
    prepare(pair, "witness")
    return pair


@pytest.fixture(autouse=True)
def empty(pair):
    pair.run("truncate ledger")


def conflict():
    raise psycopg.errors.SerializationFailure("could not serialize access")


def by_method(connection):
    connection.execute(INSERT)
    connection.commit()
    conflict()


def by_statement(connection):
    connection.execute(INSERT)
    connection.execute("commit")
    conflict()


def by_statement_and_chain(connection):
    connection.execute(INSERT)
    connection.execute("commit and chain")
    connection.execute(INSERT)
    conflict()


def by_a_string_of_statements(connection):
    connection.execute(f"{INSERT}; commit; begin; {INSERT}")
    conflict()


def by_a_string_of_statements_that_fails(connection):
    connection.execute(f"{INSERT}; commit; begin; do $$ begin raise sqlstate '40001'; end $$")


def by_a_second_transaction(connection):
    connection.rollback()
    connection.execute(INSERT)
    connection.commit()
    conflict()


@pytest.mark.parametrize("way", ["log", "witness"])
@pytest.mark.parametrize(
    "work",
    [
        by_method,
        by_statement,
        by_statement_and_chain,
        by_a_string_of_statements,
        by_a_string_of_statements_that_fails,
        by_a_second_transaction,
    ],
)
def test_committed_by_the_work(pair, work, way):
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_outcome=way))
    with pytest.raises(TransactionEnded) as raised:
        router.run_transaction(work, on_token=tokens.append)
    assert raised.value.__cause__.sqlstate == "40001"
    assert (rows(pair), len(tokens)) == (1, 1)


@pytest.mark.parametrize("work", [by_method, by_statement, by_a_second_transaction])
def test_without_a_token(pair, work):
    with pytest.raises(TransactionEnded):
        aurora_router.Router(pair.conninfo(aurora_outcome="off")).run_transaction(work)
    assert rows(pair) == 1


@pytest.mark.parametrize("way", ["log", "witness", "off"])
def test_and_then_the_connection_is_lost(pair, way):
    def work(connection):
        connection.execute(INSERT)
        connection.commit()
        pair.run(f"select pg_terminate_backend({connection.info.backend_pid})")
        connection.execute("select 1")

    with pytest.raises(TransactionEnded):
        aurora_router.Router(pair.conninfo(aurora_outcome=way)).run_transaction(work)
    assert rows(pair) == 1


@pytest.mark.parametrize("way", ["log", "witness"])
@pytest.mark.parametrize("cut", [Cut.BEFORE_SEND, Cut.AFTER_ACK], ids=lambda cut: cut.name)
def test_a_commit_of_the_work_is_cut_off(pair, way, cut):
    """What was under way when the connection was lost is not known to be a COMMIT: the server is asked."""
    tokens = []

    def work(connection):
        connection.execute(INSERT)
        if len(tokens) == 1:
            connection.execute("COMMIT")
        return "done"

    pair.relays[pair.one].arm(cut)
    router = aurora_router.Router(pair.conninfo(aurora_outcome=way))
    if cut is Cut.BEFORE_SEND:
        assert router.run_transaction(work, on_token=tokens.append) == "done"
    else:
        with pytest.raises(TransactionEnded):
            router.run_transaction(work, on_token=tokens.append)
    assert rows(pair) == 1


def test_on_asyncio(pair):
    tokens = []

    async def work(connection):
        await connection.execute(INSERT)
        await connection.commit()
        conflict()

    router = aurora_router.AsyncRouter(pair.conninfo())
    with pytest.raises(TransactionEnded):
        asyncio.run(router.run_transaction(work, on_token=tokens.append))
    assert (rows(pair), len(tokens)) == (1, 1)


def test_a_lost_connection_that_committed_nothing_is_replaced(pair):
    tokens = []

    def work(connection):
        connection.execute(INSERT)
        if len(tokens) == 1:
            pair.run(f"select pg_terminate_backend({connection.info.backend_pid})")
            connection.execute("select 1")
        return "done"

    router = aurora_router.Router(pair.conninfo())
    assert router.run_transaction(work, on_token=tokens.append) == "done"
    assert (rows(pair), len(tokens)) == (1, 2)


def test_an_error_after_a_rollback_stays_what_it_is(pair):
    def work(connection):
        connection.execute(INSERT)
        connection.rollback()
        raise KeyError("mine")

    with pytest.raises(KeyError):
        aurora_router.Router(pair.conninfo()).run_transaction(work)
    assert rows(pair) == 0


def test_a_pipeline_that_is_left_open_commits_nothing(pair):
    """COMMIT cannot be sent by the simple protocol meanwhile."""

    left_open = []

    def work(connection):
        connection.execute(INSERT)
        left_open.append(connection.pipeline())
        left_open[0].__enter__()

    with pytest.raises(psycopg.Error):
        aurora_router.Router(pair.conninfo()).run_transaction(work)
    assert rows(pair) == 0


def test_a_copy_that_is_left_open_commits_nothing(pair):
    left_open = []

    def work(connection):
        connection.execute(INSERT)
        left_open.append(connection.cursor().copy("copy public.ledger from stdin"))
        left_open[0].__enter__()

    with pytest.raises(psycopg.Error):
        aurora_router.Router(pair.conninfo()).run_transaction(work)
    assert rows(pair) == 0


def test_a_constraint_that_fails_at_commit_is_the_works_error(pair):
    pair.run("create table if not exists once (n int unique deferrable initially deferred); grant all on once to app")
    with pytest.raises(psycopg.errors.UniqueViolation):
        aurora_router.Router(pair.conninfo()).run_transaction(lambda c: c.execute("insert into once values (1), (1)"))


def test_a_deferred_trigger_that_divides_by_zero_is_the_works_error(pair):
    pair.run(
        """create table if not exists divided (n int); grant all on divided to app;
        create or replace function divide() returns trigger language plpgsql as
          $$begin perform 1 / 0; return null; end$$;
        create constraint trigger divide after insert on divided deferrable initially deferred
          for each row execute function divide()"""
    )
    with pytest.raises(psycopg.errors.DivisionByZero):
        aurora_router.Router(pair.conninfo()).run_transaction(lambda c: c.execute("insert into divided values (1)"))


def test_a_forged_warning_costs_a_question_and_nothing_else(pair):
    tokens = []
    pair.run(
        """create table if not exists forged (n int); grant all on forged to app;
        create or replace function forge() returns trigger language plpgsql as
          $$begin raise warning 'canceling wait for synchronous replication'; return null; end$$;
        create constraint trigger forge after insert on forged deferrable initially deferred
          for each row execute function forge()"""
    )

    def work(connection):
        connection.execute("insert into forged values (1)")
        return "done"

    router = aurora_router.Router(pair.conninfo())
    assert router.run_transaction(work, on_token=tokens.append) == "done"
    assert len(tokens) == 1
    assert pair.value("select count(*) from forged") == 1


# ---------------------------------------------------------------- works that return the connection to its pool


@pytest.mark.skipif(psycopg.__version__ < "3.3", reason="close_returns with a class of one's own needs psycopg 3.3")
@pytest.mark.parametrize("is_taken", [False, True])
def test_a_work_that_closes_the_connection_of_a_pool(pair, is_taken):
    """It is not returned a second time: it may be another user's by then."""
    router = aurora_router.Router(pair.conninfo())
    with ConnectionPool(pair.conninfo(), min_size=1, max_size=1, close_returns=True, open=True) as pool:
        users = []

        def work(connection):
            connection.execute(INSERT)
            connection.close()
            if is_taken:
                users.append(pool.getconn(timeout=20))

        with pytest.raises(TransactionEnded):
            router.run_transaction(work, pool=pool)
        if is_taken:
            with pytest.raises(psycopg_pool.PoolTimeout):
                pool.getconn(timeout=0.2)
            pool.putconn(users[0])
        with pool.connection(timeout=20) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    assert rows(pair) == 0


@pytest.mark.skipif(psycopg.__version__ < "3.3", reason="close_returns with a class of one's own needs psycopg 3.3")
async def test_a_work_that_closes_the_connection_of_an_asyncio_pool(pair):
    router = aurora_router.AsyncRouter(pair.conninfo())
    async with AsyncConnectionPool(pair.conninfo(), min_size=1, close_returns=True, open=False) as pool:

        async def work(connection):
            await connection.execute(INSERT)
            await connection.close()

        with pytest.raises(TransactionEnded):
            await router.run_transaction(work, pool=pool)
    assert rows(pair) == 0
