"""One end of a connection, of a server's or of a caller's."""

from __future__ import annotations

import abc
import asyncio
import logging
from typing import TYPE_CHECKING

from aurora_router_cluster.rpc import framing
from aurora_router_cluster.rpc.framing import MalformedStream

if TYPE_CHECKING:
    from aurora_router_cluster.rpc.framing import Message

log = logging.getLogger(__name__)


class Peer(asyncio.Protocol, abc.ABC):
    """Sends messages, and hands each one received to `on_message`.

    Args:
        name: of the other side, for the log.

    Attributes:
        ended: why the connection ended; None: it has not.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream = framing.Stream()
        self._transport: asyncio.Transport | None = None
        self._fault: MalformedStream | None = None
        self.ended: OSError | None = None

    @abc.abstractmethod
    def on_message(self, message: Message) -> None:
        """Do what a message asks for.

        Raises:
            MalformedStream: it has no business here; the connection is cut.
        """

    @property
    def queued(self) -> int:
        """Bytes that the other side has not read yet, as far as this process holds them."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what is sent from now on is lost."""
        self._transport = None
        said = exc if isinstance(exc, OSError) else ConnectionResetError(f"{self._name} ended the connection")
        self.ended = self._fault or said

    def data_received(self, data: bytes) -> None:
        """Handle all messages that are whole now."""
        self._stream.feed(data)
        try:
            while self._transport is not None and (message := self._stream.next_message()) is not None:
                self.on_message(message)
        except MalformedStream as error:
            log.warning("the connection to %s is cut: %s", self._name, error)
            self._fault = error
            self.abort()

    def trust(self) -> None:
        """Accept long messages: the other side is authenticated."""
        self._stream.limit = framing.LONGEST

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, kind: int, number: int, *parts: bytes) -> None:
        """Send a message, unless the connection has ended; it may be lost."""
        if self._transport is not None:
            self._transport.write(framing.frame(kind, number, *parts))
