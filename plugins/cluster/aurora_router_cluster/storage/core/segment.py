"""One segment replica: a node's copy of one protection group's part of the log.

The log of a volume is cut into *extents*; each belongs to one group and names the end of the extent before it in the
same group (``prev``). So a copy can distinguish a hole from a part of the log that belongs to other groups, and the
*segment complete LSN* (SCL) is the end of the unbroken chain. With a single group ``prev`` is always the extent's own
start. (SIGMOD 2018 paper on Aurora, section 2.3: "each log record stores the LSN of the preceding record ... in the
segment".)

At the start of an epoch every chain is closed by an empty extent that ends at that start: so ``scl >= start`` says
that all of the group's log below is held. Copies of one chain need not have the same empty extents: where an epoch that
never was began at the place of one that counts, it may have closed a chain that the other did not know of. What its
empty extent says is true in both epochs, and an index does not show whose it is. So an extent may leave empty ones out.

Invariant: the chain has no hole; what lies beyond a hole is kept aside and never counted; no byte above a truncation
survives it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.core.errors import CorruptLog

if TYPE_CHECKING:
    from collections.abc import Iterator


class Piece(NamedTuple):
    """Where a stretch of the log lies on a disk.

    Attributes:
        prev: end of the piece before it in the chain.
        start: first position, in bytes; `place` is where that byte lies on the disk.
        end: position after the last byte; equal to `start` in a piece that only closes the chain for an epoch.
        place: opaque to the index, but ``place + k`` is k bytes further.
    """

    prev: int
    start: int
    end: int
    place: int


_NEVER = 1 << 63


def lies_in(place: int, length: int, first: int, end: int) -> bool:
    """Whether a piece lies, in part or whole, at places [first, end): an empty one on the last byte before its place.

    For it has no bytes: what can be damaged is its frame, and that ends there.
    """
    begin = place if length else place - 1
    return begin < end and place + length > first


class Segment:
    """The index of one segment replica; it knows where bytes lie, and holds none.

    Args:
        base: where the group's log begins, in bytes.

    Attributes:
        scl: segment complete LSN, in bytes.
    """

    __slots__ = ("_base", "_ends", "_first_hole", "_holes", "_places", "_starts", "scl")

    def __init__(self, base: int) -> None:
        self._base = self.scl = base
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._places: list[int] = []
        self._holes: dict[int, tuple[int, int, int]] = {}  # prev -> start, end, place
        self._first_hole = _NEVER

    @property
    def base(self) -> int:
        """Where the log kept here begins, in bytes."""
        return self._base

    @property
    def holes(self) -> int:
        """How many pieces wait beyond a hole."""
        return len(self._holes)

    def copy(self) -> Segment:
        """Another index of the same pieces, without those that wait beyond a hole."""
        made = Segment(self._base)
        made._starts, made._ends, made._places = self._starts[:], self._ends[:], self._places[:]
        made.scl = self.scl
        return made

    def insert(self, prev: int, start: int, end: int, place: int) -> int:
        """Take a piece that is durable at `place`, and return the SCL.

        A piece known already, whole or in part, is harmless.

        Raises:
            CorruptLog: the piece contradicts the chain: it leaves out log that the chain holds.
        """
        if prev == start == self.scl < end and self._first_hole > end:  # nearly always
            self._starts.append(start)
            self._ends.append(end)
            self._places.append(place)
            self.scl = end
            return end
        if prev > self.scl:
            known = self._holes.get(prev)
            if known is None or known[1] < end:
                self._holes[prev] = (start, end, place)
                self._first_hole = min(prev, self._first_hole)
            return self.scl
        if prev < self.scl < start and prev < self._log_end():
            raise CorruptLog(
                f"an extent at {format_lsn(start)} follows {format_lsn(prev)}, but the chain ends at "
                f"{format_lsn(self.scl)}"
            )
        self._chain(start, end, place)
        if self._first_hole <= self.scl:
            self._close_holes()
        return self.scl

    def _log_end(self) -> int:
        """Where the last piece of the chain ends that holds any log; 0 if none does."""
        chained = zip(reversed(self._starts), reversed(self._ends), strict=True)
        return next((end for start, end in chained if start < end), 0)

    def _chain(self, start: int, end: int, place: int) -> None:
        if end > self.scl:
            skip = max(0, self.scl - start)
            self._starts.append(start + skip)
            self._ends.append(end)
            self._places.append(place + skip)
            self.scl = end

    def _close_holes(self) -> None:
        for prev in sorted(self._holes):
            if prev > self.scl:
                break
            self._chain(*self._holes.pop(prev))
        self._first_hole = min(self._holes, default=_NEVER)

    def lose(self, start: int, end: int) -> None:
        """The chained piece from `start` to `end` cannot be read any more: it is a hole from now on."""
        i = bisect_left(self._ends, end)
        if i == len(self._starts) or (self._starts[i], self._ends[i]) != (start, end):
            return
        for later in range(i + 1, len(self._starts)):
            self._holes[self._ends[later - 1]] = self._starts[later], self._ends[later], self._places[later]
        del self._starts[i:], self._ends[i:], self._places[i:]
        self.scl = self._ends[-1] if self._ends else self._base
        self._first_hole = min(self._holes, default=_NEVER)

    def lose_waiting(self, first: int, end: int) -> None:
        """What waits beyond a hole and lies, in part or whole, at places [first, end) cannot be read: forget it."""
        waiting = self._holes.items()
        self._holes = {prev: (a, b, at) for prev, (a, b, at) in waiting if not lies_in(at, b - a, first, end)}
        self._first_hole = min(self._holes, default=_NEVER)

    def truncate(self, lsn: int, *, keep_mark: bool = True) -> None:
        """Forget all above `lsn`, also of what waits beyond a hole.

        Args:
            lsn: in bytes.
            keep_mark: whether an empty piece that ends just there stays; else it closed the chain for an epoch that
                never was.
        """
        waiting = self._holes.items()
        self._holes = {
            prev: (a, min(b, lsn), place) for prev, (a, b, place) in waiting if a < lsn or (keep_mark and a == b == lsn)
        }
        self._first_hole = min(self._holes, default=_NEVER)
        keep = bisect_right(self._ends, lsn)
        if keep < len(self._starts) and self._starts[keep] < lsn:
            self._ends[keep] = lsn
            keep += 1
        while not keep_mark and keep and self._starts[keep - 1] == lsn:
            keep -= 1
        del self._starts[keep:], self._ends[keep:], self._places[keep:]
        self.scl = self._ends[-1] if self._ends else self._base

    def discard(self, floor: int) -> None:
        """Forget whole pieces that end at or below `floor`, in bytes: garbage. A copy that ends below it begins there.

        The next piece may then name a predecessor below the floor.
        """
        if floor <= self._base:
            return
        drop = bisect_right(self._ends, floor)
        del self._starts[:drop], self._ends[:drop], self._places[:drop]
        self._base = floor
        for prev in [prev for prev, (_start, end, _place) in self._holes.items() if end <= floor]:
            del self._holes[prev]
        self.scl = max(self.scl, floor)
        self._close_holes()

    @property
    def first_place(self) -> int | None:
        """The lowest place that is still needed; None: nothing is held.

        Empty pieces count too: those that peers gave lie on the disk, and nothing else says how far the chain goes.
        Those that the metadata of an epoch made are at place 0.
        """
        places = (*self._places, *(place for _start, _end, place in self._holes.values()))
        return min((place for place in places if place), default=None)

    def after(self, lsn: int) -> Iterator[Piece]:
        """The chained pieces with something above `lsn`, in order, whole."""
        first = bisect_right(self._ends, lsn)
        prev = self._before(first)
        for i in range(first, len(self._starts)):
            yield Piece(prev, self._starts[i], self._ends[i], self._places[i])
            prev = self._ends[i]

    def _before(self, i: int) -> int:
        """End of the piece before the i-th; of the first one, what garbage collection has left to say."""
        if i:
            return self._ends[i - 1]
        return min(self._base, self._starts[0]) if self._starts else self._base

    def at(self, lsn: int) -> Piece | None:
        """The whole chained piece that holds the byte at `lsn`."""
        i = bisect_right(self._ends, lsn)
        if i == len(self._starts) or self._starts[i] > lsn:
            return None
        return Piece(self._before(i), self._starts[i], self._ends[i], self._places[i])
