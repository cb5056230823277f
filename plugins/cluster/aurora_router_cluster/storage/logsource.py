"""The durable log as the endpoint serves it to readers: across epochs, never above the VDL."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import QuorumUnavailable
from aurora_router_cluster.timeouts import wait_at_most
from aurora_router_cluster.wire.errors import LogRemovedError
from aurora_router_cluster.wire.source import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.storage.core.replica import Charter
    from aurora_router_cluster.storage.writer_link import WriterLink
    from aurora_router_cluster.wire.replication import HotStandbyFeedback

log = logging.getLogger(__name__)

CHANGE_SECONDS = 0.2
"""How long a read waits for the next epoch when the nodes refuse the present one."""


class VolumeLog:
    """`wire.source.LogSource` over whatever epoch is current.

    Args:
        system_identifier: the cluster's.
        server_version: shown to readers, e.g. ``18.6``.
        segment_size: bytes in a WAL segment file.
        base: where the log begins, in bytes.
    """

    def __init__(self, system_identifier: int, server_version: str, segment_size: int, base: int) -> None:
        self.system_identifier = system_identifier
        self.server_version = server_version
        self.segment_size = segment_size
        self.first_lsn = base
        self._durable = base
        self._link: WriterLink | None = None
        self._charter: Charter | None = None
        self._followed = asyncio.Event()  # set when another epoch is followed
        self._timelines: tuple[Timeline, ...] = (Timeline(1, base),)
        self._wakers: list[Callable[[], None]] = []
        self._feedback: HotStandbyFeedback | None = None

    def follow(self, link: WriterLink) -> None:
        """Serve the log of this epoch from now on."""
        self._replace(link, self.durable_lsn)

    def set_back(self, link: WriterLink) -> None:
        """Serve the log of a branch that begins, perhaps, below the present VDL; no reader may be reading meanwhile."""
        self._replace(link, link.driver.durable)

    def _replace(self, link: WriterLink, durable: int) -> None:
        if self._wakers:
            self._end_listening()
            link.driver.on_durable.append(self._wake)
        self._link, self._durable = link, durable
        self._followed.set()
        self._followed = asyncio.Event()
        self._wake()

    def on_attached(self) -> None:
        """A writer was attached: it learns what the readers need, they learn its timeline."""
        if self._link is not None and self._feedback is not None:
            self._link.feedback(self._feedback)
        self._wake()

    def _wake(self) -> None:
        for wake in tuple(self._wakers):
            wake()

    @property
    def durable_lsn(self) -> int:
        """The VDL, in bytes; on one branch of the log it never goes back."""
        if self._link is not None:
            self._durable = max(self._durable, self._link.driver.durable)
        return self._durable

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """The timelines that were registered at the quorum; a new tuple whenever they change."""
        charter = self._link.driver.charter if self._link is not None else None
        if charter is not None and charter is not self._charter:
            self._charter = charter
            first = Timeline(1, charter.history.base)
            later = (Timeline(t.tli, t.start, t.content) for t in charter.timelines if t.tli > 1)
            self._timelines = (first, *later)
        return self._timelines

    def read_tail(self, lsn: int, length: int) -> bytes | None:
        """Durable bytes from memory; None if they are not there."""
        return self._link.driver.read_memory(lsn, length) if self._link is not None else None

    async def read(self, lsn: int, length: int) -> bytes:
        """Durable bytes from the nodes; empty while no node that has them answers.

        Raises:
            LogRemovedError: garbage collection has removed them.
        """
        if lsn < self.first_lsn:
            raise LogRemovedError(f"the log below {self.first_lsn:#x} has been removed; rebuild the reader")
        while self._link is not None:
            link, followed = self._link, self._followed
            try:
                return await link.driver.read(lsn, length)
            except QuorumUnavailable as error:
                if link is self._link and not await _within(followed, CHANGE_SECONDS):
                    log.warning("a reader waits: %s", error)
                    return b""
        return b""

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when there is more to read."""
        if self._link is not None and not self._wakers:
            self._link.driver.on_durable.append(self._wake)
        self._wakers.append(wake)
        return lambda: self._unsubscribe(wake)

    def _unsubscribe(self, wake: Callable[[], None]) -> None:
        self._wakers.remove(wake)
        if not self._wakers:
            self._end_listening()

    def _end_listening(self) -> None:
        if self._link is not None:
            self._link.driver.on_durable.remove(self._wake)

    def on_feedback(self, feedback: HotStandbyFeedback) -> None:
        """Pass the readers' oldest transaction on to the writer."""
        self._feedback = feedback
        if self._link is not None:
            self._link.feedback(feedback)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set within so many seconds."""
    try:
        await wait_at_most(seconds, event.wait())
    except asyncio.TimeoutError:
        return False
    return True
