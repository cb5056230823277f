"""Framing of PostgreSQL's protocol 3: bytes to messages and back, without I/O.

Source: PostgreSQL documentation, "Message Formats" (55.7) and "Error and Notice Message Fields" (55.8).

A message is one byte of kind, four bytes of length (which counts itself, not the kind) and the body. The first
packets of a client have no kind. Invariant of `MessageParser`: the messages found depend on the bytes alone, never on
how they were cut into chunks; no more than one message's length (bounded by `limit`) is ever held back.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from aurora_router_cluster.wire.errors import ErrorFields, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROTOCOL_3_0: Final = 196608
CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104

OID_TEXT: Final = 25
OID_INT8: Final = 20

STARTUP_LIMIT: Final = 10_000
"""Longest start-up packet in bytes, as PostgreSQL has it (MAX_STARTUP_PACKET_LENGTH)."""
MESSAGE_LIMIT: Final = 1 << 30

_INT = struct.Struct(">I")
_SIGNED = struct.Struct(">i")
_SHORT = struct.Struct(">H")
_COLUMN = struct.Struct(">IhIhih")


class Message(NamedTuple):
    """One protocol message.

    Attributes:
        kind: its one-byte type; empty for the kindless packets that start a connection.
        body: everything after the length.
    """

    kind: bytes
    body: bytes


class MessageParser:
    """Incremental parser of one direction of a connection.

    Args:
        startup: the next packet has no kind byte (a server reading a new client). The owner clears `startup` when
            the start-up packet has come.
        limit: longest message accepted, in bytes; start-up packets have `STARTUP_LIMIT`.
    """

    __slots__ = ("_buffer", "_offset", "limit", "startup")

    def __init__(self, *, startup: bool = False, limit: int = MESSAGE_LIMIT) -> None:
        self.startup = startup
        self.limit = limit
        self._buffer = bytearray()
        self._offset = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += data

    def next_message(self) -> Message | None:
        """Take the next whole message; None until more bytes arrive.

        Raises:
            ProtocolError: the length is impossible or above the limit.
        """
        head = 0 if self.startup else 1
        start = self._offset
        if len(self._buffer) - start < head + 4:
            return None
        (length,) = _INT.unpack_from(self._buffer, start + head)
        self._check(length)
        end = start + head + length
        if len(self._buffer) < end:
            return None
        self._offset = end
        return Message(bytes(self._buffer[start : start + head]), bytes(self._buffer[start + head + 4 : end]))

    def _check(self, length: int) -> None:
        least, most = (8, STARTUP_LIMIT) if self.startup else (4, self.limit)
        if not least <= length <= most:
            raise ProtocolError(
                f"a message claims a length of {length} bytes, allowed are {least} to {most}; the peer does not speak "
                "PostgreSQL's protocol 3, or sends junk"
            )


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Frame one message."""
    return kind + _INT.pack(len(body) + 4) + body


def _text(value: str) -> bytes:
    encoded = value.encode()
    if b"\0" in encoded:
        raise ProtocolError("text with a zero byte cannot be sent")
    return encoded + b"\0"


# ---- what a client sends


def startup_packet(parameters: Mapping[str, str]) -> bytes:
    """StartupMessage of protocol 3.0."""
    body = b"".join(_text(key) + _text(value) for key, value in parameters.items()) + b"\0"
    return _INT.pack(len(body) + 8) + _INT.pack(PROTOCOL_3_0) + body


