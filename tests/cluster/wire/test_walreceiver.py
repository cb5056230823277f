"""The replication client against real writers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.postgres import settings
from aurora_router_cluster.postgres.engine import State
from aurora_router_cluster.wire.errors import (
    AuthenticationError,
    ConnectionLostError,
    ProtocolError,
    ServerError,
    WireError,
)
from aurora_router_cluster.wire.walreceiver import EndReason, StreamEnd, WalReceiver, WriterAddress
from tests.cluster.wire.support import SECRET, USER, asked, until, until_asked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.wire.support import Rig

pytestmark = pytest.mark.cluster


async def ended(receiver: WalReceiver) -> StreamEnd:
    return await asyncio.wait_for(receiver.ended, 30)


async def test_the_log_received_is_the_writers_file_byte_for_byte(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)
    receiver = await rig.attach(writer)
    assert not await asked(writer, "select 1 from pg_stat_replication where sync_state <> 'sync'")
    for rows in (10, 5000, 20000):
        await asked(writer, f"create table t{rows} as select g, repeat('x', 300) from generate_series(1, {rows}) g")
    await asked(writer, "select pg_switch_wal()")
    end = rig.log.end
    assert receiver.received == end
    names = sorted(path for path in (writer.data / "pg_wal").iterdir() if len(path.name) == 24)
    content = b"".join(path.read_bytes() for path in names)
    assert content[: end - rig.log.first_lsn] == rig.log._slice(rig.log.first_lsn, end - rig.log.first_lsn)
    positions = "write_lsn = sent_lsn and flush_lsn = sent_lsn and replay_lsn = sent_lsn"
    shown = f"select {positions} and sent_lsn >= '{format_lsn(end)}' from pg_stat_replication"
    await until_asked(writer, shown, "True")


async def test_restart_of_the_stream_goes_on_where_it_ended(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)
    receiver = await rig.attach(writer)
    await asked(writer, "create table t(i int)")
    for number in range(3):
        await receiver.close()
        assert (await ended(receiver)).reason is EndReason.CLOSED
        commit = asyncio.create_task(asked(writer, f"insert into t values ({number})"))
        await until_asked(writer, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'", "1")
        receiver = await rig.attach(writer)  # the slot is there; the sink refuses a gap or an overlap
        await commit
    assert await asked(writer, "select count(*) from t") == "3"


async def test_an_orderly_shutdown_waits_for_the_report_and_says_so(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)
    receiver = await rig.attach(writer)
    await asked(writer, "create table t(i int)")
    await writer.stop()
    assert await ended(receiver) == StreamEnd(EndReason.SHUTDOWN)


async def test_a_killed_writer_and_a_terminated_walsender_are_told_apart(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)
    receiver = await rig.attach(writer)
    await asked(writer, "select pg_terminate_backend(pid) from pg_stat_replication")
    end = await ended(receiver)
    assert end.reason is EndReason.FAILED
    assert isinstance(end.error, ServerError)
    assert end.error.sqlstate == "57P01"

    receiver = await rig.attach(writer)
    writer.kill()
    end = await ended(receiver)
    assert end.reason is EndReason.FAILED
    assert isinstance(end.error, ConnectionLostError)
    with pytest.raises(ConnectionLostError):
        await receiver.identify_system()


async def test_refusals_of_the_writer_are_typed(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)
    address = writer.home / f".s.PGSQL.{writer.port}"
    with pytest.raises(AuthenticationError):
        await WalReceiver.connect(WriterAddress(address, "nobody_here", "pw"), lambda lsn, data: None)

    receiver = await WalReceiver.connect(WriterAddress(address, settings.SUPERUSER), lambda lsn, data: None)
    identity = await receiver.identify_system()
    assert identity.timeline == 1
    with pytest.raises(ServerError, match="does not exist"):
        await receiver.start(identity.lsn, 1, flushed=identity.lsn, slot="missing")
    with pytest.raises(ServerError, match=r"00000007\.history"):
        await receiver.timeline_history(7)
    with pytest.raises(ValueError, match="not a slot name"):
        await receiver.create_slot("Drop Table")
    assert await receiver.create_slot("mine")
    assert not await receiver.create_slot("mine")
    await receiver.start(identity.lsn, 1, flushed=identity.lsn, slot="mine")
    with pytest.raises(ProtocolError, match="while the connection is streaming"):
        await receiver.identify_system()
    await receiver.close()
    await receiver.close()


async def test_a_sink_that_fails_ends_the_connection_with_its_error(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)

    def sink(lsn: int, data: bytes) -> None:
        raise KeyError("no room")

    address = writer.home / f".s.PGSQL.{writer.port}"
    receiver = await WalReceiver.connect(WriterAddress(address, settings.SUPERUSER), sink)
    await receiver.start(rig.log.first_lsn, 1, flushed=rig.log.first_lsn)
    end = await ended(receiver)
    assert end.reason is EndReason.FAILED
    assert isinstance(end.error, WireError)
    assert isinstance(end.error.__cause__, KeyError)


async def test_a_starting_or_missing_writer_is_a_typed_error(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(ConnectionLostError, match="no replication connection to"):
        await WalReceiver.connect(WriterAddress(tmp_path / ".s.PGSQL.1", "postgres"), lambda lsn, data: None)

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client goes
        writer.close()

    silent = await asyncio.start_unix_server(hold, str(tmp_path / "silent"))
    with pytest.raises(ConnectionLostError, match=r"no answer within 0\.2 s"):
        await WalReceiver.connect(WriterAddress(tmp_path / "silent", "postgres"), lambda *_: None, timeout=0.2)
    silent.close()
    await silent.wait_closed()


async def test_client_and_endpoint_understand_each_other_over_tcp_with_scram(rig: Rig) -> None:
    writer = await rig.engine("w", standby=False)
    await writer.wait(State.READY)
    await rig.attach(writer)
    await asked(writer, "create table t as select g from generate_series(1, 3000) g")
    received = bytearray()

    def sink(lsn: int, data: bytes) -> None:
        assert lsn == rig.log.first_lsn + len(received)
        received.extend(data)

    target = WriterAddress(("127.0.0.1", rig.port), USER, SECRET)
    receiver = await WalReceiver.connect(target, sink, application_name="copy")
    assert (await receiver.identify_system()).system_identifier == rig.log.system_identifier
    with pytest.raises(ServerError, match="without slots"):
        await receiver.create_slot("x")
    await receiver.start(rig.log.first_lsn, 1, flushed=rig.log.first_lsn)
    await until(lambda: receiver.received == rig.log.durable_lsn, "the log")
    assert bytes(received) == rig.log._slice(rig.log.first_lsn, len(received))
    receiver.report(1, 2, 3)
    await until(
        lambda: [(s.written, s.flushed, s.applied) for s in rig.endpoint.readers()] == [(1, 2, 3)], "the report"
    )
    assert rig.endpoint.drop("copy") == 1
    assert (await ended(receiver)).reason is EndReason.FAILED

    with pytest.raises(AuthenticationError, match="authentication failed"):
        await WalReceiver.connect(WriterAddress(("127.0.0.1", rig.port), USER, "guessed"), sink)
    with pytest.raises(AuthenticationError, match="authentication failed"):
        await WalReceiver.connect(WriterAddress(("127.0.0.1", rig.port), "stranger", SECRET), sink)
    with pytest.raises(ProtocolError, match="asks for a password"):
        await WalReceiver.connect(WriterAddress(("127.0.0.1", rig.port), USER), sink)
