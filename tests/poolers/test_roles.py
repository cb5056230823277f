"""A pooler remembers what a server reported at start-up: the role is asked for, and nothing is confirmed unasked."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

import aurora_router
from aurora_router.pool import AsyncConnectionPool, ConnectionPool
from tests.poolers.poolers import PgBouncer

pytestmark = [pytest.mark.cluster, pytest.mark.one_python, pytest.mark.usefixtures("pgbouncer")]

WHERE = "SELECT aurora_db_instance_identifier(), pg_is_in_recovery()"


class Pooled:
    """A cluster of which each instance is behind a PgBouncer of its own."""

    def __init__(self, cluster, running):
        self.cluster = cluster
        self.poolers = {
            each.name: running.enter_context(PgBouncer({"app": (each.host, each.port)}, pool_mode="transaction"))
            for each in cluster.instances
        }

    @property
    def parameters(self):
        hosts = ",".join(f"{name}=127.0.0.1:{pooler.port}" for name, pooler in self.poolers.items())
        options = {"aurora_instance_host": hosts, "aurora_role": "writer", "aurora_monitor": "off"}
        user = {"user": "app", "password": "app", "dbname": "app", "sslmode": "disable", "prepare_threshold": None}
        return {"host": "127.0.0.1", "port": self.poolers[self.cluster.writer].port, **user, **options}


@pytest.fixture
def pooled(aurora_cluster_factory):
    with contextlib.ExitStack() as running:
        yield Pooled(aurora_cluster_factory(readers=1), running)


def until(condition, what):
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def writes_to(pooled, conn):
    with conn:
        instance, standby = conn.execute(WHERE).fetchone()
    assert (instance, standby) == (pooled.cluster.writer, False)
    assert conn.placement.instance == instance
    assert (conn.placement.pooled, conn.placement.current) == (True, None)


def pools(given, running):
    """Functions that ask on a connection out of a pool, of each kind."""
    url = f"postgresql+aurora://app:app@127.0.0.1:{given['port']}/app"
    options = {name: value for name, value in given.items() if name.startswith(("aurora_", "ssl", "prepare"))}
    loop = running.enter_context(contextlib.closing(asyncio.new_event_loop()))
    pool = running.enter_context(ConnectionPool(kwargs=given, min_size=1, max_size=1))
    async_pool = AsyncConnectionPool(kwargs=given, min_size=1, max_size=1, open=False)
    loop.run_until_complete(async_pool.open())
    running.callback(lambda: loop.run_until_complete(async_pool.close()))
    engine = create_engine(url, connect_args=options, pool_size=1)
    running.callback(engine.dispose)
    async_engine = create_async_engine(url, connect_args=options, pool_size=1)
    running.callback(lambda: loop.run_until_complete(async_engine.dispose()))

    def from_pool():
        with pool.connection() as conn:
            return conn.execute(WHERE).fetchone()

    def from_engine():
        with engine.connect() as conn:
            return tuple(conn.execute(text(WHERE)).one())

    async def from_async_pool():
        async with async_pool.connection() as conn:
            return await (await conn.execute(WHERE)).fetchone()

    async def from_async_engine():
        async with async_engine.connect() as conn:
            return tuple((await conn.execute(text(WHERE))).one())

    asynchronous = (from_async_pool, from_async_engine)
    return [from_pool, from_engine, *(lambda way=way: loop.run_until_complete(way()) for way in asynchronous)]


@pytest.mark.case
def test_neither_connects_nor_pools_hand_out_a_demoted_writer(pooled):
    """A client's connection to the pooler outlives the server: only the server itself knows what it is by now."""
    given = pooled.parameters
    for _ in range(2):
        writes_to(pooled, aurora_router.connect(**given))
        aurora_router.connect(**{**given, "aurora_role": "reader"}).close()
    with contextlib.ExitStack() as running:
        held = running.enter_context(contextlib.closing(aurora_router.connect(autocommit=True, **given)))
        ways = pools(given, running)
        for _ in range(2):
            assert {way() for way in ways} == {(pooled.cluster.writer, False)}
        aurora_router.check(held)
        demoted = pooled.cluster.writer
        pooled.cluster.failover()
        until(lambda: pooled.cluster.instance(demoted).state == "available", "the former writer is back")
        with contextlib.suppress(psycopg.OperationalError):  # the pooler's session with the server was lost
            held.execute("SELECT 1")
        if not held.closed:
            assert held.execute(WHERE).fetchone() == (demoted, True)
        with pytest.raises(aurora_router.StaleConnection):
            aurora_router.check(held)
        for _ in range(2):
            assert {way() for way in ways} == {(pooled.cluster.writer, False)}
            writes_to(pooled, aurora_router.connect(**given))


def test_sessions_of_a_promoted_reader_are_stale(pooled):
    """Behind the pooler the server is asked; where the session leads straight to it, it has reported the promotion."""
    given = {**pooled.parameters, "aurora_role": "reader"}
    hosts = ",".join(f"{each.name}={each.host}:{each.port}" for each in pooled.cluster.instances)
    writer = pooled.cluster.instance(pooled.cluster.writer)
    straight = {**given, "host": writer.host, "port": writer.port, "aurora_instance_host": hosts}
    with (
        contextlib.closing(aurora_router.connect(autocommit=True, **given)) as reader,
        contextlib.closing(aurora_router.connect(autocommit=True, **straight)) as direct,
    ):
        assert reader.execute(WHERE).fetchone()[1] is True
        aurora_router.check(reader)
        pooled.cluster.failover()
        with pytest.raises(aurora_router.StaleConnection, match=r"lost|writer"):
            aurora_router.check(reader)
        assert direct.execute(WHERE).fetchone()[1] is False, "it goes on working"
        until(lambda: not direct.sound(), "the socket and the reported role are looked at")
        with pytest.raises(aurora_router.StaleConnection, match="its server reports that it is a writer now"):
            aurora_router.check(direct)
