"""A node's journal on a disk: frames in checksummed files, synced in groups by a worker thread.

The place of a frame's data is the position of its file frame plus what stands before the data there; since positions
only grow, the frame that holds a place is found again by bisection.

Metadata say what the node has promised, and no peer can give them back. So each is written twice, the second copy after
the first was synced, and counts as durable when both are. Metadata that were acknowledged are forgotten only where both
copies are damaged. `replay` refuses to start where that is possible; one damaged copy costs nothing. Each has a number,
so that a copy is not taken for something newer.
"""

from __future__ import annotations

import asyncio
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import CorruptLog, NodeUnavailable
from aurora_router_cluster.storage.core.scrub import Places
from aurora_router_cluster.storage.disk.commit import GroupCommit
from aurora_router_cluster.storage.disk.errors import DamagedError, LogFailedError, OutOfFilesError
from aurora_router_cluster.storage.disk.frames import HEADER_SIZE, Damage, Draft
from aurora_router_cluster.storage.disk.kernelsync import SyncQueue
from aurora_router_cluster.storage.disk.logfile import FILE_SIZE, FrameLog
from aurora_router_cluster.storage.protocols import METADATA, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aurora_router_cluster.storage.disk.frames import Header

_VDL = struct.Struct("<Q")
_BEFORE = HEADER_SIZE + _VDL.size
_LEAST_METADATA = _BEFORE + 128
"""Bytes that a frame with metadata takes at least."""
FIRST, SECOND = 0, 1
"""The copies of metadata, as the group of their frames."""


@dataclass(slots=True)
class _Waiting:
    """A frame that is not durable yet.

    Attributes:
        end: position that has to be durable.
        position: of the frame.
        done: see `protocols.Journal.append`.
        copy: what is written once more when `end` is durable; None: nothing is.
    """

    end: int
    position: int
    kind: int
    done: Callable[[int | OSError], None]
    copy: Draft | None


class _NewerMetadata:
    """Whether damage may have taken metadata that are newer than all that were found.

    An acknowledgement of the metadata numbered n+1 takes both copies of n and both of n+1. So if n is the newest found,
    both copies of n+1 are damaged, and so is each copy of n that was not found; all of them lie after the first of n.
    """

    def __init__(self) -> None:
        self.number = 0
        self._found = 0  # copies of the newest
        self._damaged: list[Damage] = []

    def add(self, header: Header) -> bool:
        """Metadata were found; whether they are newer than all before."""
        if header.prev < self.number:
            return False
        newer = header.prev > self.number
        if newer and header.group == FIRST:
            self._damaged.clear()  # it lies before: at most an older one is in it
        self._found = 1 if newer else self._found + 1
        self.number = header.prev
        return newer

    def damage(self, damage: Damage) -> None:
        """A place was found damaged."""
        self._damaged.append(damage)

    def worst(self) -> Damage | None:
        """The first place that may have held part of newer metadata, if both their copies may be lost."""
        could = [(damage, self._room(damage)) for damage in self._damaged]
        known = sum(d.header is not None and _is_metadata(d.header, self.number) for d in self._damaged)
        missing = 2 - self._found - known if self.number else 0  # copies of the newest found that are anywhere else
        if sum(room for _, room in could) < 2 + missing:
            return None
        return next(damage for damage, room in could if room)

    def _room(self, damage: Damage) -> int:
        """How many frames with newer metadata may have been there; two stand for any number."""
        if damage.header is not None:
            return int(damage.header.kind == METADATA and damage.header.prev > self.number)
        return 1 if 0 < damage.length < 2 * _LEAST_METADATA else 4


