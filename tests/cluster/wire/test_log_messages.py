"""Where the messages end in which the endpoint sends the log, however the log reaches it."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.wire import messages as m
from aurora_router_cluster.wire import replication as r
from aurora_router_cluster.wire import walsender
from aurora_router_cluster.wire.endpoint import WalEndpoint
from aurora_router_cluster.wire.source import Timeline
from aurora_router_cluster.wire.walsender import SEND_SIZE, WalSender
from tests.cluster.wire.memory import MemoryLog
from tests.cluster.wire.support import until

BASE = 1 << 20
PIECES_AT_MOST = 200
"""Then the whole log is there: pieces such as 0 and 1 in turn would never make a message, since a read begins again."""


class PieceLog(MemoryLog):
    """A log that hands out only pieces: the first `memory` pieces from memory, and some reads find no node at all."""

    def __init__(self, pieces: list[int], memory: int) -> None:
        super().__init__(42, BASE, 1 << 20, "18.6", tail=1 << 30)
        self._pieces = pieces
        self._memory = memory
        self._asked = 0

    def _piece(self, length: int) -> int:
        self._asked += 1
        if self._asked > PIECES_AT_MOST:
            return length
        return min(length, self._pieces[self._asked % len(self._pieces)])

    def read_tail(self, lsn: int, length: int) -> bytes | None:
        if self._asked >= self._memory:
            return None
        return super().read_tail(lsn, max(1, self._piece(length)))

    async def read(self, lsn: int, length: int) -> bytes:
        await asyncio.sleep(0)
        return await super().read(lsn, self._piece(length))


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing is open."""


def log_messages(written: bytes) -> list[tuple[int, bytes]]:
    """Start and log of each XLogData message."""
    parser = m.MessageParser(limit=1 << 20)
    parser.feed(written)
    found = []
    while (message := parser.next_message()) is not None:
        if message.kind == b"d" and message.body[:1] == b"w":
            found.append((struct.unpack_from(">Q", message.body, 1)[0], message.body[25:]))
    return found


PIECES = st.lists(st.integers(0, 3 * r.PAGE) | st.just(1 << 20), min_size=1, max_size=5).filter(any)


@pytest.mark.case
@given(
    PIECES,
    st.integers(0, 10),
    st.lists(st.integers(1, 30) | st.integers(1, 200_000), min_size=1, max_size=8),
    st.integers(0, 3 * r.PAGE),
)
def test_each_message_ends_with_a_record_or_a_page(
    pieces: list[int], memory: int, records: list[int], skipped: int
) -> None:
    async def play() -> None:
        log = PieceLog(pieces, memory)
        log.append(BASE, bytes(i % 251 for i in range(skipped + sum(records))))
        log.advance(BASE + skipped)
        endpoint = WalEndpoint(log)
        sender, wire = WalSender(endpoint, None), Wire()
        sender.connection_made(wire)
        for message in (
            m.startup_packet({"user": "any", "replication": "true"}),
            m.query(f"START_REPLICATION PHYSICAL {format_lsn(BASE)} TIMELINE 1"),
        ):
            sender.data_received(message)
        ends = {BASE + skipped}
        for size in records:
            ends.add(log.durable_lsn + size)
            log.advance(log.durable_lsn + size)
            await asyncio.sleep(0)
        log.add_timeline(Timeline(2, log.end, b"1\tx\ty\n"))  # the end of an earlier timeline is one of a record, too
        await until(lambda: (status := sender.status()) is not None and status.sent == log.end, "the log")
        await sender_closed(sender)
        sent, at = log_messages(bytes(wire.written)), BASE
        for start, data in sent:
            assert start == at
            at += len(data)
            assert 0 < len(data) <= SEND_SIZE
            assert at in ends or at % r.PAGE == 0
        assert b"".join(data for _, data in sent) == log._slice(BASE, len(log._bytes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walsender, "RETRY_SECONDS", 0.0)
        asyncio.run(play())


async def sender_closed(sender: WalSender) -> None:
    sender.connection_lost(None)
    await sender.stop()
