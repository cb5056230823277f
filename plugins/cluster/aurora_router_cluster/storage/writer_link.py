"""A writer attached to the volume: its log goes to the driver, what is durable goes back to its commits.

The storage is the writer's synchronous standby: it reports as flushed what has met the write quorum and ends with a
whole record (VDL), so PostgreSQL itself acknowledges a commit only then.

A timeline must be registered at a write quorum *before* its log is taken: a promotion whose writer was never attached
burns its number, and the next candidate may use the same number with another history.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.lsn import format_lsn, parse_lsn
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.core.history import Timeline
from aurora_router_cluster.wire.errors import WireError
from aurora_router_cluster.wire.walreceiver import EndReason, WalReceiver

if TYPE_CHECKING:
    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.wire.replication import HotStandbyFeedback
    from aurora_router_cluster.wire.walreceiver import StreamEnd, WriterAddress

log = logging.getLogger(__name__)

STANDBY_NAME = "aurora_storage"
CATCH_UP = 5.0
"""Seconds that a writer's log has to meet the write quorum when it is attached."""


class WriterLink:
    """One epoch's driver, and its writer once there is one.

    Args:
        driver: of the epoch.
        system_identifier: which writers may be attached.
    """

    def __init__(self, driver: Driver, system_identifier: int) -> None:
        self.driver = driver
        self._identifier = system_identifier
        self._receiver: WalReceiver | None = None
        self._writer: WriterAddress | None = None
        self._preconnecting: tuple[WriterAddress, asyncio.Task[WalReceiver]] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._retired = False
        driver.on_durable.append(self._report)
        driver.on_fenced.append(self._on_fenced)
        driver.on_full.append(self._hold)

    @property
    def attached(self) -> bool:
        """Whether a writer streams."""
        return self._receiver is not None and not self._receiver.ended.done()

    def preconnect(self, writer: WriterAddress) -> None:
        """Begin to connect to the new writer: a connection takes about as long as all the rest of `attach`."""
        if self._preconnecting is None:
            connecting = WalReceiver.connect(writer, self.driver.feed, application_name=STANDBY_NAME)
            task = asyncio.get_running_loop().create_task(connecting)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # `attach` retries, and reports
            self._preconnecting = (writer, task)

    async def _connection_to(self, writer: WriterAddress) -> WalReceiver:
        """A connection to `writer`: the one that `preconnect` began, if it is any good."""
        if self._preconnecting is not None and self._preconnecting[0] == writer:
            with contextlib.suppress(WireError):
                await asyncio.shield(self._preconnecting[1])
            receiver = await self._take_preconnected()
            if receiver is not None and not receiver.ended.done():
                return receiver
        return await WalReceiver.connect(writer, self.driver.feed, application_name=STANDBY_NAME)

    async def _take_preconnected(self) -> WalReceiver | None:
        """The connection that `preconnect` opened, if any; it is the caller's then."""
        if self._preconnecting is None:
            return None
        (_, task), self._preconnecting = self._preconnecting, None
        task.cancel()
        await asyncio.wait({task})
        return None if task.cancelled() or task.exception() is not None else task.result()

    async def attach(self, writer: WriterAddress) -> None:
        """Take the log of `writer`; returns once its commits can be acknowledged, or after `CATCH_UP` seconds.

        Raises:
            StorageError: it is not this volume's writer: another system identifier, or a timeline that did not begin
                where this epoch did; or the epoch is over.
            QuorumUnavailable: its timeline could not be registered.
            WireError: it could not be reached, or refused.
        """
        if self.driver.over:
            raise StorageError(f"epoch {self.driver.epoch} is over")
        receiver = await self._connection_to(writer)
        try:
            had = await self._begin(receiver)
        except BaseException:
            await receiver.close()
            raise
        self._receiver, self._writer = receiver, writer
        receiver.ended.add_done_callback(self._on_stream_end)
        self._report()
        await self._wait_until_caught_up(receiver, had)

    async def _wait_until_caught_up(self, receiver: WalReceiver, position: int) -> None:
        """Wait until the write quorum has what the writer had already; as long as that can be expected.

        The copies that readers begin with end there, too: a recovery below it would ask them to forget what they have.
        Without a write quorum commits wait, as they do whenever it is lost, and nothing else has to.
        """
        deadline = time.monotonic() + CATCH_UP
        advanced = asyncio.Event()
        self.driver.on_durable.append(advanced.set)
        self.driver.on_fenced.append(advanced.set)
        try:
            while self.driver.tracker.vcl < position:
                if receiver.ended.done() or self.driver.over:
                    raise StorageError("the writer was lost before the write quorum had its log")
                if time.monotonic() > deadline:
                    log.warning("the write quorum lacks the writer's log up to %s: commits wait", format_lsn(position))
                    return
                waiting: asyncio.Future[Any] = asyncio.ensure_future(advanced.wait())
                either: set[asyncio.Future[Any]] = {waiting, receiver.ended}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED, timeout=deadline - time.monotonic())
                waiting.cancel()
                advanced.clear()
        finally:
            self.driver.on_durable.remove(advanced.set)
            self.driver.on_fenced.remove(advanced.set)

    async def _begin(self, receiver: WalReceiver) -> int:
        """Start to stream; returns the end of what the writer had flushed before, in bytes."""
        identity = await receiver.identify_system()
        if identity.system_identifier != self._identifier:
            raise StorageError(
                f"the writer has system identifier {identity.system_identifier}, the volume {self._identifier}"
            )
        await self._register(receiver, identity.timeline)
        await receiver.create_slot(STANDBY_NAME)
        tracker = self.driver.tracker
        await receiver.start(tracker.received, identity.timeline, flushed=tracker.vdl, slot=STANDBY_NAME)
        return identity.lsn

    async def _register(self, receiver: WalReceiver, tli: int) -> None:
        charter = self.driver.charter
        known = charter.timelines[-1] if charter.timelines else None
        content = await receiver.timeline_history(tli) if tli > 1 else b""
        start = _switch_position(content) if tli > 1 else charter.history.base
        if known is not None and known.tli == tli and known.content == content:
            return
        if start != self.driver.charter.history.start or (known is not None and tli <= known.tli):
            raise StorageError(
                f"the writer's timeline {tli} began at {format_lsn(start)}; epoch {self.driver.epoch} began at "
                f"{format_lsn(charter.history.start)} after timeline {known.tli if known else 0}: it was promoted too "
                "early, or for another epoch; rebuild it and promote again"
            )
        timeline = Timeline(self.driver.epoch, tli, start, content)
        await self.driver.amend(timelines=(*charter.timelines, timeline))

    def feedback(self, feedback: HotStandbyFeedback) -> None:
        """Let the writer keep the rows that readers still need."""
        if self._receiver is not None:
            self._receiver.feedback(feedback)

    def _hold(self, hold: bool) -> None:  # noqa: FBT001  # the two calls are each other's inverse
        if self._receiver is not None:
            self._receiver.hold(hold)

    def _report(self) -> None:
        if self._receiver is not None:
            durable = self.driver.tracker.vdl
            self._receiver.report(durable, durable, durable)  # also for commits that wait for ``remote_write`` alone

    def _on_fenced(self) -> None:
        log.info("epoch %d is over: nodes obey %s", self.driver.epoch, self.driver.tracker.refusals)
        self._end_soon()

    def retire(self) -> None:
        """Another epoch is current. A writer that still runs is left to find that out from the nodes, which refuse."""
        self._retired = True
        if not self.attached:
            self._end_soon()

    async def leave(self, writer: WriterAddress) -> None:
        """End the stream from a writer that goes on in another epoch."""
        if self._receiver is not None and self._writer == writer:
            await self.close()

    def _end_soon(self) -> None:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self.close())

    def _on_stream_end(self, ended: asyncio.Future[StreamEnd]) -> None:
        end = ended.result()
        if end.reason is not EndReason.CLOSED:
            log.info("the log of epoch %d ended: %s %s", self.driver.epoch, end.reason.value, end.error or "")
        if self._retired:
            self._end_soon()

    async def close(self) -> None:
        """Leave the writer and the nodes; the writer's commits wait from now on."""
        approached = await self._take_preconnected()
        if approached is not None:
            await approached.close()
        if self._receiver is not None:
            await self._receiver.close()
        await self.driver.close()


def _switch_position(history: bytes) -> int:
    """Where a timeline begins, by the last entry of its history file (``tli <tab> position <tab> reason``).

    Raises:
        StorageError: the file has no entry.
    """
    lines = [line.split(b"\t") for line in history.splitlines() if line.strip() and not line.startswith(b"#")]
    if not lines or len(lines[-1]) < 2:
        raise StorageError(f"a timeline's history file has no entry: {history!r}")
    return parse_lsn(lines[-1][1].decode())
