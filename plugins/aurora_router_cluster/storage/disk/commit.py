"""Group commit: frames submitted on the event loop become durable in a worker thread.

All that is submitted while one write and sync is under way goes with the next one. So the rate of frames is not bound
by that of syncs, and one frame alone waits for nothing but its own. Order is kept: `on_durable(end)` says that every
frame below position `end` is durable, and `end` only grows.

A log without sync needs no thread: its frames are written at the end of the loop's turn.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.disk.errors import LogFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.storage.disk.frames import Draft
    from aurora_router_cluster.storage.disk.logfile import FrameLog, Packed


class GroupCommit:
    """Appends to one `FrameLog`; made and used on a running event loop's thread.

    Args:
        log: nobody else may append to it.
        on_durable: called with the new durable end, on the loop.
        on_failure: called once if the disk refuses, on the loop; from then on `submit` raises the same error.
        threaded: write and sync in a thread of its own; False: on the loop.
    """

    def __init__(
        self,
        log: FrameLog,
        on_durable: Callable[[int], None],
        on_failure: Callable[[LogFailedError], None],
        *,
        threaded: bool = True,
    ) -> None:
        self.log = log
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._pending: list[Packed] = []
        self._busy = False
        self._reported = False
        self._work: queue.SimpleQueue[tuple[list[Packed], threading.Event | None] | None] = queue.SimpleQueue()
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
            self._loop.call_soon(self._kick)
        return position

    def sync(self) -> None:
        """Return when everything submitted is durable; blocks the loop for the time of one or two syncs.

        `on_durable` is called for it a turn of the loop later.

        Raises:
            LogFailedError: the disk refused.
        """
        batch, self._pending = self._pending, []
        if self._thread is None:
            self._loop.call_soon(self._told, self.log.write(batch), None)
            return
        done = threading.Event()
        self._work.put((batch, done))
        done.wait()
        if self.log.failed is not None:
            raise self.log.failed

    async def close(self) -> None:
        """Write what is queued, end the thread and close the log."""
        if self.log.failed is None:
            batch, self._pending = self._pending, []
            self._work.put((batch, None))
            if self._thread is None and batch:
                self.log.write(batch)
        self._work.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self.log.close()

    def _kick(self) -> None:
        batch, self._pending = self._pending, []
        if not batch:  # `sync` took it
            self._busy = False
        elif self._thread is not None:
            self._work.put((batch, None))
        else:
            try:
                self._done(self.log.write(batch), None)
            except LogFailedError as error:
                self._done(self.log.durable, error)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            batch, done = work
            error: LogFailedError | None = None
            try:
                self.log.write(batch)
            except LogFailedError as failure:
                error = failure
            if done is not None:
                done.set()
            self._post(self.log.durable, error, own=done is None)

    def _post(self, durable: int, error: LogFailedError | None, *, own: bool) -> None:
        try:
            self._loop.call_soon_threadsafe(self._done if own else self._told, durable, error)
        except RuntimeError:  # the loop was closed without `close`; nobody waits for an answer
            self._work.put(None)

    def _done(self, durable: int, error: LogFailedError | None) -> None:
        if self._pending and error is None:
            self._kick()
        else:
            self._busy = False
        self._told(durable, error)

    def _told(self, durable: int, error: LogFailedError | None) -> None:
        if error is None:
            self._on_durable(durable)
        elif not self._reported:
            self._reported = True
            self._on_failure(error)
