"""The durable log of one storage node: append-only files of checksummed frames.

A position is ``file number << 32 | offset``, so that positions grow with the log and name the file. Files are called by
their number in hexadecimal, the last one grows, whole old ones are dropped by garbage collection.

Invariants:
    * what `write` was given is durable when it returns (with ``sync=True``), and no frame is written to a new file
      before the old one is durable and the new one's name is;
    * no byte is ever handed out whose checksum does not match;
    * a file with a successor ends with a seal, so that a file cut short is noticed even if it is cut between frames;
    * after a failed write or sync nothing is accepted any more: the node must refuse, not lie.

`reserve` runs on the owner's thread and `write` may run on another; the calls of each must not overlap themselves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from itertools import groupby
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.storage.disk.errors import DamagedError, LogFailedError, RepairError
from aurora_router_cluster.storage.disk.frames import (
    HEADER_SIZE,
    PAD,
    SEAL,
    Damage,
    Draft,
    Frame,
    pack_header,
    parse_frame,
    parse_header,
    scan,
    without_torn_tail,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILE_SIZE: Final = 16 << 20
_SUFFIX: Final = ".frames"
_OFFSET: Final = (1 << 32) - 1
_READ_AHEAD: Final = 16 << 10
_VECTORS: Final = 512
_MOST_STAGED: Final = 256 << 10
_SEAL: Final = Draft(SEAL, 0, 0, b"")
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync

Packed = tuple[int, "bytes | memoryview"]
"""Position, bytes: what `reserve` makes and `write` takes."""


class FrameLog:
    """The frames of one node. Open it with `open`, which repairs the torn tail of a power loss.

    Args:
        directory: of the files; made if it is missing.
        file_size: a file that has reached so many bytes is not appended to, at most 2 GiB.
        sync: False trades durability for speed: frames survive a kill of the process but not a power loss.

    Attributes:
        end: position where the next frame goes.
        durable: position up to which frames are written (and synced); they may be read.
        torn: how many bytes were cut off when it was opened.
        failed: the error that ended it, or None.
    """

    def __init__(self, directory: Path, *, file_size: int = FILE_SIZE, sync: bool = True) -> None:
        self._directory = directory
        self._file_size = min(file_size, 1 << 31)
        self._sync = sync
        self._files: dict[int, int] = {}
        self._missing: set[int] = set()
        self._lock = -1
        self._last: Frame | None = None
        self._found: tuple[int, list[Frame | Damage]] = (0, [])  # in the last file, when it was opened up to there
        self.torn = 0
        self.failed: LogFailedError | None = None
        self.end = self.durable = 0

    @classmethod
    def open(cls, directory: Path, *, file_size: int = FILE_SIZE, sync: bool = True) -> FrameLog:
        """Open the log of `directory`, or begin one; a torn tail is cut off durably.

        Raises:
            LogFailedError: the files cannot be opened, read or cut, or another process has them open.
        """
        log = cls(directory, file_size=file_size, sync=sync)
        try:
            log._open()
        except OSError as error:
            log.close()
            raise LogFailedError(f"the log in {directory} cannot be opened: {error}") from error
        return log

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        numbers = sorted(int(path.stem, 16) for path in self._directory.glob(f"*{_SUFFIX}")) or [1]
        self._missing = set(range(numbers[0], numbers[-1])) - set(numbers)
        for number in numbers:
            self._create(number)
        last = max(self._files)
        data = self._content(last)
        found = without_torn_tail(list(scan(data, last << 32)))
        self.end = self.durable = found[-1].header.end if found and isinstance(found[-1], Frame) else last << 32
        self._found = self.end, found
        kept = self.end & _OFFSET
        self.torn = len(data) - kept
        if self.torn:
            os.ftruncate(self._files[last], kept)
            os.fsync(self._files[last])
        self._sync_directory()

    # ---- write

    def reserve(self, draft: Draft) -> tuple[int, list[Packed]]:
        """Give a frame its place at the end; returns its position and the pieces for `write`, to be written in order.

        Raises:
            LogFailedError: the log has failed.
            ValueError: the frame is too big.
        """
        if self.failed is not None:
            raise self.failed
        pieces = list[Packed]()
        if (self.end & _OFFSET) + draft.size > self._file_size and self.end & _OFFSET:
            pieces = _packed(_SEAL, self.end)
            self.end = ((self.end >> 32) + 1) << 32
        position = self.end
        pieces += _packed(draft, position)
        self.end = position + draft.size
        return position, pieces

    def write(self, pieces: Sequence[Packed]) -> int:
        """Write reserved pieces, contiguous and in order, and make them durable; returns the new durable end.

        Raises:
            LogFailedError: the disk refused; the log is failed from now on.
        """
        self._commit(pieces)
        if pieces:
            self.durable = _end(pieces)
        return self.durable

    def stageable(self, pieces: Sequence[Packed]) -> bool:
        """Whether reserved pieces are few and go to one file that is there already: then `stage` will do."""
        start, end = pieces[0][0], _end(pieces)
        return end - start <= _MOST_STAGED and start >> 32 in self._files

    def stage(self, pieces: Sequence[Packed]) -> int:
        """Write stageable pieces; they are durable once the file, whose descriptor is returned, was synced.

        Raises:
            LogFailedError: as `write`.
        """
        if self.failed is not None:
            raise self.failed
        descriptor = self._files[pieces[0][0] >> 32]
        try:
            _write_pieces(descriptor, pieces)
        except OSError as error:
            raise self._fail(error) from error
        return descriptor

    def settle(self, pieces: Sequence[Packed], status: int) -> int:
        """The sync of staged pieces has ended with `status`: 0, or an error's number; returns the new durable end.

        Raises:
            LogFailedError: as `write`.
        """
        if status:
            raise self._fail(OSError(status, os.strerror(status)))
        self.durable = _end(pieces)
        return self.durable

    def _commit(self, pieces: Sequence[Packed]) -> None:
        if self.failed is not None:
            raise self.failed
        try:
            for _, of_one_file in groupby(pieces, key=lambda piece: piece[0] >> 32):
                self._write_file(list(of_one_file))
        except OSError as error:
            raise self._fail(error) from error

    def _fail(self, error: OSError) -> LogFailedError:
        self.failed = LogFailedError(f"writing the log in {self._directory} failed: {error}; the node must stop")
        return self.failed

    def append(self, *drafts: Draft) -> list[int]:
        """Reserve and write frames at once; durable when it returns.

        Raises:
            LogFailedError: as `write`.
        """
        reserved = [self.reserve(draft) for draft in drafts]
        self.write([piece for _, pieces in reserved for piece in pieces])
        return [position for position, _ in reserved]

    def _write_file(self, pieces: Sequence[Packed]) -> None:
        number = pieces[0][0] >> 32
        if number not in self._files:
            self._create(number)
            self._sync_directory()
        descriptor = self._files[number]
        _write_pieces(descriptor, pieces)
        if self._sync:
            _sync_data(descriptor)

    # ---- read

    def frame(self, position: int) -> Frame:
        """Read one durable frame, verified.

        Raises:
            DamagedError: it is not what was written; repair it.
            KeyError: its file was dropped.
        """
        last = self._last
        if last is not None and last.header.position == position:
            return last
        if position >= self.durable:
            raise DamagedError(f"position {position:#x} is not durable yet, the log ends at {self.durable:#x}")
        descriptor, offset = self._files[position >> 32], position & _OFFSET
        data = self._pread(descriptor, _READ_AHEAD, offset)
        header = parse_header(data, 0, position)
        if header is not None and len(data) < HEADER_SIZE + header.length:
            data += self._pread(descriptor, HEADER_SIZE + header.length - len(data), offset + len(data))
        self._last = parse_frame(data, 0, position)
        return self._last

    def read(self, position: int, offset: int, length: int) -> bytes:
        """Read `length` bytes (fewer at its end) from `offset` on of the payload of the frame at `position`, verified.

        Raises:
            DamagedError: the frame is not what was written.
            KeyError: its file was dropped.
        """
        return self.frame(position).payload[offset : offset + length]

    def entries(self) -> Iterator[Frame | Damage]:
        """All durable frames and all damage, in order: what a node reads when it starts.

        What was read of the last file while the log was opened is not read once more, if nothing was added.
        """
        (end, opened), self._found = self._found, (0, [])
        last = max(self._files)
        for number in sorted(self._files.keys() | self._missing):
            if number in self._missing:
                yield Damage(number << 32, 0, None)
            elif number == last and end == self.durable:
                yield from (entry for entry in opened if _shown(entry))
            else:
                yield from self._entries(number, sealed=number == last)

    def _entries(self, number: int, *, sealed: bool) -> Iterator[Frame | Damage]:
        data = self._content(number)
        for entry in scan(data, number << 32):
            if _shown(entry):
                yield entry
            elif isinstance(entry, Frame) and entry.header.kind == SEAL:
                sealed = True
        if not sealed:
            yield Damage(number << 32 | len(data), 0, None)

    def scrub(self) -> Iterator[Damage]:
        """Read everything durable from the disk again, past the page cache where possible; yield what is damaged."""
        self._found = (0, [])
        for number in sorted(self._files):
            with contextlib.suppress(OSError, AttributeError):  # macOS has no such call; the check is then weaker
                os.posix_fadvise(self._files[number], 0, 0, os.POSIX_FADV_DONTNEED)
        yield from (entry for entry in self.entries() if isinstance(entry, Damage))

    def _content(self, number: int) -> bytes:
        """The durable bytes of a file; while the log is being opened all of them."""
        descriptor = self._files[number]
        size = os.fstat(descriptor).st_size
        if self.durable and number >= self.durable >> 32:
            size = min(size, self.durable & _OFFSET) if number == self.durable >> 32 else 0
        return self._pread(descriptor, size, 0)

    @staticmethod
    def _pread(descriptor: int, length: int, offset: int) -> bytes:
        data = os.pread(descriptor, length, offset)
        while len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data))):
            data += more
        return data

    # ---- repair and garbage collection

    def repair(self, damage: Damage, drafts: Sequence[Draft]) -> list[int]:
        """Write good frames over a damaged place, durably; returns their positions.

        Args:
            damage: as `scrub` or `entries` told it.
            drafts: the frames that were there, with bytes from a peer. They must fill the place exactly, or leave at
                least a header's size, which is padded.

        Raises:
            RepairError: they do not fit, or an intact header says that the lost bytes were others.
            LogFailedError: the disk refused.
        """
        pieces, positions, at = list[Packed](), list[int](), damage.position
        end = damage.position + damage.length
        for draft in [*drafts, *_padding(end - at - sum(draft.size for draft in drafts))]:
            packed = _packed(draft, at)
            if damage.header is not None and parse_header(packed[0][1], 0, at) != damage.header:
                raise RepairError(f"the frame at {at:#x} was another one: its intact header does not fit these bytes")
            positions.append(at)
            pieces += packed
            at += draft.size
        self._commit(pieces)
        self._last = None
        return positions[: len(drafts)]

    def drop_before(self, position: int) -> int:
        """Delete the files that lie wholly before `position`, never the last one; returns how many."""
        numbers = [number for number in sorted(self._files) if number < min(position, self.durable) >> 32]
        for number in numbers:
            os.close(self._files.pop(number))
            self._path(number).unlink()
        self._missing = {number for number in self._missing if number > min(self._files)}
        if numbers:
            self._last = None
            self._sync_directory()
        return len(numbers)

    @property
    def start(self) -> int:
        """Position of the oldest file."""
        return min(self._files) << 32

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(os.fstat(descriptor).st_size for descriptor in self._files.values())

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self.failed = self.failed or LogFailedError("the log is closed")

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:08x}{_SUFFIX}"

    def _create(self, number: int) -> None:
        self._files[number] = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _sync_directory(self) -> None:
        if self._sync:
            os.fsync(self._lock)


def _packed(draft: Draft, position: int) -> list[Packed]:
    header = pack_header(draft, position)
    return [(position, header), (position + HEADER_SIZE, draft.payload)] if draft.payload else [(position, header)]


def _shown(entry: Frame | Damage) -> bool:
    """Whether readers see it: padding and seals they do not."""
    return isinstance(entry, Damage) or entry.header.kind not in (PAD, SEAL)


def _end(pieces: Sequence[Packed]) -> int:
    position, data = pieces[-1]
    return position + len(data)


def _write_pieces(descriptor: int, pieces: Sequence[Packed]) -> None:
    """Write contiguous pieces of one file."""
    for at in range(0, len(pieces), _VECTORS):
        part = pieces[at : at + _VECTORS]
        _write_all(descriptor, [data for _, data in part], part[0][0] & _OFFSET)


def _write_all(descriptor: int, buffers: list[bytes | memoryview], offset: int) -> None:
    total = sum(map(len, buffers))
    written = os.pwritev(descriptor, buffers, offset)
    if written < total:  # a signal or a nearly full disk: the next call tells which
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            done = os.pwrite(descriptor, rest, offset + total - len(rest))
            rest = rest[done:]


def _padding(room: int) -> list[Draft]:
    if room == 0:
        return []
    if room < HEADER_SIZE:
        raise RepairError(f"the frames offered do not fit the damaged place: {room} bytes would be left")
    return [Draft(PAD, 0, 0, bytes(room - HEADER_SIZE))]
