"""What the walsender endpoint needs of a log, and which timelines it may show.

Invariant of `TimelineView` (pitfall: a timeline shown too early sends readers to a history file that is not there): a
timeline is *shown* only when it is the log's first one or its history file is stored. The last one shown is the
current one; its log is served up to the start of a later timeline that is not shown yet, and not ended there: the
reader waits. An earlier one ends where the next one shown starts.

An id between two shown timelines was used by a promotion that never became the writer. A standby fetches the history
file of every id on its way up and probes them one by one for the newest, so that a gap would stop it for good: a
file is made for such an id, which says truthfully that it branched off where its successor did.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from aurora_router_cluster.lsn import format_lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router_cluster.wire.replication import HotStandbyFeedback


@dataclass(frozen=True, slots=True)
class Timeline:
    """One timeline of the log's present branch.

    Attributes:
        id: timeline id, 1 or more.
        start: log position where it began; the base of the log for the first one.
        history: content of its history file, None until it is stored (always None for timeline 1).
    """

    id: int
    start: int
    history: bytes | None = None


class LogSource(Protocol):
    """A durable log that readers may follow. All methods are called on the event loop's thread.

    `timelines` must be a new tuple whenever a timeline changes: the endpoint remembers what it derived from it by the
    tuple's identity. The log is linear: one byte per position, whatever the timeline that is asked for.
    """

    @property
    def system_identifier(self) -> int:
        """The cluster's system identifier, as in pg_control."""
        ...

    @property
    def server_version(self) -> str:
        """Version shown to clients, e.g. ``18.6``; tools refuse a server newer than themselves."""
        ...

    @property
    def segment_size(self) -> int:
        """Size of a WAL segment in bytes."""
        ...

    @property
    def first_lsn(self) -> int:
        """Oldest position still stored."""
        ...

    @property
    def durable_lsn(self) -> int:
        """End of the durable log (VDL), which is the end of a record; nothing above it is sent. It never goes back."""
        ...

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """The timelines of the present branch, ascending, at least one."""
        ...

    def read_tail(self, lsn: int, length: int) -> bytes | None:
        """Take `length` bytes (or fewer, not none) from memory at once; None if they are not in memory."""
        ...

    async def read(self, lsn: int, length: int) -> bytes:
        """Read up to `length` durable bytes; empty if no node that holds them answers at present: asked again later.

        Raises:
            LogRemovedError: the position is no longer stored.
        """
        ...

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever `durable_lsn` or `timelines` changed; returns the cancellation."""
        ...

    def on_feedback(self, feedback: HotStandbyFeedback) -> None:
        """Take the oldest transaction that any connected reader needs; called when it changes."""
        ...


class TimelineView:
    """What the endpoint shows of a log's timelines; immutable.

    Args:
        timelines: as `LogSource.timelines` gives them.
    """

    __slots__ = ("_ends", "_histories", "_wall", "current")

    def __init__(self, timelines: Sequence[Timeline]) -> None:
        shown = [t for i, t in enumerate(timelines) if i == 0 or t.history is not None]
        self.current = shown[-1].id
        self._wall = min((t.start for t in timelines if t.id > self.current), default=None)
        self._ends = {t.id: (after.id, after.start) for t, after in pairwise(shown)}
        self._histories = {t.id: t.history for t in shown if t.history is not None}
        for before, after in pairwise(shown):
            for skipped in range(before.id + 1, after.id):
                self._histories[skipped] = _history_of_burned(before, after)

    def shows(self, timeline: int) -> bool:
        """Whether a reader may stream `timeline`."""
        return timeline == self.current or timeline in self._ends

    def end_of(self, timeline: int) -> tuple[int, int] | None:
        """The next timeline and where it starts; None for the current one."""
        return self._ends.get(timeline)

    def limit(self, timeline: int, durable: int) -> int:
        """Up to where the log may be sent to a reader of `timeline` now."""
        end = self._ends.get(timeline)
        if end is not None:
            return min(end[1], durable)
        return durable if self._wall is None else min(self._wall, durable)

    def history(self, timeline: int) -> bytes | None:
        """Content of a timeline's history file; None if there is none to show."""
        return self._histories.get(timeline)


def _history_of_burned(before: Timeline, after: Timeline) -> bytes:
    ancestors = before.history or b""
    if ancestors and not ancestors.endswith(b"\n"):
        ancestors += b"\n"
    return ancestors + f"{before.id}\t{format_lsn(after.start)}\tpromotion that never became the writer\n".encode()
