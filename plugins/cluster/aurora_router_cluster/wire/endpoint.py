"""The walsender endpoint: where vanilla hot standbys and pg_receivewal get the durable log from.

It listens on a loopback address, makes a `WalSender` for each connection and wakes them all
when the log has grown. One timer sends keepalives and drops peers that hang. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.wire.hub import Hub
from aurora_router_cluster.wire.replication import NO_FEEDBACK, HotStandbyFeedback
from aurora_router_cluster.wire.source import TimelineView
from aurora_router_cluster.wire.walsender import WalSender

if TYPE_CHECKING:
    from aurora_router_cluster.wire.handshake import Login
    from aurora_router_cluster.wire.hub import ReaderStatus
    from aurora_router_cluster.wire.source import LogSource

_BACKLOG: Final = 16
"""Connections that are accepted in one turn of the loop, before the first of them can be refused."""
_ACCEPT_TURNS: Final = 4
"""Turns of the loop within which asyncio makes a session of a connection that it has accepted."""


class WalEndpoint(Hub):
    """Serves one log to many readers.

    Args:
        source: the log.
        keepalive: seconds between keepalives.
        timeout: seconds after which a silent reader is dropped (as ``wal_sender_timeout``); it is asked for a sign of
            life after half of them.
    """

    def __init__(self, source: LogSource, *, keepalive: float = 1.0, timeout: float = 30.0) -> None:
        super().__init__(source)
        self._keepalive = keepalive
        self._timeout = timeout
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._view: tuple[object, TimelineView] | None = None
        self._feedback = NO_FEEDBACK

    async def listen_tcp(
        self, login: Login, host: str = "127.0.0.1", port: int = 0, *, private_network: bool = False
    ) -> int:
        """Listen on a loopback address and return the port.

        Args:
            login: what clients must authenticate with; there is no TCP without authentication.
            host: an address of 127.0.0.0/8 or ::1.
            port: 0 picks a free one.
            private_network: allow any address: that nothing else reads along there is up to the caller.

        Raises:
            ValueError: `host` is not a loopback address, and that was not allowed.
            OSError: the address is in use.
        """
        if not private_network and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"the log endpoint listens on loopback only, {host} is not; use an address of 127.0.0.0/8")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: WalSender(self, login), host, port, backlog=_BACKLOG)
        self._add(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def _add(self, server: asyncio.Server) -> None:
        self._servers.append(server)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._keepalive, self._tick)

    # ---- what the sessions ask for

    def view(self) -> TimelineView:
        """The timelines shown at this moment; derived again only when the source has another tuple."""
        timelines = self.source.timelines
        if self._view is None or self._view[0] is not timelines:
            self._view = timelines, TimelineView(timelines)
        return self._view[1]

    def feedback_changed(self) -> None:
        """Report to the source the oldest transaction that any reader needs, if it has changed."""
        oldest = combine_feedback([s.feedback for s in self.sessions if s.feedback is not None])
        if oldest != self._feedback:
            self._feedback = oldest
            self.source.on_feedback(oldest)

    # ---- for the owner

    def readers(self) -> list[ReaderStatus]:
        """The readers that stream at this moment."""
        return [status for session in self.sessions if (status := session.status()) is not None]

    def drop(self, application_name: str) -> int:
        """Cut the connections of one reader and return how many there were."""
        named = [s for s in self.sessions if (t := s.status()) is not None and t.application_name == application_name]
        for session in named:
            session.abort()
        return len(named)

    async def close(self) -> None:
        """Stop listening and cut every connection; safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        await self._stop_accepting()
        for server in self._servers:
            server.close()
        for session in tuple(self.sessions):
            await session.stop()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    async def _stop_accepting(self) -> None:
        """Accept no more, and let asyncio finish what it accepted: once the server is closed it would leak that."""
        loop = asyncio.get_running_loop()
        for listening in (one for server in self._servers for one in server.sockets):
            loop.remove_reader(listening.fileno())
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._keepalive, self._tick)  # first: a session that fails ends no other's ticks
        for session in tuple(self.sessions):
            session.tick(loop.time(), self._timeout)


def combine_feedback(all_feedback: list[HotStandbyFeedback]) -> HotStandbyFeedback:
    """The oldest transactions among several readers' feedback; xmin 0 says none and does not count."""
    oldest = min(((f.epoch, f.xmin) for f in all_feedback if f.xmin), default=(0, 0))
    catalog = min(((f.catalog_epoch, f.catalog_xmin) for f in all_feedback if f.catalog_xmin), default=(0, 0))
    return HotStandbyFeedback(oldest[1], oldest[0], catalog[1], catalog[0])