class DiskJournal:
    """`protocols.Journal` on files; made on a running event loop.

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
        self._waiting: deque[_Waiting] = deque()
        self._metadata = 0  # position of the newest metadata that are durable
        self._number = 0  # of the newest metadata
        self._damaged: list[Damage] = []  # as the last scrub found
        kernel = SyncQueue.acquire() if sync else None
        self._commit = GroupCommit(self._log, self._durable, self._on_failure, threaded=sync, kernel=kernel)

    @property
    def stalled(self) -> str | None:
        """Why nothing becomes durable at this moment, though the disk has not failed; None: nothing is held up."""
        return self._commit.stalled

    def replay(self) -> Iterator[tuple[Frame, int]]:
        """All frames, oldest first.

        Raises:
            CorruptLog: acknowledged metadata may be among what is damaged, so that it is unknown what was promised.
                Damaged log is left out instead: it is a hole, and filled by the peers.
        """
        newer, note = _NewerMetadata(), self._positions.append
        unpack, skip, new = _VDL.unpack_from, _VDL.size, tuple.__new__
        for entry in self._log.entries():
            if isinstance(entry, Damage):
                newer.damage(entry)
                continue
            header, payload = entry
            position, kind, group, epoch, lsn, prev, _, _, _ = header
            note(position)
            if kind == METADATA:
                self._metadata = position
                if not newer.add(header):
                    continue
            frame = new(Frame, (kind, epoch, unpack(payload)[0], group, prev, lsn, payload[skip:]))
            yield frame, position + _BEFORE
        self._number = newer.number
        damage = newer.worst()
        if damage is not None:
            raise CorruptLog(
                f"the journal is damaged at {damage.position:#x}, where this node's last promise may have been: it "
                "must not serve; replace the node"
            )

    def append(self, frame: Frame, done: Callable[[int | OSError], None]) -> None:
        """Queue a frame; see `protocols.Journal`."""
        copy: Draft | None = None
        if frame.kind == METADATA:
            self._number += 1
            draft, copy = (_metadata(frame, self._number, which) for which in (FIRST, SECOND))
        else:
            draft = _draft(frame)
        try:
            position = self._submit(draft)
        except LogFailedError as error:
            done(OSError(str(error)))
            return
        self._waiting.append(_Waiting(position + draft.size, position, frame.kind, done, copy))

    def _submit(self, draft: Draft) -> int:
        position = self._commit.submit(draft)
        self._positions.append(position)
        return position

    def _durable(self, end: int) -> None:
        waiting = self._waiting
        while waiting and waiting[0].end <= end:
            first = waiting[0]
            if first.copy is not None:
                try:
                    first.end = self._submit(first.copy) + first.copy.size
                except LogFailedError:
                    return  # `_on_failure` is called, or the journal is being closed
                first.copy = None
                continue
            waiting.popleft()
            if first.kind == METADATA:
                self._metadata = first.position
            first.done(first.position + _BEFORE)

    def _on_failure(self, error: LogFailedError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.done(OSError(str(error)))

    def read(self, place: int, n: int) -> bytes:
        """`n` bytes of one frame's data from `place` on, verified.

        Raises:
            CorruptLog: the frame is not what was written.
            NodeUnavailable: it cannot be read at this moment.
        """
        position = self._positions[bisect_right(self._positions, place) - 1]
        try:
            return self._log.read(position, place - position - HEADER_SIZE, n)
        except (DamagedError, KeyError) as error:
            raise CorruptLog(f"the frame at {position:#x} cannot be read: {error}") from error
        except OutOfFilesError as error:
            raise NodeUnavailable(str(error)) from error

    def trim(self, place: int | None) -> None:
        """Delete the files that lie wholly below `place`; never that of the newest durable metadata."""
        keep = self._metadata if place is None else min(place - _BEFORE, self._metadata)
        if self._log.drop_before(keep):
            del self._positions[: bisect_left(self._positions, self._log.start)]

    async def scrub(self) -> list[Places]:
        """The damaged places, past the operating system's cache where it lets us; read in a thread.

        Raises:
            NodeUnavailable: the files cannot be opened at this moment.
        """
        try:
            found = await asyncio.to_thread(lambda: list(self._log.scrub()))
        except (OutOfFilesError, OSError) as error:
            raise NodeUnavailable(f"the journal cannot be read now: {error}") from error
        self._damaged = found
        return [Places(damage.position, damage.end) for damage in found]

    async def retire(self) -> None:
        """Overwrite what the last scrub found damaged; see `protocols.Journal`.

        Raises:
            NodeUnavailable: the disk refused, or the files cannot be opened at this moment.
        """
        damaged, self._damaged = self._damaged, []
        try:
            await asyncio.to_thread(lambda: [self._log.retire(damage) for damage in damaged])
        except (OutOfFilesError, LogFailedError) as error:
            raise NodeUnavailable(f"what was damaged cannot be overwritten now: {error}") from error

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


def _is_metadata(header: Header, number: int) -> bool:
    return header.kind == METADATA and header.prev == number


def _metadata(frame: Frame, number: int, copy: int) -> Draft:
    """What is written of metadata; `copy`: `FIRST` or `SECOND`."""
    return Draft(METADATA, frame.epoch, 0, _VDL.pack(frame.vdl) + frame.data, copy, number)
