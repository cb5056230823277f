"""Framing of PostgreSQL's write-ahead log: where its records end.

The log is a sequence of 8 KiB pages. Each begins with a header (24 bytes, 40 on the first page of a segment file)
that has its own address and how much of a record begun earlier it continues. Records are aligned to 8 bytes and may
span any number of pages; an XLOG_SWITCH record is followed by padding up to the end of the segment file.
(PostgreSQL source: ``access/xlog_internal.h``, ``access/xlogrecord.h``; the layout is the same from 14 to 18, but for
the magic.)

Invariant: `Scanner.boundary` is the end of the last record that was fed whole, padding included. After a switch
record that is the end of the segment, never earlier: a standby's replay position jumps there too.
"""

from __future__ import annotations

import struct
from typing import Protocol

from aurora_router_cluster.lsn import PAGE, format_lsn
from aurora_router_cluster.storage.core.errors import CorruptLog

MAGIC_VERSIONS = {0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
"""Page magic -> major version of PostgreSQL."""
SHORT_HEADER, LONG_HEADER = 24, 40
RECORD_HEADER = 24

_PAGE_HEADER = struct.Struct("<HHIQI")  # magic, info, timeline, page address, remaining bytes of a record
_LENGTH = struct.Struct("<I")
_CONTINUES = 0x0001


class RecordSink(Protocol):
    """Called with every whole record: where it starts, where it ends (aligned), its bytes without page headers."""

    def __call__(self, start: int, end: int, record: bytes, /) -> None:
        """Take one record."""
        ...


class Scanner:
    """Incremental finder of record boundaries.

    Args:
        start: where the first byte fed lies: a record boundary, or the start of a page (then the tail of a record
            begun earlier is skipped).
        segment_size: bytes in a WAL segment file.
        sink: called with every whole record that begins at or after `start`; costs a copy of each.

    Attributes:
        position: where the next byte to be fed lies.
        boundary: end of the last whole record; `start` until there is one.
        magic: page magic seen last, 0 before the first page header.
    """

    __slots__ = (
        "_carry",
        "_fresh",
        "_head",
        "_need",
        "_padding",
        "_parts",
        "_record",
        "_segment",
        "_sink",
        "boundary",
        "magic",
        "position",
    )

    def __init__(self, start: int, segment_size: int, sink: RecordSink | None = None) -> None:
        self._segment = segment_size
        self._sink = sink
        self.position = self.boundary = start
        self.magic = 0
        self._carry = b""
        self._need = 0  # bytes of the current record still to come, alignment included
        self._head = b""  # its first 24 bytes, as far as seen
        self._record = start
        self._parts: list[bytes] | None = None
        self._padding = False
        self._fresh = start % PAGE == 0

    def feed(self, data: bytes) -> int:
        """Take the next bytes of the log and return the boundary.

        Raises:
            CorruptLog: a page header or a record length that cannot be.
        """
        base = self.position - len(self._carry)
        self.position += len(data)
        if self._carry:
            data = self._carry + data
            self._carry = b""
        i, n = 0, len(data)
        while i < n:
            lsn = base + i
            if lsn % PAGE == 0:
                size = SHORT_HEADER if lsn % self._segment else LONG_HEADER
                if n - i < size:
                    break
                self._page_header(data, i, lsn)
                i += size
                continue
            stop = min(n, i + PAGE - lsn % PAGE)
            if self._padding:
                i = self._pad(base, stop)
            elif self._need:
                i = self._continue(data, i, stop, base)
            elif stop - i < 4:
                break
            else:
                i = self._records(data, i, stop, base)
        self._carry = data[i:]
        return self.boundary

    def _page_header(self, data: bytes, i: int, lsn: int) -> None:
        if self._padding:
            return
        magic, info, _timeline, address, remaining = _PAGE_HEADER.unpack_from(data, i)
        if magic not in MAGIC_VERSIONS or address != lsn:
            raise CorruptLog(f"the page at {format_lsn(lsn)} has magic {magic:#06x} and address {format_lsn(address)}")
        self.magic = magic
        if self._fresh and info & _CONTINUES:
            self._need = remaining + 7 & ~7
            self._head = bytes(RECORD_HEADER)  # its beginning was never seen: it is not handed to the sink
            self._record = -1
        self._fresh = False

    def _records(self, data: bytes, i: int, stop: int, base: int) -> int:
        """Step over the records that lie whole between `i` and `stop`; begin the one that does not."""
        sink = self._sink
        unpack = _LENGTH.unpack_from
        self._fresh = False
        while stop - i >= 4:
            (length,) = unpack(data, i)
            if length < RECORD_HEADER:
                raise CorruptLog(f"the record at {format_lsn(base + i)} claims a length of {length} bytes")
            aligned = length + 7 & ~7
            if aligned > stop - i:
                return self._begin(data, i, stop, base, aligned)
            start = base + i
            i += aligned
            if sink is not None:
                sink(start, base + i, data[i - aligned : i - aligned + length])
            if _is_switch(data, i - aligned):
                return self._switch(base, i)
            self.boundary = base + i
        return i

    def _begin(self, data: bytes, i: int, stop: int, base: int, aligned: int) -> int:
        self._record = base + i
        self._need = aligned
        self._head = b""
        self._parts = [] if self._sink is not None else None
        return self._continue(data, i, stop, base)

    def _continue(self, data: bytes, i: int, stop: int, base: int) -> int:
        take = min(self._need, stop - i)
        if len(self._head) < RECORD_HEADER:
            self._head += data[i : i + min(take, RECORD_HEADER - len(self._head))]
        if self._parts is not None:
            self._parts.append(data[i : i + take])
        self._need -= take
        i += take
        if not self._need:
            self._finish(base + i)
            if _is_switch(self._head, 0):
                return self._switch(base, i)
            self.boundary = base + i
        return i

    def _finish(self, end: int) -> None:
        if self._sink is not None and self._parts is not None and self._record >= 0:
            (length,) = _LENGTH.unpack_from(self._head)
            self._sink(self._record, end, b"".join(self._parts)[:length])
        self._parts = None

    def _switch(self, base: int, i: int) -> int:
        self._padding = (base + i) % self._segment != 0
        if not self._padding:
            self.boundary = base + i
        return i

    def _pad(self, base: int, stop: int) -> int:
        if (base + stop) % self._segment == 0:
            self._padding = False
            self.boundary = base + stop
        return stop


def _is_switch(header: bytes, i: int) -> bool:
    """Whether the record header at `i` is that of XLOG_SWITCH (resource manager 0, info 0x40)."""
    return header[i + 17] == 0 and header[i + 16] & 0xF0 == 0x40
