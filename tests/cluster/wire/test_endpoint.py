"""The endpoint without PostgreSQL: listening, junk, slow readers, closing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.wire import messages as m
from aurora_router_cluster.wire import replication as r
from aurora_router_cluster.wire import walsender
from aurora_router_cluster.wire.endpoint import WalEndpoint, combine_feedback
from aurora_router_cluster.wire.errors import LogRemovedError, ProtocolError, ServerError
from aurora_router_cluster.wire.handshake import Login
from aurora_router_cluster.wire.hub import MOST_STRANGERS
from aurora_router_cluster.wire.replication import HotStandbyFeedback
from aurora_router_cluster.wire.scram import ScramVerifier
from aurora_router_cluster.wire.source import Timeline
from aurora_router_cluster.wire.walreceiver import EndReason, WalReceiver, WriterAddress
from aurora_router_cluster.wire.walsender import WalSender
from tests.cluster.wire.memory import MemoryLog
from tests.cluster.wire.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BASE = 1 << 20
LOGIN = Login("storage", ScramVerifier.from_password("secret", iterations=2))
XMIN = st.builds(HotStandbyFeedback, *[st.integers(0, 2**32 - 1)] * 4)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(42, BASE, 1 << 20, "18.6")


@pytest.fixture
async def endpoint(log: MemoryLog) -> AsyncIterator[WalEndpoint]:
    endpoint = WalEndpoint(log, keepalive=0.02)
    yield endpoint
    await endpoint.close()


async def listen(endpoint: WalEndpoint, run_directory: Path) -> Path:
    """Serve on a Unix socket too, where no client has to log in."""
    path = run_directory / ".s.PGSQL.1"
    endpoint._add(await asyncio.get_running_loop().create_unix_server(lambda: WalSender(endpoint, None), path))
    return path


def grow(log: MemoryLog, size: int) -> None:
    log.append(log.end, os.urandom(size))
    log.advance(log.end)


async def follow(path: Path, log: MemoryLog, lsn: int = BASE, timeline: int = 1) -> tuple[WalReceiver, bytearray]:
    received = bytearray()
    receiver = await WalReceiver.connect(WriterAddress(path, "any"), lambda _, data: received.extend(data))
    await receiver.start(lsn, timeline, flushed=lsn)
    return receiver, received


async def test_not_a_byte_above_the_durable_end_is_sent(
    log: MemoryLog, endpoint: WalEndpoint, run_directory: Path
) -> None:
    path = await listen(endpoint, run_directory)
    receiver, received = await follow(path, log)
    for step in (1, 7, 100_000, 3):
        log.append(log.end, os.urandom(step))
        log.append(log.end, os.urandom(50))  # not durable yet
        log.advance(log.end - 50)
        await until(lambda: receiver.received == log.durable_lsn, "the log")
        log.truncate(log.durable_lsn)
    assert bytes(received) == log._slice(BASE, len(received))
    await receiver.close()


@pytest.mark.case
async def test_connections_that_never_log_in_are_few(
    log: MemoryLog, endpoint: WalEndpoint, run_directory: Path
) -> None:
    port = await endpoint.listen_tcp(LOGIN)
    path = await listen(endpoint, run_directory)
    receiver, received = await follow(path, log)
    strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
    await until(lambda: len(endpoint.sessions) <= MOST_STRANGERS + 1, "most strangers are gone")
    grow(log, 1000)
    await until(lambda: len(received) == 1000, "the reader is served on")
    ended = [reader for reader, _ in strangers[: 100 - MOST_STRANGERS]]
    assert await asyncio.gather(*(reader.read() for reader in ended)) == [b""] * len(ended)
    for _, writer in strangers:
        writer.close()
    await receiver.close()


async def test_a_connection_that_does_not_log_in_is_cut_after_a_while(
    endpoint: WalEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walsender, "START_UP_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", await endpoint.listen_tcp(LOGIN))
    assert b"the start-up took too long" in await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_old_log_comes_by_read_and_a_failing_read_ends_only_that_reader(
    log: MemoryLog, endpoint: WalEndpoint, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await listen(endpoint, run_directory)
    grow(log, 3 << 20)
    log._tail = 10
    answers = iter([b"", b"", b"short"])  # no answer, no answer, fewer bytes than wanted
    whole = log.read

    async def read(lsn: int, length: int) -> bytes:
        answer = next(answers, None)
        return await whole(lsn, length) if answer is None else await whole(lsn, len(answer))

    monkeypatch.setattr(log, "read", read)
    receiver, received = await follow(path, log)
    await until(lambda: receiver.received == log.durable_lsn, "the log")
    assert bytes(received) == log._slice(BASE, len(received))

    async def broken(lsn: int, length: int) -> bytes:
        raise OSError("no node answers")

    async def removed(lsn: int, length: int) -> bytes:
        raise LogRemovedError("gone")

    for failing, sqlstate in ((broken, "58030"), (removed, "58P01")):
        monkeypatch.setattr(log, "read", failing)
        other, _ = await follow(path, log)
        end = await asyncio.wait_for(other.ended, 30)
        assert isinstance(end.error, ServerError)
        assert end.error.sqlstate == sqlstate
    grow(log, 5)
    await until(lambda: receiver.received == log.durable_lsn, "the log")
    await receiver.close()


async def test_a_reader_that_does_not_read_holds_no_memory_and_nobody_up(
    log: MemoryLog, endpoint: WalEndpoint, run_directory: Path
) -> None:
    path = await listen(endpoint, run_directory)
    slow, _ = await follow(path, log)
    quick, _ = await follow(path, log)
    assert slow._transport is not None
    slow._transport.pause_reading()
    for _ in range(40):
        grow(log, 1 << 20)
        await until(lambda: quick.received == log.durable_lsn, "the quick reader")
    sent = sorted(status.sent - BASE for status in endpoint.readers())
    assert sent[0] < 8 << 20
    assert sent[1] == 40 << 20
    slow._transport.resume_reading()
    await until(lambda: slow.received == log.durable_lsn, "the slow reader")
    await slow.close()
    await quick.close()


async def test_a_switch_at_the_very_start_still_goes_through_copy(
    log: MemoryLog, endpoint: WalEndpoint, run_directory: Path
) -> None:
    path = await listen(endpoint, run_directory)
    grow(log, 1000)
    log.add_timeline(Timeline(2, log.end, b"1\tx\ty\n"))
    receiver, _ = await follow(path, log, log.end)
    assert (await asyncio.wait_for(receiver.ended, 30)).reason is EndReason.TIMELINE


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\0\x08\0\2\0\0",
        b"\0\0\0\x08\x04\xd2\x16\x2e",
        m.startup_packet({"user": "storage"}),
        m.startup_packet({"user": "storage", "replication": "true"}) + m.query("IDENTIFY_SYSTEM"),
        m.startup_packet({"user": "storage", "replication": "true"}) + m.sasl_initial_response("PLAIN", b""),
        m.startup_packet({"user": "storage", "replication": "true"}) + m.sasl_initial_response("SCRAM-SHA-256", b"x"),
        m.startup_packet({"user": "storage", "replication": "true"}) + b"p\0\0\0\x08SCRA",
        struct.pack(">I", 9000),
    ],
)
async def test_junk_ends_its_own_connection_only(log: MemoryLog, endpoint: WalEndpoint, junk: bytes) -> None:
    endpoint._timeout = 1.0
    port = await endpoint.listen_tcp(LOGIN)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(junk)
    answer = await asyncio.wait_for(reader.read(), 30)
    assert answer[:1] in (b"", b"E", b"R")
    assert m.AUTHENTICATION_OK not in answer
    writer.close()
    target = WriterAddress(("127.0.0.1", port), "storage", "secret")
    receiver = await WalReceiver.connect(target, lambda lsn, data: None)
    assert (await receiver.identify_system()).system_identifier == 42
    await receiver.close()


async def test_a_client_with_a_secret_takes_no_log_from_a_server_that_does_not_ask_for_it(
    log: MemoryLog, endpoint: WalEndpoint, run_directory: Path
) -> None:
    path = await listen(endpoint, run_directory)  # as a foreign server on a reused port would be: it accepts any client
    with pytest.raises(ProtocolError, match="without proving"):
        await WalReceiver.connect(WriterAddress(path, "storage", "secret"), lambda lsn, data: None)


async def test_encryption_requests_are_declined_and_newer_minor_protocols_negotiated(
    log: MemoryLog, endpoint: WalEndpoint
) -> None:
    port = await endpoint.listen_tcp(LOGIN)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for code in (m.GSSENC_REQUEST, m.SSL_REQUEST):
        writer.write(struct.pack(">II", 8, code))
        assert await reader.readexactly(1) == b"N"
    packet = bytearray(m.startup_packet({"user": "storage", "replication": "on", "_pq_.shiny": "1"}))
    packet[4:8] = struct.pack(">I", m.PROTOCOL_3_0 + 2)
    writer.write(packet)
    expected = m.negotiate_protocol_version(["_pq_.shiny"]) + m.authentication_sasl(["SCRAM-SHA-256"])
    assert await reader.readexactly(len(expected)) == expected
    writer.close()


async def test_messages_out_of_place_are_refused(log: MemoryLog, endpoint: WalEndpoint, run_directory: Path) -> None:
    path = await listen(endpoint, run_directory)
    for message in (m.message(b"P", b"\0select 1\0\0\0"), m.message(b"B"), b"Q\x7f\0\0\0"):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(m.startup_packet({"user": "x", "replication": "true"}) + message)
        answer = await asyncio.wait_for(reader.read(), 30)
        assert b"08P01" in answer
        writer.close()
    receiver, _ = await follow(path, log)
    receiver._write(m.message(b"d", b"?"))
    end = await asyncio.wait_for(receiver.ended, 30)
    assert isinstance(end.error, ServerError)
    assert end.error.sqlstate == "08P01"


async def test_positions_outside_of_the_log_are_refused_by_name(
    log: MemoryLog, endpoint: WalEndpoint, run_directory: Path
) -> None:
    path = await listen(endpoint, run_directory)
    grow(log, 1000)
    log.remove_before(BASE + 10)
    receiver = await WalReceiver.connect(WriterAddress(path, "any"), lambda lsn, data: None)
    for lsn, timeline, text in (
        (BASE, 1, "has been removed"),
        (log.end + 1, 1, "above the durable end"),
        (log.end, 2, "timeline 2 is not in this log's history"),
    ):
        with pytest.raises(ServerError, match=text):
            await receiver.start(lsn, timeline, flushed=lsn)
    log.add_timeline(Timeline(2, BASE + 500, b"1\tx\ty\n"))
    with pytest.raises(ServerError, match="which ends at 0/1001F4"):
        await receiver.start(BASE + 501, 1, flushed=BASE + 501)
    assert await receiver.timeline_history(2) == b"1\tx\ty\n"
    await receiver.start(BASE + 20, 1, flushed=BASE + 20)
    assert (await asyncio.wait_for(receiver.ended, 30)).reason is EndReason.TIMELINE


async def test_listening_is_on_loopback_and_on_a_port_that_is_free(endpoint: WalEndpoint) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        await endpoint.listen_tcp(LOGIN, "0.0.0.0")
    port = await endpoint.listen_tcp(LOGIN)
    with pytest.raises(OSError, match="in use"):
        await endpoint.listen_tcp(LOGIN, port=port)


async def test_close_leaves_no_connection(log: MemoryLog, run_directory: Path) -> None:
    endpoint = WalEndpoint(log)
    path = await listen(endpoint, run_directory)
    port = await endpoint.listen_tcp(LOGIN)
    receiver, _ = await follow(path, log)
    await endpoint.close()
    assert (await asyncio.wait_for(receiver.ended, 30)).reason is EndReason.FAILED
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    assert not log._wakes
    await endpoint.close()


async def test_close_takes_along_what_was_just_accepted(log: MemoryLog, run_directory: Path) -> None:
    for turns in range(6):
        endpoint = WalEndpoint(log)
        path = await listen(endpoint, run_directory)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.connect(str(path))
        for _ in range(turns):
            await asyncio.sleep(0)
        await endpoint.close()
        for client in clients:
            client.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
            client.close()


@given(st.lists(XMIN, max_size=6))
def test_the_oldest_transaction_of_all_readers_is_passed_on(feedback: list[HotStandbyFeedback]) -> None:
    oldest = combine_feedback(feedback)
    ages = [(f.epoch, f.xmin) for f in feedback if f.xmin]
    catalog = [(f.catalog_epoch, f.catalog_xmin) for f in feedback if f.catalog_xmin]
    assert (oldest.epoch, oldest.xmin) == (min(ages) if ages else (0, 0))
    assert (oldest.catalog_epoch, oldest.catalog_xmin) == (min(catalog) if catalog else (0, 0))
    assert r.parse_from_standby(r.hot_standby_feedback(oldest)[5:]) == oldest