def query(sql: str) -> bytes:
    """Query: one command by the simple protocol."""
    return message(b"Q", _text(sql))


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """SASLInitialResponse."""
    return message(b"p", _text(mechanism) + _INT.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    """SASLResponse."""
    return message(b"p", data)


TERMINATE: Final = message(b"X")

# ---- what a server sends

AUTHENTICATION_OK: Final = message(b"R", _INT.pack(0))
READY_FOR_QUERY: Final = message(b"Z", b"I")
COPY_BOTH: Final = message(b"W", struct.pack(">BH", 0, 0))
COPY_DONE: Final = message(b"c")


def authentication_sasl(mechanisms: Sequence[str]) -> bytes:
    """AuthenticationSASL: the mechanisms offered."""
    return message(b"R", _INT.pack(10) + b"".join(map(_text, mechanisms)) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    """AuthenticationSASLContinue."""
    return message(b"R", _INT.pack(11) + data)


def authentication_sasl_final(data: bytes) -> bytes:
    """AuthenticationSASLFinal."""
    return message(b"R", _INT.pack(12) + data)


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus."""
    return message(b"S", _text(name) + _text(value))


def backend_key_data(process: int, secret: int) -> bytes:
    """BackendKeyData of protocol 3.0."""
    return message(b"K", _INT.pack(process) + _INT.pack(secret))


def negotiate_protocol_version(options: Sequence[str]) -> bytes:
    """NegotiateProtocolVersion: 3.0 is the newest known here, and none of `options` is."""
    return message(b"v", _INT.pack(PROTOCOL_3_0) + _INT.pack(len(options)) + b"".join(map(_text, options)))


def command_complete(tag: str) -> bytes:
    """CommandComplete."""
    return message(b"C", _text(tag))


def row_description(columns: Sequence[tuple[str, int]]) -> bytes:
    """RowDescription for text-format columns, given as (name, type OID)."""
    described = (_text(name) + _COLUMN.pack(0, 0, oid, -1, -1, 0) for name, oid in columns)
    return message(b"T", _SHORT.pack(len(columns)) + b"".join(described))


def data_row(values: Sequence[bytes | None]) -> bytes:
    """DataRow; None is SQL's NULL."""
    fields = (_SIGNED.pack(-1) if value is None else _INT.pack(len(value)) + value for value in values)
    return message(b"D", _SHORT.pack(len(values)) + b"".join(fields))


def error_response(fields: ErrorFields) -> bytes:
    """ErrorResponse."""
    pairs = (
        (b"S", fields.severity),
        (b"V", fields.severity),
        (b"C", fields.sqlstate),
        (b"M", fields.message),
        (b"D", fields.detail),
        (b"H", fields.hint),
    )
    return message(b"E", b"".join(code + _text(text) for code, text in pairs if text) + b"\0")


# ---- bodies


def parse_error(body: bytes) -> ErrorFields:
    """Read the body of an ErrorResponse or NoticeResponse; unknown fields are skipped."""
    found = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    severity = found.get(b"V") or found.get(b"S", "ERROR")
    return ErrorFields(
        severity,
        found.get(b"C", "XX000"),
        found.get(b"M", "no message"),
        found.get(b"D", ""),
        found.get(b"H", ""),
    )


def parse_row(body: bytes) -> list[bytes | None]:
    """Read the body of a DataRow.

    Raises:
        ProtocolError: the row is cut short.
    """
    try:
        (count,) = _SHORT.unpack_from(body)
        offset, row = 2, list[bytes | None]()
        for _ in range(count):
            (length,) = _SIGNED.unpack_from(body, offset)
            offset += 4
            row.append(None if length < 0 else body[offset : offset + length])
            offset += max(length, 0)
    except struct.error as error:
        raise ProtocolError(f"a data row of {len(body)} bytes ends early: {error}") from error
    if offset != len(body):
        raise ProtocolError(f"a data row claims {offset} bytes and has {len(body)}")
    return row


def parse_startup(body: bytes) -> tuple[int, dict[str, str]]:
    """Read a start-up packet: its request code (or protocol version) and parameters.

    Raises:
        ProtocolError: the parameters are not pairs of zero-terminated texts.
    """
    (code,) = _INT.unpack_from(body)
    if code in (CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST):
        return code, {}
    parts = body[4:].split(b"\0")
    if len(parts) < 2 or len(parts) % 2 or parts[-1] or parts[-2]:
        raise ProtocolError("the start-up packet's parameters are not pairs of name and value")
    texts = [part.decode(errors="replace") for part in parts[:-2]]
    return code, dict(zip(texts[::2], texts[1::2], strict=True))
