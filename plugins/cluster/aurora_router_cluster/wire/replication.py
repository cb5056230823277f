"""The streaming sub-protocol inside COPY BOTH: log data, keepalives, standby status, hot-standby feedback.

Source: PostgreSQL documentation, "Streaming Replication Protocol" (55.4). Positions are byte offsets in the log
(LSN) as integers; times on the wire are microseconds since 2000-01-01 UTC, here Unix seconds as floats.

In COPY BOTH nearly everything that a walsender sends is log data. `StreamDecoder` hands its bytes on as they come, also
from the middle of a message: what follows a message's head needs no framing, so nothing of the log is ever buffered
there, and all of one socket read comes out as one piece. Invariant: the pieces, concatenated, are the bytes of the log
from the start on, without gap or overlap, however the stream was cut; all other messages come out whole and in order.
"""

from __future__ import annotations

import re
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.wire.errors import ProtocolError
from aurora_router_cluster.wire.messages import MESSAGE_LIMIT, Message

if TYPE_CHECKING:
    from collections.abc import Callable

POSTGRES_EPOCH: Final = 946_684_800
"""2000-01-01 UTC in Unix seconds."""
PAGE: Final = 8192
"""Bytes of a page of the log (XLOG_BLCKSZ)."""

_COPY_DATA: Final = ord("d")
_LOG: Final = ord("w")
_HEAD: Final = 30
"""Bytes of an XLogData message before the log: kind, length, 'w', start, end, time."""
_XLOG_DATA = struct.Struct(">cIcQQq")
_KEEPALIVE = struct.Struct(">cIcQqB")
_STATUS = struct.Struct(">cIcQQQqB")
_FEEDBACK = struct.Struct(">cIcqIIII")
_KEEPALIVE_BODY = struct.Struct(">QqB")
_STATUS_BODY = struct.Struct(">QQQqB")
_FEEDBACK_BODY = struct.Struct(">qIIII")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> int:
    """Read a log position.

    Raises:
        ProtocolError: `text` is not of the form ``XXXXXXXX/XXXXXXXX`` in hexadecimal digits.
    """
    found = _LSN.fullmatch(text)
    if found is None:
        raise ProtocolError(f"{text!r} is not a log position; one looks like 0/3020BA0")
    return int(found[1], 16) << 32 | int(found[2], 16)


def _now() -> int:
    return int((time.time() - POSTGRES_EPOCH) * 1e6)


def _unix(microseconds: int) -> float:
    return POSTGRES_EPOCH + microseconds / 1e6


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Primary keepalive message ('k').

    Attributes:
        end: current end of the log on the sender.
        sent_at: the sender's clock, Unix seconds.
        reply: an answer is wanted at once.
    """

    end: int
    sent_at: float
    reply: bool


@dataclass(frozen=True, slots=True)
class StandbyStatus:
    """Standby status update ('r'): the next position after what was written, flushed and applied."""

    written: int
    flushed: int
    applied: int
    sent_at: float
    reply: bool


@dataclass(frozen=True, slots=True)
class HotStandbyFeedback:
    """Hot-standby feedback ('h'): the oldest transaction that a reader still needs; xmin 0 means none.

    Attributes:
        xmin: oldest transaction id needed by queries.
        epoch: wrap-around count that goes with it.
        catalog_xmin: oldest one needed by logical slots.
        catalog_epoch: wrap-around count that goes with it.
    """

    xmin: int
    epoch: int
    catalog_xmin: int = 0
    catalog_epoch: int = 0


NO_FEEDBACK: Final = HotStandbyFeedback(0, 0)


def message_size(start: int, available: int, limit: int) -> int:
    """Returns how much of the log may go into the next message, in bytes; 0: more has to be read first.

    PostgreSQL's walsender ends a message at the end of a record or at the end of a page, and its walreceiver relies on
    that (walsender.c, XLogSendPhysical): its flush position is what replay takes for whole records, but for those that
    go on in the next page. A message that ends elsewhere makes replay read a record of which a part is still missing,
    report it as corrupt, and begin the stream again.

    Args:
        start: where the message begins.
        available: how many bytes from there on are at hand.
        limit: how far the log may be sent; the end of a record.
    """
    end = start + available
    if end >= limit:
        return max(0, limit - start)
    return max(0, end - end % PAGE - start)


def xlog_data_header(start: int, end: int, length: int) -> bytes:
    """Head of a CopyData message carrying `length` bytes of log from `start`; `end` is the sender's end of log."""
    return _XLOG_DATA.pack(b"d", 29 + length, b"w", start, end, _now())


