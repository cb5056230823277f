"""A backtrack that fails half way, in this process: the cluster comes back on the branch that a write quorum has."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from aurora_router_cluster import errors
from aurora_router_cluster.control.backtrack import Backtrack
from aurora_router_cluster.control.plane import ControlPlane
from aurora_router_cluster.control.state import ClusterState
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.postgres.addresses import Allocator
from aurora_router_cluster.storage import rebuilding
from aurora_router_cluster.storage.quorum import QuorumVolume

pytestmark = pytest.mark.cluster


@pytest.fixture
async def plane(account, run_directory):
    from aurora_router_cluster.postgres import binaries, template

    found = binaries.find(account, None)
    made = await asyncio.to_thread(template.ensure, found, account)
    names = Names("demo", "cx.eu-test-1.rds.aurora.test")
    volume = QuorumVolume(found, account, run_directory / "storage", sync=False)
    plane = ControlPlane(ClusterState(names, volume, found, account, run_directory, Allocator()), detect=0.1)
    await plane.create(1, made)
    yield plane
    await plane.close()


async def run(plane, sql):
    engine = plane.state.writer.engine
    options = {"host": str(engine.home), "port": engine.port, "user": "postgres", "dbname": "postgres"}
    async with await psycopg.AsyncConnection.connect(**options, autocommit=True) as connection:
        cursor = await connection.execute(sql)
        return [row[0] for row in await cursor.fetchall()] if cursor.description else []


async def until_whole(plane):
    deadline = asyncio.get_running_loop().time() + 60
    while True:
        async with plane.state.lock:  # no change is half done
            if plane.state.writer is not None and all(one.available for one in plane.state.instances.values()):
                return
        assert asyncio.get_running_loop().time() < deadline, "the cluster does not come back"
        await asyncio.sleep(0.02)


async def written(plane):
    """Rows 1 and 2; returns a position between them."""
    await run(plane, "create table t(i int)")
    await run(plane, "insert into t values (1)")
    (point,) = await run(plane, "select pg_current_wal_insert_lsn()::text")
    await run(plane, "insert into t values (2)")
    return point


async def test_nodes_that_are_lost_at_the_last_moment(plane, monkeypatch):
    backtrack, volume = Backtrack(plane.state, plane.procedure), plane.state.volume
    point = await written(plane)

    async def lose_three():
        for node in (0, 2, 4):
            await volume.nodes.down(node)

    monkeypatch.setattr(volume.history, "check_quorum", lose_three)
    with pytest.raises(errors.FailoverImpossibleError, match="cannot open a branch now"):
        await backtrack.backtrack(point)
    for node in (0, 2, 4):
        await volume.nodes.up(node)
    await until_whole(plane)
    assert await run(plane, "select i from t order by i") == [1, 2]
    monkeypatch.undo()
    await backtrack.backtrack(point)
    assert await run(plane, "select i from t order by i") == [1]


async def test_a_failure_after_the_branch_was_opened(plane, monkeypatch):
    backtrack = Backtrack(plane.state, plane.procedure)
    point = await written(plane)
    await plane.failover()
    await until_whole(plane)

    async def fail(*_):
        raise errors.EngineError("no room")

    monkeypatch.setattr(rebuilding, "leave_for_writer", fail)
    with pytest.raises(errors.EngineError, match="no room"):
        await backtrack.backtrack(point)
    await until_whole(plane)
    assert plane.state.volume.charter.line.number == 2
    assert [timeline.tli for timeline in plane.state.volume.charter.timelines] == [1, 3]  # 2 is used on branch 1
    assert await run(plane, "select i from t order by i") == [1]
    monkeypatch.undo()
    await run(plane, "insert into t values (3)")
    await backtrack.forward(None, None)
    assert await run(plane, "select i from t order by i") == [1, 2]


async def past(volume):
    """Wait until what happened before this call is out of the window."""
    now = volume.history.window[1]
    while volume.history.window[0] <= now:  # noqa: ASYNC110 - a test may poll
        await asyncio.sleep(0.02)


async def test_the_window_and_what_a_snapshot_keeps(plane):
    backtrack, volume = Backtrack(plane.state, plane.procedure), plane.state.volume
    volume.history.retention = 0.3
    point = await written(plane)
    await backtrack.snapshot("kept")
    await run(plane, "insert into t values (3)")
    await volume.add_base(plane.state.writer.where)
    await volume.collect()
    await past(volume)
    await volume.collect()
    assert len(list(volume.history.bases)) == 2
    made = await backtrack.export(None, None, "kept")
    await backtrack.discard(made["directory"])
    with pytest.raises(errors.RequestError, match="not an export"):
        await backtrack.discard(made["directory"])
    await backtrack.delete_snapshot("kept")
    assert len(list(volume.history.bases)) == 1
    with pytest.raises(errors.TargetError, match="outside of the window"):
        await backtrack.backtrack(point)
    (here,) = await run(plane, "select pg_current_wal_insert_lsn()::text")
    await backtrack.backtrack(here)
    assert len((await backtrack.branches())["branches"]) == 2
    await past(volume)
    await volume.collect()
    assert [each["number"] for each in (await backtrack.branches())["branches"]] == [2]
    assert await run(plane, "select i from t order by i") == [1, 2, 3]
