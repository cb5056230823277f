"""A log that lives in memory: a complete `LogSource` for tests, benchmarks and readers of one writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.wire.errors import LogRemovedError, ProtocolError
from aurora_router_cluster.wire.replication import NO_FEEDBACK, HotStandbyFeedback
from aurora_router_cluster.wire.source import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryLog:
    """Bytes from `base` on; durable up to where the owner says.

    Args:
        system_identifier: of the cluster.
        base: position of the first byte.
        segment_size: bytes of a WAL segment.
        server_version: shown to clients.
        tail: bytes at the end that `read_tail` finds; older log takes the path of `read`.
    """

    def __init__(
        self, system_identifier: int, base: int, segment_size: int, server_version: str, tail: int = 32 << 20
    ) -> None:
        self.system_identifier = system_identifier
        self.server_version = server_version
        self.segment_size = segment_size
        self.first_lsn = base
        self.durable_lsn = base
        self.timelines: tuple[Timeline, ...] = (Timeline(1, base),)
        self.feedback = NO_FEEDBACK
        self._base = base
        self._bytes = bytearray()
        self._tail = tail
        self._wakes: list[Callable[[], None]] = []

    @property
    def end(self) -> int:
        """End of what was appended, durable or not."""
        return self._base + len(self._bytes)

    def append(self, lsn: int, data: bytes) -> None:
        """Add received log, which must start at `end`.

        Raises:
            ProtocolError: it does not.
        """
        if lsn != self.end:
            raise ProtocolError(
                f"log at {format_lsn(lsn)} does not continue the log, which ends at {format_lsn(self.end)}"
            )
        self._bytes += data

    def advance(self, durable: int) -> None:
        """Make the log durable up to `durable` and wake its followers."""
        assert durable <= self.end, "durable log must have been appended"
        self.durable_lsn = max(self.durable_lsn, durable)
        self._wake()

    def truncate(self, lsn: int) -> None:
        """Forget everything from `lsn` on, which must not be durable."""
        assert lsn >= self.durable_lsn, "durable log is never truncated"
        del self._bytes[lsn - self._base :]

    def add_timeline(self, timeline: Timeline) -> None:
        """Add a timeline, or the history file of one that is known."""
        known = {t.id: t for t in self.timelines} | {timeline.id: timeline}
        self.timelines = tuple(sorted(known.values(), key=lambda t: t.id))
        self._wake()

    def remove_before(self, lsn: int) -> None:
        """Forget what is older than `lsn`, as garbage collection does."""
        self.first_lsn = max(self.first_lsn, lsn)

    def read_tail(self, lsn: int, length: int) -> bytes | None:
        """See `LogSource`."""
        if lsn < max(self.first_lsn, self.end - self._tail):
            return None
        return self._slice(lsn, length)

    async def read(self, lsn: int, length: int) -> bytes:
        """See `LogSource`."""
        if lsn < self.first_lsn:
            raise LogRemovedError(f"{format_lsn(lsn)} is below the oldest stored position {format_lsn(self.first_lsn)}")
        return self._slice(lsn, length)

    def _slice(self, lsn: int, length: int) -> bytes:
        start = lsn - self._base
        return bytes(self._bytes[start : start + length])

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See `LogSource`."""
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake)

    def on_feedback(self, feedback: HotStandbyFeedback) -> None:
        """Keep the last one in `feedback`."""
        self.feedback = feedback

    def _wake(self) -> None:
        for wake in tuple(self._wakes):
            wake()