def keepalive(end: int, *, reply: bool = False) -> bytes:
    """A whole CopyData message with a keepalive."""
    return _KEEPALIVE.pack(b"d", 22, b"k", end, _now(), reply)


def standby_status(written: int, flushed: int, applied: int, *, reply: bool = False) -> bytes:
    """A whole CopyData message with a standby status update."""
    return _STATUS.pack(b"d", 38, b"r", written, flushed, applied, _now(), reply)


def hot_standby_feedback(feedback: HotStandbyFeedback) -> bytes:
    """A whole CopyData message with hot-standby feedback."""
    f = feedback
    return _FEEDBACK.pack(b"d", 29, b"h", _now(), f.xmin, f.epoch, f.catalog_xmin, f.catalog_epoch)


def parse_from_sender(body: bytes) -> Keepalive:
    """Read the body of a CopyData message of the sending side that is not log data.

    Raises:
        ProtocolError: it is not a keepalive.
    """
    if body[:1] != b"k" or len(body) != 18:
        raise ProtocolError(f"the log's sender sent a stream message {body[:1]!r} of {len(body)} bytes")
    end, sent_at, reply = _KEEPALIVE_BODY.unpack_from(body, 1)
    return Keepalive(end, _unix(sent_at), bool(reply))


def parse_from_standby(body: bytes) -> StandbyStatus | HotStandbyFeedback:
    """Read the body of a CopyData message of a standby.

    Raises:
        ProtocolError: it is neither a status update nor feedback.
    """
    if body[:1] == b"r" and len(body) == 34:
        written, flushed, applied, sent_at, reply = _STATUS_BODY.unpack_from(body, 1)
        return StandbyStatus(written, flushed, applied, _unix(sent_at), bool(reply))
    if body[:1] == b"h" and len(body) == 25:
        return HotStandbyFeedback(*_FEEDBACK_BODY.unpack_from(body, 1)[1:])
    raise ProtocolError(f"a standby sent a stream message {body[:1]!r} of {len(body)} bytes")


class StreamDecoder:
    """Splits received bytes into log and messages.

    Args:
        on_message: called with every message that is not log data, in order.

    Attributes:
        position: log position of the next byte expected; set it before START_REPLICATION.
    """

    __slots__ = ("_left", "_on_message", "_rest", "position")

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self._rest = b""
        self._left = 0
        self.position = 0

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Take one socket read; return where its log starts and its log, which may be empty.

        Raises:
            ProtocolError: the log has a gap, or a length is impossible.
        """
        if self._rest:
            data = self._rest + data
        size, start = len(data), self.position
        at = min(self._left, size)
        self._left -= at
        pieces, following = [data[:at]] if at else [], start + at
        while size - at >= 5:
            length = int.from_bytes(data[at + 1 : at + 5], "big")
            end = at + 1 + length
            if data[at] == _COPY_DATA and size - at > 5 and data[at + 5] == _LOG:
                if size - at < _HEAD:
                    break
                self._check(int.from_bytes(data[at + 6 : at + 14], "big"), following, length)
                pieces.append(data[at + _HEAD : end])
                following += length + 1 - _HEAD
                self._left = max(0, end - size)
                at = min(end, size)
            elif end <= size:
                self._on_message(Message(data[at : at + 1], data[at + 5 : end]))
                at = end
            elif 4 <= length <= MESSAGE_LIMIT:
                break
            else:
                raise ProtocolError(f"a message claims {length} bytes")
        self._rest = data[at:]
        log = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.position = start + len(log)
        return start, log

    @staticmethod
    def _check(found: int, expected: int, length: int) -> None:
        if found != expected or length < _HEAD - 1:
            raise ProtocolError(
                f"the writer sent {length} bytes of log from {format_lsn(found)}, expected was {format_lsn(expected)}"
            )
