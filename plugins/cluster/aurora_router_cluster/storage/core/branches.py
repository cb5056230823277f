"""Branches of the log: what setting a volume back leaves behind.

The log is linear *within a branch*. Setting the volume back to a position opens a new branch there; the one that was
left is *kept*: each node keeps the index of the copy that it has (the bytes stay where they are in its journal), so
the volume can go forward again to a point on it by taking that index up, without copying a byte. What was written on
the branch that is left then stays on that one: branches are never merged.

Invariants: a branch that is kept never changes; below the position where two histories part, both branches have the
same bytes; which branch is the volume's is part of the charter, so it is decided by the same write quorum that
decides the epoch: a backtrack is a fence, a new epoch, and a new branch, in one step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aurora_router_cluster.storage.core.history import History, Timeline


class Line(NamedTuple):
    """Which branch it is.

    Attributes:
        number: 1 for the first branch; grows.
        parent: the branch that it continues, 0 for the first.
        start: where it begins, in bytes.
        epoch: the epoch that opened it, 0 for the first.
        resumed: the kept branch whose log below `start` it takes up, 0: the log of the branch that was left.
    """

    number: int = 1
    parent: int = 0
    start: int = 0
    epoch: int = 0
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch that was left and is kept.

    Attributes:
        line: which it is.
        history: its epochs.
        end: where it ends, in bytes.
        closed: when it was left, in seconds since 1970.
        timelines: PostgreSQL's, as far as it went.
        placements: the map of the protection groups at its end.
    """

    line: Line
    history: History
    end: int
    closed: float
    timelines: tuple[Timeline, ...] = ()
    placements: dict[str, Any] = field(default_factory=dict)

    def common(self, history: History) -> int:
        """Up to where a copy with `history` has this branch's bytes, in bytes."""
        parted = self.history.divergence(history)
        return self.end if parted is None else min(parted, self.end)

    def to_json(self) -> dict[str, Any]:
        """As plain data, for a node's metadata."""
        return {
            "line": list(self.line),
            "history": self.history.to_json(),
            "end": self.end,
            "closed": self.closed,
            "timelines": timelines_to_json(self.timelines),
            "placements": self.placements,
        }

    @classmethod
    def from_json(cls, data: Any) -> Branch:
        """Read what `to_json` wrote."""
        return cls(
            Line(*data["line"]),
            History.from_json(data["history"]),
            data["end"],
            data["closed"],
            timelines_from_json(data["timelines"]),
            data["placements"],
        )


def timelines_to_json(timelines: tuple[Timeline, ...]) -> list[list[Any]]:
    """Return timelines as lists, for a node's metadata."""
    return [[t.epoch, t.tli, t.start, t.content.decode()] for t in timelines]


def timelines_from_json(data: Any) -> tuple[Timeline, ...]:
    """Read what `timelines_to_json` wrote."""
    return tuple(Timeline(epoch, tli, start, content.encode()) for epoch, tli, start, content in data)
