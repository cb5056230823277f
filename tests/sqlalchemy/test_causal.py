"""Reads through an engine of readers that see what was written through an engine of the writer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import aurora_router
from aurora_router.flow import causal
from aurora_router_sqlalchemy import (
    causal_token,
    causal_token_async,
    connect_after,
    connect_after_async,
    run_transaction,
)
from benchmarks.causal import lagging_cluster
from tests.superuser import hold_replay

pytestmark = pytest.mark.cluster

PUT = sa.text("INSERT INTO public.pairs VALUES (-2, :n) ON CONFLICT (client) DO UPDATE SET n = excluded.n")
LOOK = sa.text("SELECT n, pg_is_in_recovery() FROM public.pairs WHERE client = -2")


@pytest.fixture(scope="module")
def cluster():
    with lagging_cluster("1 ms") as cluster:
        yield cluster


@pytest.fixture
def engines(cluster):
    """An engine of readers, and one of the writer."""
    made = [sa.create_engine(cluster.url(target)) for target in ("reader", "writer")]
    yield made
    for each in made:
        each.dispose()


def put(session, n):
    session.execute(PUT, {"n": n})


def test_a_read_after_a_token_sees_the_write(engines, cluster):
    readers, writer = engines
    n = time.time_ns()
    with hold_replay(cluster):
        with Session(writer) as session:
            put(session, n)
            session.commit()
            token = causal_token(session)
        with readers.connect() as connection:
            row = connection.execute(LOOK).one_or_none()
            assert row is None or row.n != n, "a read without a token is stale"
        with connect_after(readers, writer, token, timeout=0.1) as connection:
            assert connection.execute(LOOK).one() == (n, False)
    with connect_after(readers, writer, token, timeout=30) as connection:
        assert connection.execute(LOOK).one() == (n, True)
    assert (readers.pool.checkedout(), writer.pool.checkedout()) == (0, 0)


def test_a_token_that_is_not_trusted_is_not_waited_for(engines, cluster):
    readers, writer = engines
    with hold_replay(cluster):
        with writer.begin() as connection:
            put(connection, 11)
        token = aurora_router.CausalToken.parse(str(causal_token(writer)))
        began = time.monotonic()
        with connect_after(readers, writer, token, timeout=600) as connection:
            assert connection.execute(LOOK).one() == (11, False)
    assert time.monotonic() - began < 300


def test_an_engines_option_says_how_long_its_readers_are_waited_for(engines, cluster):
    _, writer = engines
    readers = sa.create_engine(cluster.url("reader", aurora_causal_wait=60))
    with ThreadPoolExecutor(1) as pool:
        with hold_replay(cluster):
            with writer.begin() as connection:
                put(connection, 12)
            made = pool.submit(connect_after, readers, writer, causal_token(writer))
            time.sleep(1)  # twice the default
        with made.result() as connection:
            assert connection.execute(LOOK).one() == (12, True)
    readers.dispose()


def test_a_transaction_gives_its_token(engines):
    readers, writer = engines
    tokens = []
    run_transaction(sessionmaker(writer), lambda session: put(session, 20), on_causal=tokens.append)
    with connect_after(readers, writer, tokens[0], timeout=30) as connection:
        assert connection.execute(LOOK).one() == (20, True)


def test_its_token_is_made_before_its_connection_returns_to_the_pool(engines, monkeypatch):
    """A session returns its connection when it has committed, and another thread may use it then."""
    _, writer = engines
    held, make_token = [], causal.make_token

    async def make(*args):
        held.append(writer.pool.checkedout())
        return await make_token(*args)

    monkeypatch.setattr(causal, "make_token", make)
    for source in (writer, sessionmaker(writer), Session(writer)):
        run_transaction(source, lambda subject: put(subject, 21), on_causal=lambda _: None)
    assert held == [1, 1, 1]
    assert writer.pool.checkedout() == 0


def test_a_token_of_another_cluster_is_refused_and_nothing_stays_open(engines):
    readers, writer = engines
    token = aurora_router.CausalToken.parse("1l.1.1.1")
    with pytest.raises(aurora_router.CausalTokenRejected, match="another cluster"):
        connect_after(readers, writer, token)
    assert (readers.pool.checkedout(), writer.pool.checkedout()) == (0, 0)


def test_what_has_no_token(engines, cluster):
    _, writer = engines
    with writer.begin() as connection:
        put(connection, 30)
        with pytest.raises(psycopg.ProgrammingError, match="commit or roll back"):
            causal_token(connection)
    stock = sa.create_engine(cluster.url(driver="postgresql+psycopg"))
    with pytest.raises(TypeError, match=r"postgresql\+aurora"):
        causal_token(stock)
    stock.dispose()


async def test_on_asyncio(cluster):
    readers, writer = (create_async_engine(cluster.url(target)) for target in ("reader", "writer"))
    try:
        async with AsyncSession(writer) as session:
            await session.execute(PUT, {"n": 40})
            await session.commit()
            token = await causal_token_async(session)
        async with connect_after_async(readers, writer, token, timeout=30) as connection:
            assert (await connection.execute(LOOK)).one() == (40, True)
        with hold_replay(cluster):
            async with writer.begin() as connection:
                await connection.execute(PUT, {"n": 41})
            token = await causal_token_async(writer)
            async with connect_after_async(readers, writer, token, timeout=0) as connection:
                assert (await connection.execute(LOOK)).one() == (41, False)
        with pytest.raises(aurora_router.CausalTokenRejected):
            async with connect_after_async(readers, writer, aurora_router.CausalToken.parse("1l.1.1.1")):
                pass
        assert readers.pool.checkedout() == writer.pool.checkedout() == 0
    finally:
        await readers.dispose()
        await writer.dispose()
