"""What clients of an instance connect to: it forwards MySQL's protocol to the server's Unix socket.

The statements that name what only Aurora has are rewritten (`rewriting`); everything else is forwarded byte by byte:
the authentication, prepared statements, packets over 16 MB, ``COM_CHANGE_USER``. TLS and compression are taken out of
the server's greeting, because they would hide the statements.

While the server is down, nothing listens: clients are refused, as by a host without a server.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import AddressInUseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aurora_router_cluster.postgres.addresses import Address

COM_QUERY, COM_STMT_PREPARE = 0x03, 0x16
MOST = 0xFFFFFF
"""A packet of that many bytes is continued by the next one."""
LONGEST = 1 << 16
"""Longer statements are forwarded as they are: none that asks for the topology is so long."""
PIECE = 1 << 16
TLS, COMPRESSION, ZSTD = 1 << 11, 1 << 5, 1 << 26


class Front:
    """Listens for one instance.

    Args:
        address: where clients connect to.
        upstream: the server's Unix socket.
        rewrite: returns a statement as the server has to execute it.
    """

    def __init__(self, address: Address, upstream: Path, rewrite: Callable[[bytes], bytes]) -> None:
        self.address = address
        self._upstream = upstream
        self._rewrite = rewrite
        self._listening: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, unless it does.

        Raises:
            AddressInUseError: something else listens there.
        """
        if self._listening is not None:
            return
        host, port = self.address.host, self.address.port
        try:
            self._listening = await asyncio.start_server(self._accept, host, port)
        except OSError as error:
            raise AddressInUseError(f"{host}:{port} is taken ({error}); end what listens there") from None

    async def stop(self) -> None:
        """Stop listening, and reset all connections."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        clients = list(self._clients)
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            from_server, upstream = await asyncio.open_unix_connection(str(self._upstream))
            writer.write(await _read_greeting(from_server))
            up = asyncio.ensure_future(self._forward_commands(reader, upstream))
            down = asyncio.ensure_future(_forward(from_server, writer))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                if down.done():  # what the server said last has been written
                    await writer.drain()
            finally:
                for each in (up, down):
                    each.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except (OSError, EOFError):
            pass
        finally:
            if upstream is not None:
                upstream.transport.abort()
            with contextlib.suppress(OSError):
                writer.close()

    async def _forward_commands(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        """Forward what a client sends; the first packet of a command has the number 0."""
        continued = False
        while True:
            head = await reader.readexactly(4)
            length = int.from_bytes(head[:3], "little")
            if head[3] == 0 and not continued and length <= LONGEST:
                body = await reader.readexactly(length)
                if body[:1] in {bytes([COM_QUERY]), bytes([COM_STMT_PREPARE])}:
                    body = body[:1] + self._rewrite(body[1:])
                upstream.write(len(body).to_bytes(3, "little") + head[3:] + body)
            else:
                upstream.write(head)
                while length_left := length:
                    piece = await reader.readexactly(min(length_left, PIECE))
                    length -= len(piece)
                    upstream.write(piece)
                    await upstream.drain()
                length = int.from_bytes(head[:3], "little")
            continued = length == MOST
            await upstream.drain()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()


async def _read_greeting(reader: asyncio.StreamReader) -> bytes:
    """The server's greeting, without TLS and compression; a refusal in its place as it is."""
    head = await reader.readexactly(4)
    body = bytearray(await reader.readexactly(int.from_bytes(head[:3], "little")))
    if body[:1] == b"\x0a":
        at = body.index(0, 1) + 1 + 4 + 8 + 1  # behind the version: thread, first part of the salt, a zero
        low = int.from_bytes(body[at : at + 2], "little") & ~(TLS | COMPRESSION)
        high = int.from_bytes(body[at + 5 : at + 7], "little") & ~(ZSTD >> 16)
        body[at : at + 2], body[at + 5 : at + 7] = low.to_bytes(2, "little"), high.to_bytes(2, "little")
    return head + bytes(body)
