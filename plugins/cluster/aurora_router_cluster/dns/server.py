"""The cluster's name server: UDP and TCP on one loopback port, answers made by `answers`.

Malformed packets are dropped (UDP) or end their connection (TCP); nothing that a client sends ends the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from typing import TYPE_CHECKING, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from aurora_router_cluster.dns import answers
from aurora_router_cluster.errors import AddressInUseError
from aurora_router_cluster.rpc.streams import StreamServer
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.dns.zone import Zone

PLAIN_UDP = 512  # bytes, RFC 1035; EDNS clients say how much more they take
MOST_UDP = 1232  # what fits every path unfragmented (DNS flag day 2020)
IDLE = 10.0  # seconds after which a silent TCP connection is closed
MOST_TCP = 32  # connections; beyond that the oldest one is closed, for anyone on this machine can make them
ATTEMPTS = 50


class DnsServer(StreamServer):
    """Answers questions about the zone that `picture` returns at that moment.

    Args:
        picture: called for each question.
        host: the address to listen on.
        port: 0 for any free one.
        mute: called for each question; ``silent`` or ``refuses`` (SERVFAIL) instead of an answer.
    """

    def __init__(
        self,
        picture: Callable[[], Zone],
        host: str = "127.0.0.1",
        port: int = 0,
        mute: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__(MOST_TCP)
        self._picture = picture
        self._mute = mute
        self.host = host
        self.port = port
        self._turns: dict[str, itertools.count[int]] = {}
        self._udp: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            AddressInUseError: the port asked for is taken, or none was found that is free for UDP and TCP.
        """
        loop = asyncio.get_running_loop()
        udp, tcp = self._bind()
        self.port = udp.getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
        self._listening = await asyncio.start_server(self.accept, sock=tcp)

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        failure: OSError | None = None
        for _ in range(ATTEMPTS if self.port == 0 else 1):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                udp.bind((self.host, self.port))
                tcp.bind(udp.getsockname())
            except OSError as error:
                failure = error
                udp.close()
                tcp.close()
            else:
                return udp, tcp
        asked = f"port {self.port}" if self.port else "any port"
        raise AddressInUseError(f"the name server cannot listen on {self.host}, {asked}: {failure}") from failure

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._udp is not None:
            self._udp.close()
        await super().close()

    def respond(self, wire: bytes, limit: int | None) -> bytes | None:
        """The answer to one packet; None where it deserves none.

        Args:
            wire: the packet.
            limit: at most so many bytes, unless the client's EDNS allows more (UDP); None: no limit (TCP).
        """
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError, struct.error, IndexError):
            return _format_error(wire)
        if query.flags & dns.flags.QR:
            return None
        mute = self._mute()
        if mute is not None:
            return None if mute == "silent" else _failure(query)
        response = answers.answer(self._picture(), query, self._turn(query))
        if query.edns >= 0:
            response.use_edns(0, payload=MOST_UDP)
            limit = max(limit, min(query.payload, MOST_UDP)) if limit is not None else None
        full = response.to_wire()
        if limit is None or len(full) <= limit:
            return full
        truncated = dns.message.make_response(query)
        truncated.flags |= dns.flags.TC | dns.flags.AA
        return truncated.to_wire()

    def _turn(self, query: dns.message.Message) -> int:
        name = query.question[0].name.to_text().lower() if query.question else ""
        if name not in self._turns and len(self._turns) > 1000:  # a client asks for random names
            self._turns.clear()
        return next(self._turns.setdefault(name, itertools.count()))

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer questions over TCP."""
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError):
            while True:
                size = await wait_at_most(IDLE, reader.readexactly(2))
                packet = await wait_at_most(IDLE, reader.readexactly(int.from_bytes(size, "big")))
                response = self.respond(packet, None)
                if response is None:
                    break
                writer.write(len(response).to_bytes(2, "big") + response)
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # what asyncio has is one by shape alone

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._server.respond(data, PLAIN_UDP)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


def _failure(query: dns.message.Message) -> bytes:
    """SERVFAIL."""
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response.to_wire()


def _format_error(wire: bytes) -> bytes | None:
    """FORMERR for what has at least a header of a query; nothing for other rubbish."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + bytes([0x80 | (wire[2] & 0x79), 0x01]) + bytes(8)
