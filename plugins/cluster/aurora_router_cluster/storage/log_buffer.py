"""The newest part of the log in memory: for resending, and for readers that keep up."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster.storage.core.extents import Extent

RING_BYTES = 32 << 20


class LogBuffer:
    """The extents handed out last, in order of the log.

    Args:
        start: where the log continues, in bytes.
        limit: bytes kept, unless more are not durable yet.
    """

    __slots__ = ("_extents", "_limit", "_size", "end", "start")

    def __init__(self, start: int, limit: int = RING_BYTES) -> None:
        self.start = self.end = start
        self._extents: deque[Extent] = deque()
        self._limit = limit
        self._size = 0

    def add(self, extent: Extent, durable: int) -> None:
        """Append the next extent; drop the oldest ones at or below `durable` if there are too many."""
        self._extents.append(extent)
        size = len(extent.data)
        self._size += size
        self.end = extent.start + size
        while self._size > self._limit and self._extents[0].end <= durable:
            oldest = self._extents.popleft()
            self._size -= len(oldest.data)
            self.start = oldest.end

    def after(self, group: int, lsn: int) -> Iterator[Extent]:
        """The extents of `group` with something above `lsn`."""
        return (extent for extent in list(self._extents) if extent.group == group and extent.end > lsn)

    def read(self, lsn: int, n: int) -> bytes | None:
        """At most `n` bytes from `lsn` on; None if the log there is not in memory."""
        if not self.start <= lsn < self.end:
            return None
        parts: list[bytes] = []
        first = len(self._extents)
        for extent in reversed(self._extents):  # readers are mostly near the end; an index far from it is slow
            first -= 1
            if extent.start <= lsn:
                break
        for i in range(first, len(self._extents)):
            if n <= 0:
                break
            extent = self._extents[i]
            skip = lsn - extent.start
            part = extent.data[skip : skip + n] if skip or n < len(extent.data) else extent.data
            parts.append(part)
            lsn += len(part)
            n -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
