"""A session of the supervisor's own with an instance: one simple query at a time, over the Unix socket or TCP.

It speaks the frontend/backend protocol 3.0 itself, the few messages that a superuser's simple queries need: trusted on
the socket, with a password over TCP to an instance on a host of its own. The driver would do, but waits for the server
when a query is cancelled, which is the wrong thing with a server that may be frozen (here a deadline closes the socket
and that is that), and takes a quarter of the time in which a whole cluster starts to be imported.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError, StartingUpError
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from aurora_router_cluster.postgres.endpoints import EngineAddress
    from aurora_router_cluster.wire.scram import ScramClient

Row = tuple["str | None", ...]
PROTOCOL = 3 << 16
CONTROL_PLANE = "aurora_control_plane"
"""The ``application_name`` of these sessions."""
SASL, SASL_CONTINUE, SASL_FINAL = 10, 11, 12  # steps of an authentication request
AUTHENTICATED = bytes(4)
HEADER = struct.Struct("!cI")


class Session:
    """A lazily opened session as superuser; queries wait for each other.

    After any failure it is closed, and the next query opens it again.

    Attributes:
        backend: process id of the server process behind it, where that runs; None: there is none yet.
    """

    def __init__(self, engine: EngineAddress, database: str = "postgres") -> None:
        self._engine = engine
        self._database = database
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self._exchange: ScramClient | None = None
        self.backend: int | None = None

    async def query(self, sql: str, timeout: float = 5.0) -> list[Row]:
        """Run `sql` and return the rows of its last result, values as text.

        Raises:
            StartingUpError: it takes no connections yet.
            EngineError: not answered within `timeout` seconds, or refused; the message has the server's words.
        """
        async with self._lock:
            try:
                return await wait_at_most(timeout, self._query(sql))
            except asyncio.TimeoutError:
                self.close()
                raise EngineError(f"{self._engine.name} did not answer within {timeout:g} s") from None
            except (OSError, asyncio.IncompleteReadError) as error:
                self.close()
                raise EngineError(f"{self._engine.name} ended the connection, or refused it: {error}") from error
            except BaseException:
                self.close()
                raise

    async def _query(self, sql: str) -> list[Row]:
        reader, writer = self._streams or await self._open()
        writer.write(_message(b"Q", sql.encode() + b"\0"))
        await writer.drain()
        return await self._rows(reader)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        engine = self._engine
        if isinstance(engine.address, tuple):
            self._streams = await asyncio.open_connection(*engine.address)
        else:
            self._streams = await asyncio.open_unix_connection(str(engine.address))
        reader, writer = self._streams
        wanted = {"user": engine.superuser, "database": self._database, "application_name": CONTROL_PLANE}
        body = b"".join(f"{key}\0{value}\0".encode() for key, value in wanted.items()) + b"\0"
        writer.write(struct.pack("!II", len(body) + 8, PROTOCOL) + body)
        await self._rows(reader)  # what precedes the first ReadyForQuery has no rows, or is an error
        return reader, writer

    async def _rows(self, reader: asyncio.StreamReader) -> list[Row]:
        """Read up to ReadyForQuery."""
        rows: list[Row] = []
        while True:
            kind, size = HEADER.unpack(await reader.readexactly(HEADER.size))
            body = await reader.readexactly(size - 4)
            if kind == b"D":
                rows.append(_values(body))
            elif kind == b"T":
                rows = []
            elif kind == b"R" and body != AUTHENTICATED:
                self._authenticate(body)
            elif kind == b"K":
                (self.backend,) = struct.unpack_from("!I", body)
            elif kind == b"E":
                fields = _error_fields(body)
                failure = StartingUpError if fields.get(b"C") == b"57P03" else EngineError
                raise failure(f"{self._engine.name}: {_error_text(fields)}")
            elif kind == b"Z":
                return rows

    def _authenticate(self, body: bytes) -> None:
        """Answer a message of the SCRAM exchange, in which the server has to know the password, too."""
        from aurora_router_cluster.wire.errors import WireError  # noqa: PLC0415 - a socket asks for none
        from aurora_router_cluster.wire.scram import MECHANISM, ScramClient  # noqa: PLC0415 - as above

        (step,) = struct.unpack_from("!I", body)
        try:
            if step == SASL:
                self._exchange = ScramClient(self._engine.password or "")
                first = self._exchange.first()
                self._send_proof(MECHANISM.encode() + b"\0" + struct.pack("!I", len(first)) + first)
            elif step == SASL_CONTINUE and self._exchange is not None:
                self._send_proof(self._exchange.final(body[4:]))
            elif step == SASL_FINAL and self._exchange is not None:
                self._exchange.verify(body[4:])
            else:
                raise EngineError(f"{self._engine.name} asks for authentication {step}, only SCRAM is agreed on")
        except WireError as error:
            raise EngineError(f"{self._engine.name} and we do not trust each other: {error}") from error

    def _send_proof(self, body: bytes) -> None:
        if self._streams is not None:
            self._streams[1].write(_message(b"p", body))

    def close(self) -> None:
        """Close the socket without a word to the server; a query under way fails."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = self.backend = None


def _message(kind: bytes, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body) + 4) + body


def _values(body: bytes) -> Row:
    """The values of a DataRow message."""
    (count,) = struct.unpack_from("!H", body)
    values: list[str | None] = []
    offset = 2
    for _ in range(count):
        (size,) = struct.unpack_from("!i", body, offset)
        offset += 4
        values.append(None if size < 0 else body[offset : offset + size].decode())
        offset += max(size, 0)
    return tuple(values)


def _error_fields(body: bytes) -> dict[bytes, bytes]:
    """The fields of an ErrorResponse."""
    return {field[:1]: field[1:] for field in body.split(b"\0") if field}


def _error_text(fields: dict[bytes, bytes]) -> str:
    """Severity, SQLSTATE and message."""
    severity, sqlstate, message = (fields.get(kind, b"").decode(errors="replace") for kind in (b"S", b"C", b"M"))
    return f"{severity or 'ERROR'} {sqlstate}: {message}"
