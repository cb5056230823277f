"""An instance that was just started shows the present or nothing."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from aurora_router_cluster.control.plane import ControlPlane
from aurora_router_cluster.control.state import ClusterState
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.postgres.addresses import Allocator
from aurora_router_cluster.storage.quorum import QuorumVolume

pytestmark = pytest.mark.cluster

NOWHERE = {"primary_conninfo": "host=127.0.0.1 port=1 connect_timeout=1"}


@pytest.fixture
async def plane(binaries, account, template, run_directory):
    volume = QuorumVolume(binaries, account, run_directory / "storage")
    state = ClusterState(
        Names("demo", "cx.eu-test-1.rds.aurora.test"), volume, binaries, account, run_directory, Allocator()
    )
    plane = ControlPlane(state, detect=0.1)
    try:
        await plane.create(2, template)
        yield plane
    finally:
        await plane.close()


async def wait_for(condition, timeout=30.0):
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


def look(instance, query):
    """What a client that knows its address is shown."""
    address = instance.address
    target = f"host={address.host} port={address.port} user=app password=app dbname=postgres"
    with psycopg.connect(target, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


async def refused(instance) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        await asyncio.to_thread(look, instance, "SELECT 1")
    return str(caught.value)


async def ask(instance, sql):
    return await instance.session.query(sql)


async def test_one_that_was_away_serves_nobody_until_it_has_caught_up(plane):
    """A client that knows its address must not read what was true before it went away."""
    state = plane.state
    late, other = state.readers
    plane.kill(late.name, hold=True)
    await ask(state.writer, "CREATE TABLE missed AS SELECT 1 AS i")
    await ask(state.writer, "GRANT SELECT ON missed TO app")
    await plane.failover(other.name)  # what it lacks goes over two timelines
    await ask(state.writer, "INSERT INTO missed VALUES (2)")
    state.overrides.update(NOWHERE)
    starting = asyncio.create_task(plane.start(late.name))
    await wait_for(lambda: late.catch_up_lsn is not None and late.engine.alive)
    await wait_for(lambda: "not yet accepting connections" in late.engine.log_tail(50) or late.newest is not None)
    beats = plane._heartbeat.interval * 8
    for _ in range(8):
        told = await refused(late)
        assert "starting up" in told or "not yet accepting" in told
        await asyncio.sleep(beats / 8)
    assert not late.available
    assert not starting.done()

    del state.overrides["primary_conninfo"]
    late.engine.follow(state.settings(late))
    await starting
    assert late.available
    assert await asyncio.to_thread(look, late, "SELECT count(*) FROM missed") == 2


async def test_one_that_is_built_anew_serves_nobody_until_it_has_caught_up(plane):
    state = plane.state
    late = state.readers[0]
    await ask(state.writer, "CREATE TABLE missed AS SELECT 1 AS i")
    await ask(state.writer, "GRANT SELECT ON missed TO app")
    plane.kill(late.name, hold=True)
    late.engine.erase()
    state.overrides.update(NOWHERE)
    starting = asyncio.create_task(plane.start(late.name))
    await wait_for(lambda: late.catch_up_lsn is not None and late.engine.alive)
    for _ in range(8):
        await refused(late)
        await asyncio.sleep(0.05)
    del state.overrides["primary_conninfo"]
    late.engine.follow(state.settings(late))
    await starting
    assert await asyncio.to_thread(look, late, "SELECT count(*) FROM missed") == 1
