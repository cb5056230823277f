"""Group commit: frames submitted on the event loop become durable beside it.

All that is submitted while one write and sync is under way goes with the next one. So the rate of frames is not bound
by that of syncs, and one frame alone waits for nothing but its own. Order is kept: `on_durable(end)` says that every
frame below position `end` is durable, and `end` only grows.

Where the kernel syncs for us (`kernelsync`), a batch is written on the loop and synced by the kernel; one that begins
another file, and all on a system without such syncs, is written and synced in a thread. At most one batch is under way
at a time, whoever has it. A log without sync needs neither: it is written at the end of the loop's turn.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.disk.errors import LogFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.storage.disk.frames import Draft
    from aurora_router_cluster.storage.disk.kernelsync import SyncQueue
    from aurora_router_cluster.storage.disk.logfile import FrameLog, Packed


class GroupCommit:
    """Appends to one `FrameLog`; made and used on a running event loop's thread.

    Args:
        log: nobody else may append to it.
        on_durable: called with the new durable end, on the loop.
        on_failure: called once if the disk refuses, on the loop; from then on `submit` raises the same error.
        threaded: write and sync beside the loop; False: on the loop.
        kernel: the loop's queue of syncs, ours to release; None: there is none.
    """

    def __init__(
        self,
        log: FrameLog,
        on_durable: Callable[[int], None],
        on_failure: Callable[[LogFailedError], None],
        *,
        threaded: bool = True,
        kernel: SyncQueue | None = None,
    ) -> None:
        self.log = log
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._kernel = kernel
        self._pending: list[Packed] = []
        self._busy = self._closed = self._reported = False
        self._work: queue.SimpleQueue[list[Packed] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="frame-log", daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    def submit(self, draft: Draft) -> int:
        """Queue a frame and return its position.

        Raises:
            LogFailedError: the log has failed or is closed.
        """
        position, pieces = self.log.reserve(draft)
        self._pending += pieces
        if not self._busy:
            self._busy = True
            (self._kernel or self._loop).call_soon(self._kick)
        return position

    async def close(self) -> None:
        """Write what is queued, end the thread and close the log."""
        self._closed = True
        if self.log.failed is None and self._pending:
            batch, self._pending = self._pending, []
            if self._thread is None:
                self.log.write(batch)
            else:
                self._work.put(batch)
        self._work.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._kernel is not None:
            self._kernel.release()
            self._kernel = None
        self.log.close()

    def _kick(self) -> None:
        batch, self._pending = self._pending, []
        if not batch or self._closed:
            self._busy = False
        elif self._kernel is not None and self.log.stageable(batch):
            self._stage(self._kernel, batch)
        elif self._thread is not None:
            self._work.put(batch)
        else:
            self._settle(lambda: self.log.write(batch))

    def _stage(self, kernel: SyncQueue, batch: list[Packed]) -> None:
        try:
            descriptor = self.log.stage(batch)
        except LogFailedError as error:
            self._done(self.log.durable, error)
        else:
            kernel.sync(descriptor, partial(self._synced, batch))

    def _synced(self, batch: list[Packed], status: int) -> None:
        if not self._closed:
            self._settle(lambda: self.log.settle(batch, -status))

    def _settle(self, end: Callable[[], int]) -> None:
        try:
            durable, error = end(), None
        except LogFailedError as failure:
            durable, error = self.log.durable, failure
        self._done(durable, error)

    def _run(self) -> None:
        while (batch := self._work.get()) is not None:
            error: LogFailedError | None = None
            try:
                self.log.write(batch)
            except LogFailedError as failure:
                error = failure
            try:
                self._loop.call_soon_threadsafe(self._done, self.log.durable, error)
            except RuntimeError:  # the loop was closed without `close`; nobody waits for an answer
                return

    def _done(self, durable: int, error: LogFailedError | None) -> None:
        if self._pending and error is None:
            self._kick()
        else:
            self._busy = False
        if error is None:
            self._on_durable(durable)
        elif not self._reported:
            self._reported = True
            self._on_failure(error)
