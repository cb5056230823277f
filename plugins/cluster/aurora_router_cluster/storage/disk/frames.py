"""The frame: how one piece of log, or one change of metadata, lies in a node's log file. Pure functions.

::

    magic 4 | kind 1 | 3 zero | group 4 | length 4 | epoch 8 | lsn 8 | prev 8 | position 8 | synced 8
    payload CRC 4 | header CRC 4 | payload, `length` bytes

Both checksums are CRC-32 (`zlib`). A header contains its own position, so that a frame written to a wrong place, or
left from an earlier life of the file, never passes for a good one; and its checksum is apart from the payload's, so
that a flipped byte of log leaves known which log is damaged.

Torn or rotten? Frames are written in batches, one sync after each, and nothing is acknowledged before its sync. After a
power loss the last batch may be there in part: cut short, or with its later sectors and without the earlier ones. Two
facts distinguish such a *torn* tail, which was never acknowledged, from log that was acknowledged and has *rotted*
since:

* each frame names the position up to which all was synced when it was written (``synced``: where its batch begins).
  What is not good below the highest such position was durable once: rotten, whatever follows it. A log at rest is
  followed by a *mark*, an empty frame that says so of everything before it;
* a disk writes whole sectors, and one that it did not write reads as zeros, since files only grow. Of what lies above
  that position, a damaged stretch is torn only if at least one of its sectors is empty: then it is cut off, with all
  that follows it, for that belongs to the same batch. A damaged stretch that was written in all its sectors is rotten.

What is rotten is kept, reported, and refilled from a peer. What remains open: a batch that was acknowledged and lost
its power before the mark, and of which later a whole sector turned into zeros, passes for torn.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from aurora_router_cluster.storage.disk.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAGIC: Final = b"AUL2"
PAD: Final = 0
"""Kind of a frame that only fills room; readers never see it."""
SEAL: Final = 255
"""Kind of the frame that ends a file which has a successor; readers never see it."""

_HEADER: Final = struct.Struct("<4sB3xIIQQQQQI")
_CRC: Final = struct.Struct("<I")
_WHOLE: Final = struct.Struct("<4sB3xIIQQQQQII")
HEADER_SIZE: Final = _HEADER.size + _CRC.size
MAX_PAYLOAD: Final = 1 << 30
SECTOR: Final = 512
"""Bytes that a disk writes whole or not at all; on one with larger sectors this holds all the more."""


class Header(NamedTuple):
    """What a frame says of itself.

    Attributes:
        position: where it lies: file number << 32 | offset in the file.
        kind: 1 to 254, given by the owner.
        group: protection group, or 0.
        epoch: of the writer.
        lsn: log position of the payload's first byte, or 0.
        prev: end of the group's preceding piece, or 0.
        length: of the payload, in bytes.
        crc: CRC-32 of the payload.
        synced: position below which everything was durable when it was written.
    """

    position: int
    kind: int
    group: int
    epoch: int
    lsn: int
    prev: int
    length: int
    crc: int
    synced: int

    @property
    def end(self) -> int:
        """Position after the payload."""
        return self.position + HEADER_SIZE + self.length


class Frame(NamedTuple):
    """A good frame: header and payload."""

    header: Header
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """A place that does not hold what was written there.

    Attributes:
        position: where it begins.
        length: in bytes, up to the next frame that is recognizable or the end of the file. 0: a whole file or its end
            is gone.
        header: of the damaged frame if that is intact; None if it is not, then several frames may be lost.
    """

    position: int
    length: int
    header: Header | None

    @property
    def end(self) -> int:
        """Position after it; the first one of the next file if the rest of the file is gone."""
        return self.position + self.length if self.length else ((self.position >> 32) + 1) << 32


@dataclass(slots=True)
class Draft:
    """A frame to be written, to one log or to several; the first attributes are those of `Header`.

    Attributes:
        size: bytes that it takes in the file.
        crc: CRC-32 of the payload.
    """

    kind: int
    epoch: int
    lsn: int
    payload: bytes
    group: int = 0
    prev: int = 0
    size: int = field(init=False)
    crc: int = field(init=False)

    def __post_init__(self) -> None:
        """Compute what all logs share."""
        self.size = HEADER_SIZE + len(self.payload)
        self.crc = zlib.crc32(self.payload)


def pack_header(draft: Draft, position: int, synced: int) -> bytes:
    """The header's bytes of a frame that goes to `position`; everything below `synced` is durable.

    Raises:
        ValueError: the payload is longer than 1 GiB.
    """
    d = draft
    if len(d.payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame holds at most {MAX_PAYLOAD} bytes, not {len(d.payload)}")
    head = _HEADER.pack(MAGIC, d.kind, d.group, len(d.payload), d.epoch, d.lsn, d.prev, position, synced, d.crc)
    return head + _CRC.pack(zlib.crc32(head))


def parse_header(data: bytes | memoryview, offset: int, position: int) -> Header | None:
    """Read the header at `offset` of `data`; None unless an intact one lies there that belongs to `position`."""
    if len(data) - offset < HEADER_SIZE:
        return None
    magic, kind, group, length, epoch, lsn, prev, found, synced, crc, own = _WHOLE.unpack_from(data, offset)
    if magic != MAGIC or found != position or length > MAX_PAYLOAD:
        return None
    if zlib.crc32(data[offset : offset + _HEADER.size]) != own:
        return None
    return Header(position, kind, group, epoch, lsn, prev, length, crc, synced)


def parse_frame(data: bytes, offset: int, position: int) -> Frame:
    """Read the whole frame at `offset` of `data`.

    Raises:
        DamagedError: header or payload is not what was written, or cut short.
    """
    header = parse_header(data, offset, position)
    if header is None:
        raise DamagedError(f"there is no intact frame at position {position:#x}")
    start = offset + HEADER_SIZE
    payload = data[start : start + header.length]
    if len(payload) != header.length or zlib.crc32(payload) != header.crc:
        raise DamagedError(f"the payload of the frame at position {position:#x} (log {header.lsn:#x}) is damaged")
    return Frame(header, payload)


def scan(data: bytes, base: int) -> Iterator[Frame | Damage]:
    """Find all that lies in a file, in order, without gap; padding and the seal, too.

    Args:
        data: the file's bytes.
        base: position of its first byte.
    """
    offset, size = 0, len(data)
    # As `parse_frame`, in one piece and without the named tuples' own constructors: a node reads tens of thousands of
    # frames when it starts.
    new, unpack, crc32, header_size, own_at = tuple.__new__, _WHOLE.unpack_from, zlib.crc32, HEADER_SIZE, _HEADER.size
    while offset < size:
        start = offset + header_size
        if start <= size:
            magic, kind, group, length, epoch, lsn, prev, position, synced, crc, own = unpack(data, offset)
            end = start + length
            if magic == MAGIC and position == base + offset and end <= size and length <= MAX_PAYLOAD:
                payload = data[start:end]
                if crc32(payload) == crc and crc32(data[offset : offset + own_at]) == own:
                    header = new(Header, (position, kind, group, epoch, lsn, prev, length, crc, synced))
                    yield new(Frame, (header, payload))
                    offset = end
                    continue
        damage = _damage(data, offset, base)
        yield damage
        offset += damage.length


def _damage(data: bytes, offset: int, base: int) -> Damage:
    header = parse_header(data, offset, base + offset)
    if header is not None and header.end - base <= len(data):
        return Damage(base + offset, header.end - header.position, header)
    following = _next_header(data, offset + 1, base)
    return Damage(base + offset, following - offset, header)


def _next_header(data: bytes, offset: int, base: int) -> int:
    """Offset of the first intact header from `offset` on; the end of the data if there is none."""
    while (offset := data.find(MAGIC, offset)) >= 0:
        if parse_header(data, offset, base + offset) is not None:
            return offset
        offset += 1
    return len(data)


def durable_position(found: Sequence[Frame | Damage], base: int) -> int:
    """The position below which everything was durable, as the frames of a file say; at least that of its first byte.

    What they say only grows, so that the last intact header is enough.
    """
    last = next((entry.header for entry in reversed(found) if entry.header is not None), None)
    return base if last is None else max(base, last.synced)


def without_torn_tail(found: list[Frame | Damage], data: bytes, base: int) -> list[Frame | Damage]:
    """What `scan` found in the last file, without what was never acknowledged; see the module.

    Args:
        found: what `scan` found.
        data: the file's bytes.
        base: position of its first byte.
    """
    durable = durable_position(found, base)
    for i, entry in enumerate(found):
        if isinstance(entry, Damage) and entry.position >= durable and _is_torn(entry, data, base):
            return found[:i]
    return found


def _is_torn(damage: Damage, data: bytes, base: int) -> bool:
    """Whether a sector of a damaged stretch was never written."""
    start, end = damage.position - base, damage.position - base + damage.length
    if damage.header is not None and damage.header.end - base > len(data):
        return True
    if end == len(data) and damage.header is None and end - start < HEADER_SIZE:
        return True  # cut short within its header
    edges = [start, *range(start - start % SECTOR + SECTOR, end, SECTOR), end]
    return any(not any(data[a:b]) for a, b in pairwise(edges))
