"""The control plane in this process: what cannot be provoked, or not be seen, from outside."""

from __future__ import annotations

import asyncio

import pytest

from aurora_router_cluster import errors
from aurora_router_cluster.control.directory import Directory
from aurora_router_cluster.control.plane import ControlPlane
from aurora_router_cluster.control.state import ClusterState
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.postgres.addresses import Allocator
from aurora_router_cluster.postgres.session import Session
from aurora_router_cluster.storage.direct import DirectVolume

pytestmark = pytest.mark.cluster


@pytest.fixture
async def plane(binaries, account, template, run_directory):
    names = Names("demo", "cx.eu-test-1.rds.aurora.test")
    state = ClusterState(names, DirectVolume(binaries, account), binaries, account, run_directory, Allocator())
    plane = ControlPlane(state, detect=0.1)
    await plane.create(2, template)
    yield plane
    await plane.close()
    assert not list(run_directory.iterdir())


async def wait_for(condition, timeout=30.0):
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


async def test_a_cluster_that_lost_track_of_its_writer_gets_one(plane):
    state = plane.state
    former = state.writer
    state.writer = None
    former.engine.kill()
    await wait_for(lambda: state.writer is not None and all(one.available for one in state.instances.values()))
    assert state.writer is not former
    assert state.epoch == 2


async def test_a_late_heartbeat_does_not_make_a_switchover_a_failover(plane):
    plane.state.writer.missed = 3
    done = await plane.failover()
    assert done.planned


async def test_the_sessions_of_a_reader_that_is_removed_go_on(plane):
    leaving = plane.state.get("demo-2")
    user = Session(leaving.where)
    await user.query("SET application_name = 'user'")
    removal = asyncio.create_task(plane.remove("demo-2", drain=60.0))
    await wait_for(lambda: leaving.state == "deleting")
    assert leaving.name not in [row["server_id"] for row in plane.state.rows()]
    assert await user.query("SELECT 7 FROM pg_sleep(0.5)") == [("7",)]
    assert not removal.done()
    user.close()
    await removal
    assert not leaving.engine.alive


async def test_the_sessions_of_a_reader_that_is_removed_are_ended_in_time(plane):
    leaving = plane.state.get("demo-2")
    user = Session(leaving.where)
    await user.query("SET application_name = 'user'")
    await plane.remove("demo-2", drain=0.5)
    assert not leaving.engine.alive
    with pytest.raises(errors.EngineError):
        await user.query("SELECT 7")


@pytest.mark.parametrize("drain", [-1.0, 101.0, float("nan")])
async def test_how_long_a_reader_is_drained_is_bounded(plane, drain):
    with pytest.raises(errors.RequestError, match="give 0 to 100"):
        await plane.remove("demo-2", drain)
    assert "demo-2" in plane.state.instances


@pytest.mark.parametrize(
    ("before", "missed", "after"),
    [("available", 4, "available"), ("available", 5, "unreachable"), ("unreachable", 1, "unreachable"),
     ("unreachable", 0, "available")],
)  # fmt: skip
async def test_who_was_unreachable_is_so_until_he_answers(plane, before, missed, after):
    """A frozen zombie must be left alone: that it is not known to have missed an answer is none."""
    heartbeat = plane._heartbeat
    await heartbeat.close()
    reader = plane.state.readers[0]
    reader.state, reader.missed = before, missed
    heartbeat._judge(reader)
    assert reader.state == after


async def test_a_zombie_is_never_shown_as_available(plane):
    """It answers again and takes itself for the writer; it is one of the readers only when it was rebuilt."""
    former = plane.state.writer
    plane.freeze(former.name)
    await wait_for(lambda: plane.state.writer is not former and former.state == "unreachable")
    seen = []
    plane.state.changed = lambda: seen.append((former.state, former.newest is None or former.newest.recovering))
    plane.thaw(former.name)
    await wait_for(lambda: former.available)
    assert all(recovering for state, recovering in seen if state == "available")
    assert former.newest.recovering


async def test_nobody_is_sent_to_an_instance_that_still_replays(plane):
    """It was down while something was committed, and lacks it for as long as this test likes."""
    state = plane.state
    late, other = state.readers
    directory = Directory(state)
    shown = directory.picture().hosts[state.names.reader]
    assert late.address.host in shown
    plane.kill(late.name, hold=True)
    await state.writer.session.query("CREATE TABLE new ()")
    state.overrides["recovery_min_apply_delay"] = "1h"
    starting = asyncio.create_task(plane.start(late.name))
    await wait_for(lambda: late.catch_up_lsn is not None)
    late.tier = 0
    beats = late.newest
    await wait_for(lambda: late.newest is not beats)
    directory.on_state_change()
    assert not late.available
    assert not starting.done()
    assert late.name not in [row["server_id"] for row in state.rows()]
    assert late.address.host not in directory.picture().hosts[state.names.reader]
    assert await plane.procedure._candidate(None) is other

    del state.overrides["recovery_min_apply_delay"]
    late.engine.follow(state.settings(late))
    await starting
    assert late.available
    assert await late.session.query("SELECT count(*) FROM new") == [("0",)]
    assert late.name in [row["server_id"] for row in state.rows()]


async def test_requests_at_once_are_done_one_after_the_other(plane):
    done = await asyncio.gather(
        plane.add_reader(), plane.failover("demo-2"), plane.add_reader("extra"), plane.remove("demo-3"),
        plane.restart("demo-1"), plane.failover("demo-1"), return_exceptions=True,
    )  # fmt: skip
    assert not [one for one in done if isinstance(one, BaseException)]
    await wait_for(lambda: all(one.available for one in plane.state.instances.values()))
    assert list(plane.state.instances) == ["demo-1", "demo-2", "demo-4", "extra"]
    assert plane.state.writer.name == "demo-1"
    assert plane.state.epoch == 3


async def test_a_reader_that_cannot_be_built_is_not_there(plane, monkeypatch):
    async def refuse(reader, writer):
        raise errors.EngineError("no room")

    monkeypatch.setattr(plane.state.volume, "seed", refuse)
    with pytest.raises(errors.EngineError, match="no room"):
        await plane.add_reader("extra")
    assert "extra" not in plane.state.instances
    assert not (plane.state.run / "extra").exists()


async def test_a_promotion_that_fails_leaves_the_writer_in_its_place(plane, monkeypatch):
    writer = plane.state.writer

    async def fail(timeout=30.0):
        raise errors.EngineError("it does not want to")

    for reader in plane.state.readers:
        monkeypatch.setattr(reader.engine, "promote", fail)
    with pytest.raises(errors.EngineError, match="does not want to"):
        await plane.failover()
    assert plane.state.writer is writer
    assert writer.available
    assert await writer.session.query("select pg_is_in_recovery()") == [("f",)]


async def test_lag_and_processor_use_are_measured(plane):
    await wait_for(lambda: all(one.cpu is not None for one in plane.state.instances.values()))
    await wait_for(lambda: all(one.lag is not None for one in plane.state.readers))
    rows = {row["server_id"]: row for row in plane.state.rows()}
    assert set(rows) == {"demo-1", "demo-2", "demo-3"}
    assert rows["demo-1"]["writer"]
    assert all(row["durable_lsn"] > 0 for row in rows.values())
