"""A tiny log for the simulator: a record is one byte that says how many follow; the second is the block it touches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.lsn import PAGE
from aurora_router_cluster.storage.core.extents import Cutter, SingleGroup
from aurora_router_cluster.storage.core.groups import GroupCutter, GroupMap

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from aurora_router_cluster.storage.core.replica import Charter

RANGES = 3
"""Ranges (of one block) in a group of the tiny volume."""


class TinyScanner:
    """Finds the ends of the tiny records."""

    def __init__(self, start: int, sink: Callable[[int, int, bytes], None] | None = None) -> None:
        self.boundary = self._position = start
        self._need = 0
        self._record = b""
        self._sink = sink

    def feed(self, data: bytes) -> int:
        i, n = 0, len(data)
        while i < n:
            if not self._need:
                self._need = 1 + data[i]
                self._record = b""
            step = min(self._need, n - i)
            self._need -= step
            self._record += data[i : i + step]
            i += step
            if not self._need:
                if self._sink is not None:
                    self._sink(self.boundary, self._position + i, self._record)
                self.boundary = self._position + i
        self._position += n
        return self.boundary


class TinyFraming:
    """The framing of the simulated log, of a volume with one group or with ever more."""

    def __init__(self, *, striped: bool = False) -> None:
        self.striped = striped

    def scanner(self, start: int) -> TinyScanner:
        return TinyScanner(start)

    def cutter(self, charter: Charter) -> Cutter:
        if not self.striped:
            return SingleGroup(self.scanner(charter.history.start))
        return self._cutter(charter, charter.history.start)

    def _cutter(self, charter: Charter, start: int) -> GroupCutter:
        places = GroupMap.from_json(charter.placements, RANGES * PAGE, 1)
        tails = {group: start for group, _tail in charter.tails}
        return GroupCutter(start, tails, charter.history.base, places, partial(TinyScanner, start), references)

    def placements(self, charter: Charter, log: bytes) -> dict[str, Any]:
        start = max(charter.history.start, charter.floor)
        cutter = self._cutter(charter, start)
        cutter.cut(start, log)
        return cutter.placements()


def references(record: bytes) -> Iterator[tuple[tuple[int, ...], int]]:
    """The block that a tiny record touches, if it has a body."""
    if len(record) > 1:
        yield (0,), record[1] % 64


class TinyWriter:
    """An endless, random log, handed out in pieces that end anywhere."""

    def __init__(self, start: int, rnd: random.Random) -> None:
        self.start, self._rnd = start, rnd
        self.log = bytearray()
        self._rest = b""

    def next(self) -> tuple[int, bytes]:
        """The position and the bytes of the next piece."""
        while len(self._rest) < 12:
            length = self._rnd.randrange(6)
            self._rest += bytes([length]) + self._rnd.randbytes(length)
        piece = self._rest[: self._rnd.randint(1, 11)]
        self._rest = self._rest[len(piece) :]
        at = self.start + len(self.log)
        self.log += piece
        return at, piece
