"""The durable log of one storage node: append-only files of checksummed frames.

A position is ``file number << 32 | offset``, so that positions grow with the log and name the file. Files are called by
their number in hexadecimal, the last one grows, whole old ones are dropped by garbage collection.

Invariants:
    * what `write` was given is durable when it returns (with ``sync=True``), and no frame is written to a new file
      before the old one is durable and the new one's name is;
    * no byte is ever handed out whose checksum does not match;
    * a file with a successor ends with a seal, so that a file cut short is noticed even if it is cut between frames;
    * after a failed write or sync nothing is accepted any more: the node must refuse, not lie;
    * what is found when the log is opened is durable before anything is said of it: the last batch may have been
      written by a process that ended before its sync, or whose sync failed, and be in the system's cache alone;
    * the number of open files does not grow with the log, and that none can be opened is no failure of the disk.

`reserve` runs on the owner's thread, `write` may run on another, `scrub` on a third; the calls of each must not overlap
themselves. Each has descriptors of its own, so that none is closed, and its number given to another file, while it is
in use: the writer that of the file that grows, the owner a few of files read lately, a scrub that of one file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from itertools import groupby
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.errors import explain_os_error
from aurora_router_cluster.postgres.files import sync
from aurora_router_cluster.storage.disk.errors import DamagedError, LogFailedError, OutOfFilesError
from aurora_router_cluster.storage.disk.frames import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    PAD,
    SEAL,
    Damage,
    Draft,
    Frame,
    durable_position,
    pack_header,
    parse_frame,
    parse_header,
    scan,
    without_torn_tail,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILE_SIZE: Final = 8 << 20
_SUFFIX: Final = ".frames"
_OFFSET: Final = (1 << 32) - 1
_READ_AHEAD: Final = 16 << 10
_VECTORS: Final = 512
_MOST_STAGED: Final = 256 << 10
_MOST_READ: Final = 4
"""Files that are kept open for reading, besides the one that grows."""
_BLOCK: Final = 4096
_SEAL: Final = Draft(SEAL, 0, 0, b"")
_MARK: Final = Draft(PAD, 0, 0, b"")
_TRANSIENT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync

Placed = tuple[int, Draft]
"""Position, frame: what `reserve` makes and `write` takes."""


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
        self._numbers: set[int] = set()
        self._missing: set[int] = set()
        self._growing: tuple[int, int] | None = None  # number and descriptor of the file that is written to
        self._reading: dict[int, int] = {}  # number -> descriptor, the one used last at the end
        self._lock = -1
        self._last: Frame | None = None
        self._found: tuple[int, list[Frame | Damage]] = (0, [])  # in the last file, when it was opened up to there
        self._marked = 0
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
        except (OSError, OutOfFilesError) as error:
            log.close()
            why = explain_os_error(error) if isinstance(error, OSError) else error
            raise LogFailedError(f"the log in {directory} cannot be opened: {why}") from error
        return log

    def _open(self) -> None:
        if not self._directory.exists():
            self._directory.mkdir(parents=True)
            if self._sync:
                sync(self._directory.parent)
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        numbers = sorted(int(path.stem, 16) for path in self._directory.glob(f"*{_SUFFIX}")) or [1]
        self._missing = set(range(numbers[0], numbers[-1])) - set(numbers)
        self._numbers = set(numbers)
        last = numbers[-1]
        descriptor = self._grow(last)
        data, base = _content(descriptor, os.fstat(descriptor).st_size), last << 32
        entries = list(scan(data, base))
        found = without_torn_tail(entries, data, base)
        kept = _end_of(found[-1]) - base if found else 0
        self.torn = len(data) - kept
        if self.torn:
            os.ftruncate(descriptor, kept)
        start = durable_position(found, base) - base
        if self._sync and (self.torn or start < kept):
            _write_all(descriptor, [data[start:kept]], start, kept - start)
            os.fsync(descriptor)
        self.end = self.durable = self._marked = base + kept
        self._found = self.end, found
        self._sync_directory()

    # ---- write

    def reserve(self, draft: Draft) -> tuple[int, list[Placed]]:
        """Give a frame its place at the end; returns its position and what `write` takes, to be written in order.

        Raises:
            LogFailedError: the log has failed.
            ValueError: the frame is too big.
        """
        if self.failed is not None:
            raise self.failed
        if len(draft.payload) > MAX_PAYLOAD:
            raise ValueError(f"a frame holds at most {MAX_PAYLOAD} bytes, not {len(draft.payload)}")
        placed: list[Placed] = []
        if (self.end & _OFFSET) + draft.size > self._file_size and self.end & _OFFSET:
            placed.append((self.end, _SEAL))
            self.end = ((self.end >> 32) + 1) << 32
        position = self.end
        placed.append((position, draft))
        self.end = position + draft.size
        return position, placed

    def write(self, placed: Sequence[Placed]) -> int:
        """Write reserved frames, contiguous and in order, and make them durable; returns the new durable end.

        Raises:
            LogFailedError: the disk refused; the log is failed from now on.
            OutOfFilesError: a new file could not be opened; call again with the same frames.
        """
        if self.failed is not None:
            raise self.failed
        try:
            for _, of_one_file in groupby(placed, key=lambda one: one[0] >> 32):
                self._write_file(list(of_one_file))
        except OSError as error:
            raise self._fail(error) from error
        if placed:
            self.durable = _end(placed)
        return self.durable

    def stage(self, placed: Sequence[Placed]) -> int | None:
        """Write reserved frames if they are few and go to the file that grows.

        Returns:
            The descriptor of the file: they are durable once it was synced. None: nothing was done, `write` has to.

        Raises:
            LogFailedError: as `write`.
        """
        if self.failed is not None:
            raise self.failed
        start, growing = placed[0][0], self._growing
        if growing is None or start >> 32 != growing[0] or _end(placed) - start > _MOST_STAGED:
            return None
        descriptor = growing[1]
        try:
            self._write_frames(descriptor, placed)
        except OSError as error:
            raise self._fail(error) from error
        return descriptor

    def settle(self, placed: Sequence[Placed], status: int) -> int:
        """The sync of staged frames has ended with `status`: 0, or an error's number; returns the new durable end.

        Raises:
            LogFailedError: as `write`.
        """
        if status:
            raise self._fail(OSError(status, os.strerror(status)))
        self.durable = _end(placed)
        return self.durable

    def mark(self) -> None:
        """Note behind the last frame that all is durable; call it while nothing is being written.

        It is not synced: without it the log is as good, but damage to its last batch is judged by its sectors alone.
        """
        room = self._file_size - (self.end & _OFFSET)
        if self.failed or self._growing is None or not self._marked < self.durable == self.end or room < _MARK.size:
            return
        self._marked = self.durable
        _, placed = self.reserve(_MARK)
        try:
            self._write_frames(self._growing[1], placed)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> LogFailedError:
        self.failed = LogFailedError(f"writing the log in {self._directory} failed: {error}; the node must stop")
        return self.failed

    def append(self, *drafts: Draft) -> list[int]:
        """Reserve and write frames at once; durable when it returns.

        Raises:
            LogFailedError, OutOfFilesError: as `write`.
        """
        reserved = [self.reserve(draft) for draft in drafts]
        self.write([one for _, placed in reserved for one in placed])
        return [position for position, _ in reserved]

    def _write_file(self, placed: Sequence[Placed]) -> None:
        number = placed[0][0] >> 32
        if self._growing is None or self._growing[0] != number:
            self._grow(number)
            self._sync_directory()
        assert self._growing is not None, "just opened"
        descriptor = self._growing[1]
        self._write_frames(descriptor, placed)
        if self._sync:
            _sync_data(descriptor)

    def _write_frames(self, descriptor: int, placed: Sequence[Placed]) -> None:
        """Write contiguous frames of one file; each says what was durable before."""
        synced = self.durable
        for at in range(0, len(placed), _VECTORS):
            part = placed[at : at + _VECTORS]
            buffers: list[bytes] = []
            for position, draft in part:
                buffers += (pack_header(draft, position, synced), draft.payload)
            start = part[0][0]
            _write_all(descriptor, buffers, start & _OFFSET, _end(part) - start)

    def _grow(self, number: int) -> int:
        """Make a file the one that grows; the former one is durable."""
        descriptor = _open_file(self._path(number), os.O_RDWR | os.O_CREAT)
        former, self._growing = self._growing, (number, descriptor)
        self._numbers.add(number)
        if former is not None:
            os.close(former[1])
        return descriptor

    # ---- read

    def frame(self, position: int) -> Frame:
        """Read one durable frame, verified.

        Raises:
            DamagedError: it is not what was written, or the disk does not give it back.
            KeyError: its file was dropped.
            OutOfFilesError: its file cannot be opened at this moment.
        """
        last = self._last
        if last is not None and last.header.position == position:
            return last
        if position >= self.durable:
            raise DamagedError(f"position {position:#x} is not durable yet, the log ends at {self.durable:#x}")
        try:
            self._last = self._frame(self._reader(position >> 32), position)
        except OSError as error:
            raise DamagedError(f"the frame at position {position:#x} cannot be read: {error}") from error
        return self._last

    @staticmethod
    def _frame(descriptor: int, position: int) -> Frame:
        offset = position & _OFFSET
        data = _pread(descriptor, _READ_AHEAD, offset)
        header = parse_header(data, 0, position)
        if header is not None and len(data) < HEADER_SIZE + header.length:
            data += _pread(descriptor, HEADER_SIZE + header.length - len(data), offset + len(data))
        return parse_frame(data, 0, position)

    def _reader(self, number: int) -> int:
        """A descriptor for the owner's reads; a few are kept."""
        if number not in self._numbers:
            raise KeyError(number)
        if self._lock < 0:
            raise OutOfFilesError(f"the log in {self._directory} is closed")
        descriptor = self._reading.pop(number, None)
        if descriptor is None:
            while len(self._reading) >= _MOST_READ:
                os.close(self._reading.pop(next(iter(self._reading))))
            descriptor = _open_file(self._path(number), os.O_RDONLY)
        self._reading[number] = descriptor
        return descriptor

    def read(self, position: int, offset: int, length: int) -> bytes:
        """Read `length` bytes (fewer at its end) from `offset` on of the payload of the frame at `position`, verified.

        Raises:
            DamagedError, KeyError, OutOfFilesError: as `frame`.
        """
        frame = self.frame(position)
        if frame.header.kind == PAD:
            raise DamagedError(f"the frame at position {position:#x} was damaged, and has been overwritten")
        return frame.payload[offset : offset + length]

    def entries(self) -> Iterator[Frame | Damage]:
        """All durable frames and all damage, in order: what a node reads when it starts.

        What was read of the last file while the log was opened is not read once more, if nothing was added.
        """
        (end, opened), self._found = self._found, (0, [])
        numbers, durable = self._numbers | self._missing, self.durable
        last = max(numbers)
        for number in sorted(numbers):
            if number in self._missing:
                yield Damage(number << 32, 0, None)
            elif number == last and end == durable:
                yield from (entry for entry in opened if _is_visible(entry))
            else:
                yield from self._entries(number, durable, sealed=number == last)

    def _entries(self, number: int, durable: int, *, sealed: bool) -> Iterator[Frame | Damage]:
        data = self._durable_content(number, durable)
        if data is None:
            return
        for entry in scan(data, number << 32):
            if _is_visible(entry):
                yield entry
            elif isinstance(entry, Frame) and entry.header.kind == SEAL:
                sealed = True
        if not sealed or (number == durable >> 32 and len(data) < durable & _OFFSET):
            yield Damage(number << 32 | len(data), 0, None)

    def scrub(self) -> Iterator[Damage]:
        """Read everything durable from the disk again, past the page cache where possible; yield what is damaged.

        Raises:
            OutOfFilesError: a file cannot be opened at this moment.
            FileNotFoundError: the whole directory is gone: unmounted, or renamed. What is open of it may well be read.
        """
        self._directory.stat()
        self._found = (0, [])
        yield from (entry for entry in self.entries() if isinstance(entry, Damage))

    def _durable_content(self, number: int, durable: int) -> bytes | None:
        """The durable bytes of a file, past the page cache where possible; None if it was dropped meanwhile."""
        try:
            descriptor = _open_file(self._path(number), os.O_RDONLY)
        except FileNotFoundError:
            return None if number not in self._numbers else b""
        try:
            size = os.fstat(descriptor).st_size
            if number >= durable >> 32:
                size = min(size, durable & _OFFSET) if number == durable >> 32 else 0
            with contextlib.suppress(OSError, AttributeError):  # macOS has no such call; the check is then weaker
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return _content(descriptor, size)
        finally:
            os.close(descriptor)

    # ---- repair and garbage collection

    def retire(self, damage: Damage) -> bool:
        """Overwrite a damaged place with padding: what was there is elsewhere by now; whether it has room for that.

        Raises:
            LogFailedError: the disk refused.
            OutOfFilesError: the file cannot be opened at this moment.
        """
        if damage.length < HEADER_SIZE or damage.position >> 32 not in self._numbers:
            return False
        padding = Draft(PAD, 0, 0, bytes(damage.length - HEADER_SIZE))
        try:
            descriptor = _open_file(self._path(damage.position >> 32), os.O_WRONLY)
            try:
                self._write_frames(descriptor, [(damage.position, padding)])
                if self._sync:
                    _sync_data(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._fail(error) from error
        return True

    def drop_before(self, position: int) -> int:
        """Delete the files that lie wholly before `position`, never the last one; returns how many."""
        numbers = [number for number in sorted(self._numbers) if number < min(position, self.durable) >> 32]
        for number in numbers:
            self._numbers.discard(number)
            if (descriptor := self._reading.pop(number, None)) is not None:
                os.close(descriptor)
            self._path(number).unlink(missing_ok=True)
        self._missing = {number for number in self._missing if number > min(self._numbers)}
        if numbers:
            self._last = None
            self._sync_directory()
        return len(numbers)

    @property
    def start(self) -> int:
        """Position of the oldest file."""
        return min(self._numbers) << 32

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(self._path(number).stat().st_size for number in tuple(self._numbers))

    def close(self) -> None:
        """Close the files."""
        for descriptor in (*self._reading.values(), *([self._growing[1]] if self._growing is not None else [])):
            os.close(descriptor)
        self._reading.clear()
        self._growing = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self.failed = self.failed or LogFailedError("the log is closed")

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:08x}{_SUFFIX}"

    def _sync_directory(self) -> None:
        if self._sync:
            os.fsync(self._lock)


