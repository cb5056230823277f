"""A resolver that asks another database, or another witness table, than the one that the transaction wrote to."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import psycopg
import psycopg_pool
import pytest

import aurora_router
from aurora_router import CommitOutcomeUnknown, CommitToken, InvalidOption, Outcome
from aurora_router.flow import commit_sql
from aurora_router.pool import AsyncConnectionPool, ConnectionPool

from .relay import Cut
from .test_cut_off import prepare

pytestmark = [pytest.mark.cluster, pytest.mark.case]

INSERT = "insert into public.ledger values (1)"


@pytest.fixture(scope="module")
def pair(make_module_pair):
    """A pair with two databases, `app` and `other`, both prepared in the same way."""
    pair = make_module_pair()
    prepare(pair, "witness")
    pair.run("create database other")
    with other(pair) as connection:
        for statement in ("create table public.ledger (n int)", "grant all on public.ledger to app"):
            connection.execute(statement)
        connection.pgconn.exec_(commit_sql.INSTALL.encode())
    return pair


@contextlib.contextmanager
def other(pair):
    with psycopg.connect(
        host=str(pair.one.home), port=pair.one.port, user="postgres", dbname="other", autocommit=True
    ) as connection:
        connection.execute("set search_path to public")
        yield connection


@pytest.fixture(autouse=True)
def empty(pair):
    with other(pair) as connection:
        connection.execute("truncate ledger")


def rows(pair):
    with other(pair) as connection:
        return connection.execute("select count(*) from ledger").fetchone()[0]


def stock(pair):
    """psycopg's own pool and connections: it is not known where they lead."""
    relay = pair.relays[pair.one].port
    conninfo = f"host=127.0.0.1 port={relay} user=app password=app dbname=other sslmode=disable"
    return psycopg_pool.ConnectionPool(conninfo, min_size=1, max_size=2, open=True)


@pytest.mark.parametrize("cut", [Cut.BEFORE_SEND, Cut.AFTER_SEND, Cut.AFTER_ACK], ids=lambda cut: cut.name)
def test_a_pool_that_leads_elsewhere_is_never_misjudged(pair, cut):
    """The COMMIT is cut off, and looked for in another database: the work is not run again."""
    calls = []

    def work(connection):
        calls.append(1)
        connection.execute(INSERT)

    router = aurora_router.Router(pair.conninfo(aurora_outcome="witness", aurora_failover_timeout=5))
    with stock(pair) as pool:
        pair.relays[pair.one].arm(cut)
        with pytest.raises(CommitOutcomeUnknown, match="in the database other, and another one was asked") as raised:
            router.run_transaction(work, pool=pool)
    right = aurora_router.Router(pair.conninfo(dbname="other"))
    assert right.outcome_of(raised.value) is (Outcome.NOT_COMMITTED if cut is Cut.BEFORE_SEND else Outcome.COMMITTED)
    assert len(calls) == 1
    assert rows(pair) == (0 if cut is Cut.BEFORE_SEND else 1)


def test_a_pool_of_ours_that_leads_elsewhere_is_refused(pair):
    router = aurora_router.Router(pair.conninfo())
    with ConnectionPool(pair.conninfo(dbname="other"), min_size=1, max_size=1, open=True) as pool:
        for _ in range(3):
            with pytest.raises(InvalidOption, match="lead to the database other, and this router to app"):
                router.run_transaction(lambda connection: connection.execute(INSERT), pool=pool)
        assert pool.get_stats()["pool_available"] == 1
    assert rows(pair) == 0


async def test_on_asyncio(pair):
    async def work(connection):
        await connection.execute(INSERT)

    router = aurora_router.AsyncRouter(pair.conninfo())
    async with AsyncConnectionPool(pair.conninfo(dbname="other"), min_size=1, max_size=1, open=False) as pool:
        with pytest.raises(InvalidOption, match="lead to the database other"):
            await router.run_transaction(work, pool=pool)
    assert rows(pair) == 0


def committed(pair):
    """The token of a transaction that committed in `other`."""
    tokens = []
    router = aurora_router.Router(pair.conninfo(dbname="other", aurora_outcome="witness"))
    router.run_transaction(lambda connection: connection.execute(INSERT), on_token=tokens.append)
    return tokens[0]


def test_outcome_of_in_another_database(pair):
    token = CommitToken.parse(str(committed(pair)))
    asked = aurora_router.Router(pair.conninfo(aurora_failover_timeout=5)).finding_of(token)
    assert asked.outcome is Outcome.UNKNOWN
    assert "dbname" in asked.reason
    right = aurora_router.Router(pair.conninfo(dbname="other"))
    assert right.outcome_of(token) is Outcome.COMMITTED
    assert right.outcome_of(replace(token, witness_table=replace(token.witness_table, system="1"))) is Outcome.UNKNOWN


def test_the_log_way_needs_no_database(pair):
    """Transaction ids are the cluster's: any of its databases can be asked."""
    tokens = []
    router = aurora_router.Router(pair.conninfo(dbname="other", aurora_outcome="log"))
    router.run_transaction(lambda connection: connection.execute(INSERT), on_token=tokens.append)
    assert aurora_router.Router(pair.conninfo()).outcome_of(tokens[0]) is Outcome.COMMITTED


def test_a_table_that_was_installed_again(pair):
    token = committed(pair)
    with other(pair) as connection:
        connection.pgconn.exec_(commit_sql.UNINSTALL.encode())
        connection.pgconn.exec_(commit_sql.INSTALL.encode())
    found = aurora_router.Router(pair.conninfo(dbname="other")).finding_of(token)
    assert found.outcome is Outcome.UNKNOWN
    assert "installed again" in found.reason


def test_a_server_that_does_not_give_its_system_identifier(pair):
    """The permission may be revoked; Aurora is free not to offer the function: the rest of the token has to do."""
    with other(pair) as connection:
        connection.execute("revoke execute on function pg_control_system() from public")
    try:
        token = committed(pair)
        assert token.witness_table.system is None
        assert aurora_router.Router(pair.conninfo(dbname="other")).outcome_of(token) is Outcome.COMMITTED
        assert aurora_router.Router(pair.conninfo()).outcome_of(token) is Outcome.UNKNOWN
    finally:
        with other(pair) as connection:
            connection.execute("grant execute on function pg_control_system() to public")
