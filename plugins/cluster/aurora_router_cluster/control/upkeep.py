"""Upkeep of the storage while the cluster runs: bases and garbage collection, scrubs, and nodes that were lost.

The log would grow without bound, six times. So a running instance is copied into the storage from time to time, as the
*base* of instances that are built later, and the log below it is forgotten once every reader has applied it. A *scrub*
reads all disks again and refills from peers what is damaged. A storage node whose process has ended by itself is
started again over its files, and so is one whose disk has failed, once that takes what is written. A change
of the members that was interrupted is finished or undone.

Invariant: nothing is collected or scrubbed while the lock of the cluster state is held, that is during a failover or
another change of the cluster; what is under way when that begins is broken off, and done again later. The copying of a
base goes on meanwhile: it deletes nothing, and a large one might never end otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.storage.core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aurora_router_cluster.control.state import ClusterState
    from aurora_router_cluster.storage.quorum import QuorumVolume

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between two looks at what is due."""
YIELD = 0.02
"""Seconds within which upkeep makes way for a failover."""
LEAST_LOG = 16 << 20
"""Bytes of log since the last base below which another one is not worth while."""
SHARE = 16
"""A base is taken at once only after log of at least this part of the data: it copies all of that."""
MANY_TIMELINES = 16
"""Timelines since the last base after which another one is taken: a rebuilt instance stops at the end of each."""
AGAIN = 30.0
"""Seconds until what failed is tried again."""


class Upkeep:
    """Looks after the storage of one cluster.

    Args:
        state: the cluster.
        volume: its volume.
        base_interval: seconds between two bases, if there is new log; 0: none is taken by time.
        base_bytes: bytes of log after which a base is taken at once; 0: none is taken by size.
        scrub_interval: seconds between two scrubs; 0: none.
        auto: start lost nodes again.
    """

    def __init__(
        self,
        state: ClusterState,
        volume: QuorumVolume,
        *,
        base_interval: float,
        base_bytes: int,
        scrub_interval: float,
        auto: bool,
    ) -> None:
        self._state, self._volume, self._auto = state, volume, auto
        self._base_interval, self._base_bytes, self._scrub_interval = base_interval, base_bytes, scrub_interval
        self._task: asyncio.Task[None] | None = None
        self._based = self._scrubbed = time.monotonic()
        self._not_before = 0.0
        self._basing: asyncio.Task[None] | None = None
        self._status: dict[str, Any] = {"bases": 0, "scrubs": 0, "damaged": 0, "refilled": 0, "broken_off": 0}

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._based = self._scrubbed = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop, whatever is under way."""
        tasks = [task for task in (self._task, self._basing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """Bases taken, scrubs done, bytes refilled and works broken off so far; what damage the last scrub found."""
        return dict(self._status)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            if self._auto:
                self._volume.nodes.revive()
            try:
                await self._volume.nodes.reopen_failed()
                if not self._state.lock.locked() and time.monotonic() >= self._not_before:
                    await self._work()
            except (EngineError, StorageError) as error:
                self._not_before = time.monotonic() + AGAIN
                log.warning("upkeep: %s", error)
            except Exception:
                self._not_before = time.monotonic() + AGAIN
                log.exception("upkeep failed")

    async def _work(self) -> None:
        if self._volume.membership_change.unsettled:
            await self._run_undisturbed(self._volume.membership_change.settle())
        if self._basing is not None and self._basing.done():
            ended, self._basing = self._basing, None
            ended.result()
        if self._basing is None and self._base_due():
            self._basing = asyncio.get_running_loop().create_task(self._add_base())
        if self._volume.collectable:
            await self._run_undisturbed(self._volume.collect())
        if self._scrub_interval and time.monotonic() - self._scrubbed >= self._scrub_interval:
            await self._run_undisturbed(self._scrub())

    def _base_due(self) -> bool:
        writer, grown = self._state.writer, self._volume.grown
        if writer is None or not writer.available:
            return False
        if self._base_bytes and grown >= max(self._base_bytes, self._volume.data_size // SHARE):
            return True
        if (self._base_bytes or self._base_interval) and self._volume.timelines_begun >= MANY_TIMELINES:
            return True
        late = time.monotonic() - self._based >= self._base_interval
        return bool(self._base_interval) and late and grown >= LEAST_LOG

    async def _add_base(self) -> None:
        writer = self._state.writer
        if writer is not None:
            await self._volume.add_base(writer.where)
            self._based = time.monotonic()
            self._status["bases"] += 1

    async def _scrub(self) -> None:
        reports = await self._volume.nodes.scrub()
        self._scrubbed = time.monotonic()
        self._status["scrubs"] += 1
        self._status["damaged"] = sum(report.damaged for report in reports)
        self._status["refilled"] += sum(report.refilled for report in reports)
        for report in reports:
            if report.refilled or report.lost or report.failure is not None:
                log.warning("scrub: %s", report)

    async def _run_undisturbed(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, unless the cluster changes meanwhile: then break it off."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done() and not self._state.lock.locked():
                await asyncio.wait({task}, timeout=YIELD)
        finally:
            if not task.done():
                task.cancel()
                self._status["broken_off"] += 1
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()
