"""Vanilla standbys and pg_receivewal against the endpoint, fed from a real writer."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.postgres.engine import State
from aurora_router_cluster.wire.source import Timeline
from tests.cluster.wire.support import SECRET, USER, asked, until, until_asked

if TYPE_CHECKING:
    from tests.cluster.wire.support import Rig

pytestmark = pytest.mark.cluster


async def test_commits_wait_for_the_report_and_readers_see_only_durable_log(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    reader = await rig.engine("r1", standby=True)
    await writer.wait(State.READY)
    await rig.attach(writer)
    await reader.wait(State.STANDBY)
    await asked(writer, "create table t(i int)")
    await until_asked(reader, "select count(*) from t", "0")

    rig.held = True
    durable = rig.log.durable_lsn
    commit = asyncio.create_task(asked(writer, "insert into t values (1)"))
    await until(lambda: rig.log.end > durable + 100, "the writer's log")
    await until_asked(writer, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'", "1")
    (status,) = rig.endpoint.readers()
    assert (status.sent, await asked(reader, "select count(*) from t")) == (durable, "0")
    assert not commit.done()

    rig.held = False
    rig.advance()
    await commit
    await until_asked(reader, "select count(*) from t", "1")


async def test_many_readers_catch_up_and_a_new_one_is_born_with_the_writer_dead(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)
    await rig.attach(writer)
    await asked(writer, "create table t as select g, repeat('x', 500) from generate_series(1, 20000) g")
    rig.log._tail = 4096  # nearly all of it is old log: the slow path
    readers = [await rig.engine(f"r{i}", standby=True) for i in (1, 2, 3)]
    for reader in readers:
        await until_asked(reader, "select count(*) from t", "20000")
    writer.kill()
    late = await rig.engine("late", standby=True)
    await until_asked(late, "select count(*) from t", "20000")
    names = {status.application_name for status in rig.endpoint.readers()}
    assert names == {"r1", "r2", "r3", "late"}


async def test_readers_follow_a_promotion_only_when_its_history_file_is_stored(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    for name in ("r1", "r2", "r3"):
        await rig.engine(name, standby=True)
    await writer.wait(State.READY)
    await rig.attach(writer)
    await asked(writer, "create table t(i int)")
    await asked(writer, "insert into t values (1)")
    await rig.engines["r1"].wait(State.STANDBY)
    writer.kill()
    promoted, start = await rig.promote("r1", 2)
    await asked(promoted, "insert into t values (2)")

    other = rig.engines["r2"]
    await until_asked(other, "select count(*) from t", "1")
    await until(lambda: {"r2", "r3"} <= {s.application_name for s in rig.endpoint.readers()}, "the readers")
    assert {(s.timeline, s.sent <= start) for s in rig.endpoint.readers()} == {(1, True)}

    history = await rig.publish(2, start)
    for name in ("r2", "r3"):
        await until_asked(rig.engines[name], "select count(*) from t", "2")
        await until_asked(rig.engines[name], "select received_tli from pg_stat_wal_receiver", "2")
    late = await rig.engine("late", standby=True)  # born behind the switch: must go through it
    await until_asked(late, "select count(*) from t", "2")
    assert history.startswith(b"1\t")


async def test_readers_pass_a_timeline_that_never_had_a_writer(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    for name in ("r1", "r2"):
        await rig.engine(name, standby=True)
    await writer.wait(State.READY)
    await rig.attach(writer)
    await asked(writer, "create table t as select 1 i")
    candidate = rig.engines["r1"]
    await candidate.wait(State.STANDBY)
    writer.kill()
    rig.account.write(candidate.data / "pg_wal" / "00000002.history", "1\t0/1000000\tburned\n")
    promoted, start = await rig.promote("r1", 3)
    await asked(promoted, "insert into t values (2)")
    await rig.publish(3, start)
    await until_asked(rig.engines["r2"], "select count(*) from t", "2")
    await until_asked(rig.engines["r2"], "select received_tli from pg_stat_wal_receiver", "3")


async def test_feedback_reaches_the_source_and_leaves_with_the_reader(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    reader = await rig.engine("r1", standby=True)
    await writer.wait(State.READY)
    receiver = await rig.attach(writer)
    await asked(writer, "create table t as select 1 i")
    await until_asked(reader, "select count(*) from t", "1")
    await until(lambda: rig.log.feedback.xmin > 0, "feedback")
    receiver.feedback(rig.log.feedback)
    shown = f"select xmin::text = '{rig.log.feedback.xmin}' from pg_replication_slots"
    await until_asked(writer, shown, "True")
    reader.kill()
    await until(lambda: rig.log.feedback.xmin == 0, "the feedback's end")


async def test_a_wrong_secret_and_a_foreign_cluster_get_no_log(rig: Rig) -> None:
    stranger = await rig.engine("stranger", standby=True, secret="guessed")
    await until(lambda: "authentication failed" in stranger.log_tail(50), "the refusal")
    stranger.kill()
    rig.log.system_identifier += 1
    foreign = await rig.engine("foreign", standby=True)
    await until(lambda: "system identifier differs" in foreign.log_tail(50), "the refusal")
    assert not [s for s in rig.endpoint.readers() if s.sent > rig.log.first_lsn]


async def test_a_hung_reader_is_dropped_and_a_removed_position_refused(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    reader = await rig.engine("r1", standby=True)
    await writer.wait(State.READY)
    await rig.attach(writer)
    await asked(writer, "create table t as select 1 i")
    await until_asked(reader, "select count(*) from t", "1")
    rig.endpoint._timeout = 1.0
    reader.freeze()
    await until(lambda: not rig.endpoint.readers(), "the hung reader's end")
    rig.endpoint._timeout = 30.0
    reader.thaw()
    await asked(writer, "insert into t values (2)")
    await until_asked(reader, "select count(*) from t", "2")

    rig.log.remove_before(rig.log.durable_lsn)
    late = await rig.engine("late", standby=True)
    await until(lambda: "has been removed" in late.log_tail(50), "the refusal")


async def test_pg_receivewal_streams_through_a_switch_and_stops_in_order(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await rig.engine("r1", standby=True)
    await writer.wait(State.READY)
    await rig.attach(writer)
    await asked(writer, "create table t as select g from generate_series(1, 1000) g")
    archive = rig.home / "archive"
    archive.mkdir()
    rig.account.own(archive)
    target = f"host=127.0.0.1 port={rig.port} user={USER} password={SECRET} dbname=replication"
    with (rig.home / "receivewal.log").open("wb") as output:
        command = [rig.programs.program("pg_receivewal"), "-D", archive, "-d", target, "--no-loop", "-v", "-s", "1"]
        process = rig.account.spawn(command, log=output)
    try:
        await until(lambda: len(rig.endpoint.readers()) == 2, "pg_receivewal")
        writer.kill()
        promoted, start = await rig.promote("r1", 2)
        await rig.publish(2, start)
        await asked(promoted, "select pg_switch_wal()")
        await until(lambda: [p for p in archive.iterdir() if len(p.name) == 24], "a whole segment")
        (segment,) = [p for p in archive.iterdir() if len(p.name) == 24]
        position = (int(segment.name[8:16], 16) << 32) + int(segment.name[16:], 16) * rig.log.segment_size
        assert segment.name.startswith("00000002")
        assert segment.read_bytes() == rig.log._slice(position, rig.log.segment_size)
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 0, (rig.home / "receivewal.log").read_text()
    finally:
        process.kill()
        process.wait()
    assert "switched to timeline 2" in (rig.home / "receivewal.log").read_text()


async def test_a_timeline_without_history_file_is_refused_by_name(rig: Rig) -> None:
    rig.log.add_timeline(Timeline(2, rig.log.durable_lsn))
    target = f"host=127.0.0.1 port={rig.port} user={USER} password={SECRET} replication=true dbname=replication"
    psql = rig.programs.program("psql")

    def run(command: str) -> str:
        return rig.account.run([psql, "-X", "-A", "-t", "-c", command, target]).stdout

    assert f"{rig.log.system_identifier}|1|" in await asyncio.to_thread(run, "IDENTIFY_SYSTEM")
    assert "00000002.history" in await asyncio.to_thread(run, "TIMELINE_HISTORY 2")
    assert "timeline 2 is not in this log's history" in await asyncio.to_thread(
        run, "START_REPLICATION PHYSICAL 0/1000000 TIMELINE 2"
    )
    assert "without slots" in await asyncio.to_thread(run, "CREATE_REPLICATION_SLOT x PHYSICAL")
    assert "connect to an instance for SQL" in await asyncio.to_thread(run, "select 1")
