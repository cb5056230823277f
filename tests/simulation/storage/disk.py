"""A simulated disk: frames become durable a little later, all that queued together; a crash tears the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import CorruptLog
from aurora_router_cluster.storage.core.scrub import Places
from aurora_router_cluster.storage.protocols import LOG, METADATA

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from aurora_router_cluster.storage.protocols import Frame

HEADER = b"|"


class Disk:
    """What survives a crash.

    Attributes:
        frames: the durable frames, each with the place of its data.
        data: the bytes that places point into.
        damaged: places of frames with a flipped bit.
        rotten: frames that were damaged, wherever they lie now: what this copy may lack until a peer gave it again.
        failure: what every write ends with; None: the disk works.
        reorders: whether a crash may keep later parts of what was not synced, without the earlier ones.
    """

    def __init__(self) -> None:
        self.frames: list[tuple[Frame, int]] = []
        self.data = bytearray()
        self.damaged: set[int] = set()
        self.rotten: list[Frame] = []
        self.failure: OSError | None = None
        self.reorders = False

    def rot(self, choose: Callable[[list[tuple[Frame, int]]], tuple[Frame, int]]) -> bool:
        """Damage one frame of log; False if there is none."""
        log = [(frame, place) for frame, place in self.frames if frame.kind == LOG and frame.data]
        if log:
            frame, place = choose(log)
            self.damaged.add(place)
            self.rotten.append(frame)
        return bool(log)

    def mend(self, places: set[int]) -> None:
        """What was damaged has been written again: the old frames count no more."""
        self.frames = [(frame, place) for frame, place in self.frames if place not in places]
        self.damaged -= places

    def find_damage(self) -> list[Places]:
        """Where the damaged frames lie, whole: none of their bytes can be trusted."""
        return [
            Places(place - len(HEADER), place + len(frame.data))
            for frame, place in self.frames
            if place in self.damaged
        ]

    def keep(self, frame: Frame) -> int:
        self.data += HEADER  # so that no two frames have one place, as none has on a real disk
        place = len(self.data)
        self.frames.append((frame, place))
        self.data += frame.data
        return place


class SimulatedJournal:
    """One opening of a disk; `crash` ends it."""

    stalled: str | None = None

    def __init__(self, disk: Disk, rnd: random.Random, latency: float) -> None:
        self._disk, self._rnd, self._latency = disk, rnd, latency
        self._queue: list[tuple[Frame, Callable[[int | OSError], None]]] = []
        self._busy = self._dead = False
        self._failed: OSError | None = None

    @property
    def failed(self) -> bool:
        """Whether a write failed, so that nothing is written any more."""
        return self._failed is not None

    def replay(self) -> Iterator[tuple[Frame, int]]:
        return iter([(frame, place) for frame, place in self._disk.frames if place not in self._disk.damaged])

    def append(self, frame: Frame, done: Callable[[int | OSError], None]) -> None:
        if self._dead:
            return
        if self._failed is not None:
            done(self._failed)
            return
        self._queue.append((frame, done))
        if not self._busy:
            self._busy = True
            self._begin()

    def _begin(self) -> None:
        batch = len(self._queue)
        asyncio.get_running_loop().call_later(self._rnd.random() * self._latency, self._end, batch)

    def _end(self, batch: int) -> None:
        if self._dead:
            return
        if self._disk.failure is not None:
            self._fail(self._disk.failure)
            return
        written, self._queue = self._queue[:batch], self._queue[batch:]
        for frame, done in [(done, self._disk.keep(frame)) for frame, done in written]:
            frame(done)
        if self._queue:
            self._begin()
        else:
            self._busy = False

    def _fail(self, error: OSError) -> None:
        """Nothing more is written; some of what was queued reached the disk all the same."""
        self._failed = error
        self._keep_some()
        queue, self._queue = self._queue, []
        for _frame, done in queue:
            done(error)

    def _keep_some(self) -> None:
        queue = [frame for frame, _done in self._queue]
        if self._disk.reorders:
            kept = [frame for frame in queue if self._rnd.random() < 0.5]
        else:
            kept = queue[: self._rnd.randint(0, len(queue))]
        for frame in kept:
            self._disk.keep(frame)

    def read(self, place: int, n: int) -> bytes:
        if self._disk.damaged and any(start <= place < end for start, end in self._disk.find_damage()):
            raise CorruptLog(f"the frame at {place} does not match its checksum")
        return bytes(self._disk.data[place : place + n])

    def trim(self, place: int | None) -> None:
        metadata = max(at for frame, at in self._disk.frames if frame.kind == METADATA)
        keep = metadata if place is None else min(place, metadata)
        self._disk.frames = [(frame, at) for frame, at in self._disk.frames if at + max(1, len(frame.data)) > keep]
        self._disk.damaged &= {place for _frame, place in self._disk.frames}

    async def scrub(self) -> list[Places]:
        await asyncio.sleep(self._rnd.random() * self._latency)
        return self._disk.find_damage()

    async def retire(self) -> None:
        """The network does it, once it has checked that the node is whole: see `network.Link.scrub`."""

    def crash(self) -> None:
        """Power loss: some of what was queued reached the disk all the same, without an acknowledgement."""
        self._dead = True
        self._keep_some()

    async def close(self) -> None:
        self._dead = True
