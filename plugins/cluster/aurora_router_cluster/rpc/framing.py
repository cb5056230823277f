"""Messages of a connection: framing, without I/O.

A message is its length, its kind, a number, and a body. The number of a request comes back with its answer; what is
sent without being asked has the number 0 and is lost with the connection.

Invariant of `Stream`: the messages found depend on the bytes alone, never on how they were cut into chunks.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final, NamedTuple

Facts = dict[str, Any]
"""Named values that JSON can hold."""

HELLO, PROOF, REQUEST, ANSWER, FAILED = range(1, 6)
"""Kinds of messages."""
OWN: Final = 16
"""Kinds from here on mean what the kind of server says."""

HEADER: Final = struct.Struct("!IBQ")  # length of the body, kind, number

LONGEST: Final = 256 << 20
"""Bytes of the longest body once the peer has been authenticated."""
LONGEST_STRANGER: Final = 256
"""Bytes of the longest body before that."""


class MalformedStream(ConnectionError):
    """What came is not this protocol; the connection is of no use any more."""


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: one of the constants of this module, or a server's own.
        number: of the request that it is, or answers; 0: neither.
        body: opaque here.
    """

    kind: int
    number: int
    body: bytes


class Reply(NamedTuple):
    """What a request is answered with.

    Attributes:
        facts: named values.
        data: raw bytes beside them.
    """

    facts: Facts
    data: bytes = b""


class Stream:
    """Finds the messages of one direction of a connection.

    Attributes:
        limit: bytes of the longest body accepted.
    """

    __slots__ = ("_buffer", "limit")

    def __init__(self, limit: int = LONGEST_STRANGER) -> None:
        self._buffer = bytearray()
        self.limit = limit

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def next_message(self) -> Message | None:
        """Take the next whole message; None until more bytes arrive.

        Raises:
            MalformedStream: its length is above the limit.
        """
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return None
        length, kind, number = HEADER.unpack_from(buffer)
        if length > self.limit:
            raise MalformedStream(f"a message of {length} bytes was announced, {self.limit} are allowed")
        end = HEADER.size + length
        if len(buffer) < end:
            return None
        body = bytes(memoryview(buffer)[HEADER.size : end])
        del buffer[:end]
        return Message(kind, number, body)


def frame(kind: int, number: int, *parts: bytes) -> bytes:
    """One message as bytes."""
    return b"".join((HEADER.pack(sum(map(len, parts)), kind, number), *parts))


def pack(facts: Facts, data: bytes = b"") -> bytes:
    """The body of a request or an answer: facts, and raw bytes behind them."""
    text = json.dumps(facts, separators=(",", ":")).encode()
    return b"".join((struct.pack("!I", len(text)), text, data))


def unpack(body: bytes) -> Reply:
    """The inverse of `pack`.

    Raises:
        MalformedStream: it is not such a body.
    """
    try:
        (length,) = struct.unpack_from("!I", body)
        facts = json.loads(body[4 : 4 + length])
    except (struct.error, ValueError) as error:
        raise MalformedStream(f"a body cannot be read: {error}") from error
    if not isinstance(facts, dict):
        raise MalformedStream(f"a body does not hold facts but {facts!r:.60}")
    return Reply(facts, body[4 + length :])
