"""Group commit: frames submitted on the event loop become durable beside it.

All that is submitted while one write and sync is under way goes with the next one. So the rate of frames is not bound
by that of syncs, and one frame alone waits for nothing but its own. Order is kept: `on_durable(end)` says that every
frame below position `end` is durable, and `end` only grows.

Where the kernel syncs for us (`kernelsync`), a batch is written on the loop and synced by the kernel; one that begins
another file, and all on a system without such syncs, is written and synced in a thread. At most one batch is under way
at a time, in any process or thread. A log without sync needs neither: it is written at the end of the loop's turn.

A batch that begins another file and finds that too many are open waits, and is tried again: nothing was lost, and
`stalled` says why nothing becomes durable meanwhile. A log at rest is marked (`FrameLog.mark`).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.storage.disk.errors import LogFailedError, OutOfFilesError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.storage.disk.frames import Draft
    from aurora_router_cluster.storage.disk.kernelsync import SyncQueue
    from aurora_router_cluster.storage.disk.logfile import FrameLog, Placed

AGAIN: Final = 0.1
"""Seconds until a file that could not be opened is tried again."""
REST: Final = 0.02
"""Seconds without a frame after which a log is marked."""


class GroupCommit:
    """Appends to one `FrameLog`; made and used on a running event loop's thread.

    Args:
        log: nothing else may append to it.
        on_durable: called with the new durable end, on the loop.
        on_failure: called once if the disk refuses, on the loop; from then on `submit` raises the same error.
        threaded: write and sync beside the loop; False: on the loop.
        kernel: the loop's queue of syncs, ours to release; None: there is none.

    Attributes:
        stalled: why nothing becomes durable at this moment, though the disk has not failed; None: nothing is held up.
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
        self._pending: list[Placed] = []
        self._busy = self._closed = self._reported = False
        self._marking: asyncio.TimerHandle | None = None
        self.stalled: str | None = None
        self._work: queue.SimpleQueue[list[Placed] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="frame-log", daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    def submit(self, draft: Draft) -> int:
        """Queue a frame and return its position.

        Raises:
            LogFailedError: the log has failed or is closed.
            ValueError: the frame is too big.
        """
        position, placed = self.log.reserve(draft)
        self._pending += placed
        if not self._busy:
            self._busy = True
            (self._kernel or self._loop).call_soon(self._kick)
        return position

    async def close(self) -> None:
        """Write what is queued, end the thread, mark the log and close it."""
        self._closed = True
        if self._marking is not None:
            self._marking.cancel()
        if self.log.failed is None and self._pending:
            batch, self._pending = self._pending, []
            if self._thread is None:
                with contextlib.suppress(LogFailedError, OutOfFilesError):
                    self.log.write(batch)
            else:
                self._work.put(batch)
        self._work.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._kernel is not None:
            self._kernel.release()
            self._kernel = None
        self.log.mark()
        self.log.close()

    def _kick(self) -> None:
        batch, self._pending = self._pending, []
        if not batch or self._closed:
            self._busy = False
        elif self._kernel is not None and self._stage(self._kernel, batch):
            return
        elif self._thread is not None:
            self._work.put(batch)
        else:
            self._write(batch)

    def _write(self, batch: list[Placed]) -> None:
        """Write a batch on the loop, now or as soon as a file can be opened for it."""
        if self._closed:
            return
        try:
            self._settle(lambda: self.log.write(batch))
        except OutOfFilesError as error:
            self.stalled = str(error)
            self._loop.call_later(AGAIN, self._write, batch)

    def _stage(self, kernel: SyncQueue, batch: list[Placed]) -> bool:
        """Write a batch and let the kernel sync it; False: it has to be written beside the loop."""
        try:
            descriptor = self.log.stage(batch)
        except LogFailedError as error:
            self._finish_batch(self.log.durable, error)
            return True
        if descriptor is None:
            return False
        kernel.sync(descriptor, partial(self._on_sync, batch))
        return True

    def _on_sync(self, batch: list[Placed], status: int) -> None:
        if self._closed:
            return
        try:
            durable = self.log.settle(batch, -status)
        except LogFailedError as error:
            self._finish_batch(self.log.durable, error)
        else:
            self._finish_batch(durable, None)

    def _settle(self, end: Callable[[], int]) -> None:
        try:
            durable, error = end(), None
        except LogFailedError as failure:
            durable, error = self.log.durable, failure
        self._finish_batch(durable, error)

    def _run(self) -> None:
        while (batch := self._work.get()) is not None:
            error: LogFailedError | None = None
            try:
                self._write_patiently(batch)
            except LogFailedError as failure:
                error = failure
            try:
                self._loop.call_soon_threadsafe(self._finish_batch, self.log.durable, error)
            except RuntimeError:  # the loop was closed without `close`; no caller waits for an answer
                return

    def _write_patiently(self, batch: list[Placed]) -> None:
        while True:
            try:
                self.log.write(batch)
            except OutOfFilesError as error:
                self.stalled = str(error)
                if self._closed:
                    return
                time.sleep(AGAIN)
            else:
                return

    def _mark(self) -> None:
        self._marking = None
        if not self._busy and not self._closed:
            self.log.mark()

    def _finish_batch(self, durable: int, error: LogFailedError | None) -> None:
        self.stalled = None
        if self._pending and error is None:
            self._kick()
        else:
            self._busy = False
            if self._marking is None and not self._closed:
                self._marking = self._loop.call_later(REST, self._mark)
        if error is None:
            self._on_durable(durable)
        elif not self._reported:
            self._reported = True
            self._on_failure(error)