def _is_visible(entry: Frame | Damage) -> bool:
    """Whether readers see it: padding and seals they do not."""
    return isinstance(entry, Damage) or entry.header.kind not in (PAD, SEAL)


def _end(placed: Sequence[Placed]) -> int:
    position, draft = placed[-1]
    return position + draft.size


def _end_of(entry: Frame | Damage) -> int:
    return entry.header.end if isinstance(entry, Frame) else entry.position + entry.length


def _open_file(path: Path, flags: int) -> int:
    """Open a file.

    Raises:
        OutOfFilesError: there are too many open files.
        OSError: anything else.
    """
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _TRANSIENT:
            raise OutOfFilesError(f"{path} cannot be opened now: {error.strerror}") from error
        raise


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data))):
        data += more
    return data


def _content(descriptor: int, size: int) -> bytes:
    """The first bytes of a file; a block that the disk does not give back is filled with what passes for no frame."""
    try:
        return _pread(descriptor, size, 0)
    except OSError:
        return b"".join(_block(descriptor, min(_BLOCK, size - at), at) for at in range(0, size, _BLOCK))


def _block(descriptor: int, length: int, offset: int) -> bytes:
    try:
        return _pread(descriptor, length, offset)
    except OSError:
        return b"\xff" * length  # not zeros: those would say that it was never written


def _write_all(descriptor: int, buffers: Sequence[bytes], offset: int, total: int) -> None:
    """Write buffers, `total` bytes in all."""
    written = os.pwritev(descriptor, buffers, offset)
    if written < total:  # a signal or a nearly full disk: the next call shows which
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            done = os.pwrite(descriptor, rest, offset + total - len(rest))
            rest = rest[done:]
