"""A tiny log for the simulator: a record is one byte that tells how many follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.extents import Cutter, SingleGroup

if TYPE_CHECKING:
    import random


class TinyScanner:
    """Finds the ends of the tiny records."""

    def __init__(self, start: int) -> None:
        self.boundary = self._position = start
        self._need = 0

    def feed(self, data: bytes) -> int:
        i, n = 0, len(data)
        while i < n:
            if not self._need:
                self._need = 1 + data[i]
            step = min(self._need, n - i)
            self._need -= step
            i += step
            if not self._need:
                self.boundary = self._position + i
        self._position += n
        return self.boundary


class TinyFraming:
    """The framing of the simulated log."""

    def scanner(self, start: int) -> TinyScanner:
        return TinyScanner(start)

    def cutter(self, start: int, tails: dict[int, int]) -> Cutter:
        return SingleGroup(self.scanner(start))


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
