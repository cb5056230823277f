"""A node's journal on a disk: frames in checksummed files, synced in groups by a worker thread.

The place of a frame's data is the position of its file frame plus what stands before the data there; since positions
only grow, the frame that holds a place is found again by bisection.
"""

from __future__ import annotations

import asyncio
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import CorruptLog
from aurora_router_cluster.storage.core.scrub import Places
from aurora_router_cluster.storage.disk.commit import GroupCommit
from aurora_router_cluster.storage.disk.errors import DamagedError, LogFailedError
from aurora_router_cluster.storage.disk.frames import HEADER_SIZE, Damage, Draft
from aurora_router_cluster.storage.disk.kernelsync import SyncQueue
from aurora_router_cluster.storage.disk.logfile import FILE_SIZE, FrameLog
from aurora_router_cluster.storage.ports import METADATA, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_VDL = struct.Struct("<Q")
_BEFORE = HEADER_SIZE + _VDL.size


class DiskJournal:
    """`ports.Journal` on files; made on a running event loop.

    Args:
        directory: of the files; made if missing.
        sync: whether frames survive a power loss, or only the end of this process.
        file_size: bytes after which another file is begun.

    Raises:
        LogFailedError: the files cannot be opened.
    """

    def __init__(self, directory: Path, *, sync: bool = True, file_size: int = FILE_SIZE) -> None:
        self._log = FrameLog.open(directory, sync=sync, file_size=file_size)
        self._positions = array("Q")
        self._waiting: deque[tuple[int, int, int, Callable[[int | OSError], None]]] = deque()
        self._metadata = 0  # position of the newest metadata that are durable
        kernel = SyncQueue.acquire() if sync else None
        self._commit = GroupCommit(self._log, self._durable, self._failed, threaded=sync, kernel=kernel)

    def replay(self) -> Iterator[tuple[Frame, int]]:
        """All frames, oldest first.

        Raises:
            CorruptLog: metadata may be among what is damaged, so that nobody knows what was promised. Damaged log is
                left out instead: it is a hole, and filled by the peers.
        """
        doubtful: Damage | None = None
        for entry in self._log.entries():
            if isinstance(entry, Damage):
                if entry.header is None or entry.header.kind == METADATA:
                    doubtful = entry
                continue
            header = entry.header
            if header.kind == METADATA:
                doubtful = None
                self._metadata = header.position
            self._positions.append(header.position)
            (vdl,) = _VDL.unpack_from(entry.payload)
            data = entry.payload[_VDL.size :]
            frame = Frame(header.kind, header.epoch, vdl, header.group, header.prev, header.lsn, data)
            yield frame, header.position + _BEFORE
        if doubtful is not None:
            raise CorruptLog(
                f"the journal is damaged at {doubtful.position:#x} and has no metadata after that place: what this "
                "node has promised is unknown; replace the node"
            )

    def append(self, frame: Frame, done: Callable[[int | OSError], None]) -> None:
        """Queue a frame; see `ports.Journal`."""
        draft = _draft(frame)
        try:
            position = self._commit.submit(draft)
        except LogFailedError as error:
            done(OSError(str(error)))
            return
        self._positions.append(position)
        self._waiting.append((position + draft.size, position, frame.kind, done))

    def _durable(self, end: int) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= end:
            _, position, kind, done = waiting.popleft()
            if kind == METADATA:
                self._metadata = position
            done(position + _BEFORE)

    def _failed(self, error: LogFailedError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for _, _, _, done in waiting:
            done(OSError(str(error)))

    def read(self, place: int, n: int) -> bytes:
        """`n` bytes of one frame's data from `place` on, verified.

        Raises:
            CorruptLog: the frame is not what was written.
        """
        position = self._positions[bisect_right(self._positions, place) - 1]
        try:
            return self._log.read(position, place - position - HEADER_SIZE, n)
        except (DamagedError, KeyError) as error:
            raise CorruptLog(f"the frame at {position:#x} cannot be read: {error}") from error

    def trim(self, place: int | None) -> None:
        """Delete the files that lie wholly below `place`; never that of the newest durable metadata."""
        keep = self._metadata if place is None else min(place - _BEFORE, self._metadata)
        if self._log.drop_before(keep):
            del self._positions[: bisect_left(self._positions, self._log.start)]

    async def scrub(self) -> list[Places]:
        """The damaged places, past the operating system's cache where it lets us; read in a thread."""
        found = await asyncio.to_thread(lambda: list(self._log.scrub()))
        return [Places(damage.position, damage.position + max(damage.length, 1)) for damage in found]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._log.size

    async def close(self) -> None:
        """Write what is queued, end the thread, close the files."""
        await self._commit.close()


@lru_cache(maxsize=1)
def _draft(frame: Frame) -> Draft:
    """What is written of a frame; the same goes to all nodes of this process, one after the other."""
    return Draft(frame.kind, frame.epoch, frame.start, _VDL.pack(frame.vdl) + frame.data, frame.group, frame.prev)
