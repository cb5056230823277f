"""A storage node on a host of its own: it is started separately, this cluster uses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import NodeUnavailable
from aurora_router_cluster.storage.isolated import IsolatedNode
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aurora_router_cluster.hosts.hosts import Host

START_SECONDS = 60.0


class HostedNode(IsolatedNode):
    """A node that listens at a given address.

    Args:
        node: its number.
        place: its zone and address.
        directory: nothing is in it: its files are on its host.
        secret: the cluster's.
        up_again: called with the number each time that it can be reached again.
    """

    def __init__(
        self, node: int, place: Host, directory: Path, secret: str, up_again: Callable[[int], None] = lambda _node: None
    ) -> None:
        super().__init__(node, place.zone, directory, secret, up_again=up_again)
        self._place = place

    @property
    def up(self) -> bool:
        """Whether it can be spoken to."""
        return self.connected

    @property
    def lost(self) -> bool:
        """It is not this cluster's to start again."""
        return False

    @property
    def pid(self) -> int | None:
        """Its processes are its host's."""
        return None

    @property
    def size(self) -> int:
        """Unknown here."""
        return 0

    async def start(self) -> None:
        """Keep up a connection to it; returns when there is one.

        Raises:
            NodeUnavailable: there is none yet.
        """
        if self.address is None:
            self.connect(self._place.host, self._place.port)
        try:
            await wait_at_most(START_SECONDS, self.wait_connected())
        except asyncio.TimeoutError:
            why = f"nothing that knows the secret answers at {self.address} as node {self.node}"
            await self.stop()
            raise NodeUnavailable(f"node {self.node} in {self.zone} did not start: {why}") from None

    async def stop(self) -> None:
        """End the connection to it; it goes on running."""
        await self.disconnect()
