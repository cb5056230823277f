"""A session of the supervisor's own with an instance: libpq without blocking, one simple query at a time.

The driver's asyncio connection waits for the server when a query is cancelled, which is the wrong thing to do
with a server that may be frozen: here a deadline closes the socket and that is that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from aurora_router_cluster.errors import EngineError

if TYPE_CHECKING:
    from aurora_router_cluster.volume import EngineAddress

Row = tuple[str | None, ...]


class Session:
    """A lazily opened session as superuser over the instance's Unix socket.

    Queries wait for each other. After any failure it is closed, and the next query opens it anew.
    """

    def __init__(self, engine: EngineAddress, database: str = "postgres") -> None:
        self._engine = engine
        self._database = database
        self._connection: pq.abc.PGconn | None = None
        self._lock = asyncio.Lock()
        self._condemned = False

    async def query(self, sql: str, timeout: float = 5.0) -> list[Row]:
        """Run `sql` and return the rows of its last result, values as text.

        Raises:
            EngineError: not answered within `timeout` seconds, or refused; the message has the server's words.
        """
        async with self._lock:
            try:
                return await asyncio.wait_for(self._query(sql), timeout)
            except asyncio.TimeoutError:
                self._finish()
                raise EngineError(f"{self._engine.name} did not answer within {timeout:g} s") from None
            except psycopg.Error as error:
                self._finish()
                raise EngineError(f"{self._engine.name}: {error}") from error
            except BaseException:
                self._finish()
                raise
            finally:
                if self._condemned:
                    self._finish()

    async def _query(self, sql: str) -> list[Row]:
        connection = self._connection or await self._connect()
        connection.send_query(sql.encode())
        while connection.flush():
            await _ready(connection.socket, write=True)
        rows: list[Row] = []
        while True:
            while connection.is_busy():
                await _ready(connection.socket, write=False)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                return rows
            rows = self._rows(result)

    def _rows(self, result: pq.abc.PGresult) -> list[Row]:
        if result.status not in {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY}:
            raise EngineError(f"{self._engine.name}: {result.error_message.decode(errors='replace').strip()}")
        return [
            tuple(
                None if value is None else bytes(value).decode()
                for value in (result.get_value(row, column) for column in range(result.nfields))
            )
            for row in range(result.ntuples)
        ]

    async def _connect(self) -> pq.abc.PGconn:
        engine = self._engine
        where = f"host={engine.socket_directory} port={engine.port} user={engine.superuser} dbname={self._database}"
        options = "gssencmode=disable application_name=aurora_control_plane"
        connection = pq.PGconn.connect_start(f"{where} {options}".encode())
        try:
            while (status := connection.connect_poll()) in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
                await _ready(connection.socket, write=status == pq.PollingStatus.WRITING)
        except BaseException:
            connection.finish()
            raise
        if status != pq.PollingStatus.OK:
            message = connection.error_message.decode(errors="replace").strip()
            connection.finish()
            raise EngineError(f"{engine.name}: {message}")
        connection.nonblocking = 1
        self._connection = connection
        return connection

    def close(self) -> None:
        """Close the socket without a word to the server; under a running query, when that ends."""
        if self._lock.locked():  # its descriptor is being watched: closed now, the number could be somebody else's
            self._condemned = True
        else:
            self._finish()

    def _finish(self) -> None:
        self._condemned = False
        if self._connection is not None:
            self._connection.finish()
            self._connection = None


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    add(descriptor, wake)
    try:
        await done
    finally:
        remove(descriptor)
