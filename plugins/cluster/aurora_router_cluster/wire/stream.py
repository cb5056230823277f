"""Decoder of what a writer's walsender sends, made for the hot path; without I/O.

In COPY BOTH nearly everything is log data. Its bytes are handed on as they come, also from the middle of a message:
what follows a message's head needs no framing, so nothing of the log is ever buffered here, and all of one socket read
comes out as one piece. Invariant: the pieces, concatenated, are the bytes of the log from the start on, without gap or
overlap, however the stream was cut; all other messages come out whole and in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aurora_router_cluster.wire.errors import ProtocolError
from aurora_router_cluster.wire.messages import MESSAGE_LIMIT, Message
from aurora_router_cluster.wire.replication import lsn_text

if TYPE_CHECKING:
    from collections.abc import Callable

_COPY_DATA: Final = ord("d")
_XLOG_DATA: Final = ord("w")
_HEAD: Final = 30
"""Bytes of an XLogData message before the log: kind, length, 'w', start, end, time."""


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
            if data[at] == _COPY_DATA and size - at > 5 and data[at + 5] == _XLOG_DATA:
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
                f"the writer sent {length} bytes of log from {lsn_text(found)}, expected was {lsn_text(expected)}"
            )
