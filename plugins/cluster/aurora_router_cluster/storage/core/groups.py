"""Protection groups: how the volume is striped, and how it grows.

The volume is a chain of groups of fixed size (10 GB on Aurora, SIGMOD 2017 paper, section 2.2), each with six segment
replicas. The unit that is placed is a *range* of blocks of one relation fork: when it first appears in the log it is
given to the newest group, and when that one is full another is opened. The place of a range never changes. The log is
cut into extents at record boundaries: a record goes to the group of the first block that it refers to, a record
without block references to the group of the record before it.

Placing is deterministic: the map at the start of an epoch (part of its charter, so held at the quorum) and the log
since then give the map at any later position. Nothing else has to be stored.

The map keeps runs of ranges, since a relation that grows fills one group after the other: 256 TiB in 26,215 groups are
a few tens of thousands of runs, not 268 million entries.

Invariants: a range keeps its group forever; groups are numbered in the order in which they were opened; no group holds
more ranges than it has room for; the extents, laid end to end, are the log.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Protocol

from aurora_router_cluster.lsn import PAGE
from aurora_router_cluster.storage.core.extents import BoundaryScanner, Extent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

GROUP_BYTES = 10 << 30
RANGE_BLOCKS = 128
"""Blocks of a relation that are placed together: 1 MiB."""

Fork = tuple[int, ...]
"""Tablespace, database, relation file number, fork."""


class GroupMap:
    """Where each range of blocks lives.

    Args:
        group_bytes: size of a group.
        range_blocks: blocks (of 8 KiB) in a range.

    Attributes:
        newest: number of the group opened last; 0 is the first.
        room: ranges that still fit into it.
    """

    __slots__ = ("_capacity", "_range_blocks", "_runs", "newest", "room")

    def __init__(self, group_bytes: int = GROUP_BYTES, range_blocks: int = RANGE_BLOCKS) -> None:
        self._range_blocks = range_blocks
        self._capacity = max(1, group_bytes // (range_blocks * PAGE))
        self._runs: dict[Fork, tuple[list[int], list[int], list[int]]] = {}  # fork -> firsts, lasts, groups
        self.newest = 0
        self.room = self._capacity

    @property
    def runs(self) -> int:
        """How many runs the map keeps: what it costs."""
        return sum(len(firsts) for firsts, _lasts, _groups in self._runs.values())

    def group_of(self, fork: Fork, block: int) -> int:
        """The group of a block; a range that appears for the first time is placed."""
        number = block // self._range_blocks
        runs = self._runs.get(fork)
        if runs is None:
            runs = self._runs[fork] = ([], [], [])
        firsts, lasts, groups = runs
        i = bisect_right(firsts, number) - 1
        if i >= 0 and number <= lasts[i]:
            return groups[i]
        group = self._place()
        if i >= 0 and lasts[i] == number - 1 and groups[i] == group:
            lasts[i] = number
        else:
            firsts.insert(i + 1, number)
            lasts.insert(i + 1, number)
            groups.insert(i + 1, group)
        return group

    def _place(self) -> int:
        if not self.room:
            self.newest += 1
            self.room = self._capacity
        self.room -= 1
        return self.newest

    def to_json(self) -> dict[str, Any]:
        """As plain data, for a charter."""
        runs = [[list(fork), *map(list, columns)] for fork, columns in sorted(self._runs.items())]
        return {"newest": self.newest, "room": self.room, "runs": runs}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], group_bytes: int, range_blocks: int = RANGE_BLOCKS) -> GroupMap:
        """Read what `to_json` wrote; an empty mapping is the map of an empty volume."""
        made = cls(group_bytes, range_blocks)
        if data:
            made.newest, made.room = data["newest"], data["room"]
            for fork, firsts, lasts, groups in data["runs"]:
                made._runs[tuple(fork)] = (list(firsts), list(lasts), list(groups))
        return made


class References(Protocol):
    """Finds the blocks that a record refers to, in the record's order."""

    def __call__(self, record: bytes, /) -> Iterable[tuple[Fork, int]]:
        """The (fork, block) pairs of one record."""
        ...


class GroupCutter:
    """Cuts a stream at record boundaries into extents of the groups that its records belong to.

    The end of the stream that is no whole record yet is held back: its group is not known, and no commit waits for it.

    Args:
        start: where the stream begins: a record boundary.
        tails: group -> end of its chain there, in bytes; a group that appears later begins at `base`.
        base: where the volume's log begins.
        places: the map at `start`; it is carried on.
        scanner: makes a scanner that begins at `start` and reports every whole record.
        references: which blocks a record refers to.
    """

    def __init__(
        self,
        start: int,
        tails: Mapping[int, int],
        base: int,
        places: GroupMap,
        scanner: Callable[[Callable[[int, int, bytes], None]], BoundaryScanner],
        references: References,
    ) -> None:
        self._places = places
        self._tails = dict(tails)
        self._base = base
        self._references = references
        self._scanner = scanner(self._record)
        self._cuts: list[tuple[int, int]] = []  # (end, group) of the records seen since the last cut
        self._group = places.newest
        self._start = start
        self._rest = b""

    @property
    def boundary(self) -> int:
        """End of the last whole record, in bytes."""
        return self._scanner.boundary

    def placements(self) -> dict[str, Any]:
        """The map of the groups as it is now."""
        return self._places.to_json()

    def _record(self, _start: int, end: int, record: bytes) -> None:
        group: int | None = None
        for fork, block in self._references(record):
            found = self._places.group_of(fork, block)
            group = found if group is None else group
        if group is not None:
            self._group = group
        if self._cuts and self._cuts[-1][1] == self._group:
            self._cuts[-1] = end, self._group
        else:
            self._cuts.append((end, self._group))

    def cut(self, start: int, data: bytes) -> list[Extent]:
        """The extents that are complete now that `data` arrived at `start`, in order of the log."""
        assert start == self._start + len(self._rest)
        boundary = self._scanner.feed(data)
        if self._cuts and boundary > self._cuts[-1][0]:
            self._cuts[-1] = boundary, self._cuts[-1][1]  # the padding after a segment switch
        elif not self._cuts and boundary > self._start:
            self._cuts.append((boundary, self._group))
        rest = self._rest + data
        extents: list[Extent] = []
        for end, group in self._cuts:
            piece, rest = rest[: end - self._start], rest[end - self._start :]
            extents.append(Extent(group, self._tails.get(group, self._base), self._start, piece))
            self._tails[group] = self._start = end
        self._cuts.clear()
        self._rest = rest
        return extents
