"""A session of the supervisor's own with an instance: one simple query at a time, over the Unix socket.

It speaks the frontend/backend protocol 3.0 itself, the few messages that a trusted superuser's simple queries
need. The driver would do, but waits for the server when a query is cancelled, which is the wrong thing with a
server that may be frozen (here a deadline closes the socket and that is that), and takes a quarter of the time in
which a whole cluster starts to be imported.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError

if TYPE_CHECKING:
    from aurora_router_cluster.volume import EngineAddress

Row = tuple["str | None", ...]
PROTOCOL = 3 << 16
HEADER = struct.Struct("!cI")


class Session:
    """A lazily opened session as superuser; queries wait for each other.

    After any failure it is closed, and the next query opens it anew.
    """

    def __init__(self, engine: EngineAddress, database: str = "postgres") -> None:
        self._engine = engine
        self._database = database
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def query(self, sql: str, timeout: float = 5.0) -> list[Row]:
        """Run `sql` and return the rows of its last result, values as text.

        Raises:
            EngineError: not answered within `timeout` seconds, or refused; the message has the server's words.
        """
        async with self._lock:
            try:
                return await asyncio.wait_for(self._query(sql), timeout)
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
        path = engine.socket_directory / f".s.PGSQL.{engine.port}"
        self._streams = reader, writer = await asyncio.open_unix_connection(str(path))
        wanted = {"user": engine.superuser, "database": self._database, "application_name": "aurora_control_plane"}
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
            elif kind == b"E":
                raise EngineError(f"{self._engine.name}: {_error_text(body)}")
            elif kind == b"Z":
                return rows

    def close(self) -> None:
        """Close the socket without a word to the server; a query under way fails."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


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


def _error_text(body: bytes) -> str:
    """Severity, SQLSTATE and message of an ErrorResponse."""
    fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return f"{fields.get(b'S', 'ERROR')} {fields.get(b'C', '')}: {fields.get(b'M', '')}"
