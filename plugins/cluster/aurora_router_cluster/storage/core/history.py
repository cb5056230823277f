"""Which epoch wrote which part of the log.

The log is linear: one surviving byte per position. Each time a driver opens the volume it begins an *epoch* at a
position, and whatever an earlier epoch wrote above that position is dead. So the list of (epoch, start) shows for any
copy of the log which of its bytes are alive (SIGMOD 2018 paper on Aurora, section 2.4, "crash recovery").

Invariant: epochs and starts ascend; two histories agree on all bytes below the first entry in which they differ.

A *timeline* is PostgreSQL's own name for the same thing. A promotion may burn a number without ever being attached,
so the pair (epoch, timeline) is registered apart from the history, when a writer attaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class EpochStart(NamedTuple):
    """One entry: epoch number, and the position in bytes at which it began to write."""

    epoch: int
    start: int


class Timeline(NamedTuple):
    """A timeline of PostgreSQL that was attached: the epoch, its number, its switch position, its history file."""

    epoch: int
    tli: int
    start: int
    content: bytes


@dataclass(frozen=True, slots=True)
class History:
    """The epochs of a log, oldest first."""

    entries: tuple[EpochStart, ...] = ()

    @property
    def epoch(self) -> int:
        """The newest epoch, 0 in an empty history."""
        return self.entries[-1].epoch if self.entries else 0

    @property
    def start(self) -> int:
        """Where the newest epoch began, in bytes."""
        return self.entries[-1].start if self.entries else 0

    @property
    def base(self) -> int:
        """Where the log begins, in bytes."""
        return self.entries[0].start if self.entries else 0

    def __contains__(self, epoch: int) -> bool:
        """Whether an epoch is one of these."""
        return any(entry.epoch == epoch for entry in self.entries)

    def epoch_at(self, lsn: int) -> int:
        """The epoch *really held* by a copy complete up to `lsn`.

        An epoch that was announced, but whose start the copy has not reached, does not count.
        """
        return next((entry.epoch for entry in reversed(self.entries) if entry.start <= lsn), 0)

    def alive_below(self, epoch: int) -> int | None:
        """The position at which what was written under `epoch` ends to be alive; None: nowhere."""
        return min((entry.start for entry in self.entries if entry.epoch > epoch), default=None)

    def extend(self, epoch: int, start: int) -> History:
        """The history of an epoch that begins at `start`; entries that began above it are dropped.

        Raises:
            ValueError: `epoch` is not newer than all before.
        """
        if epoch <= self.epoch:
            raise ValueError(f"epoch {epoch} does not follow epoch {self.epoch}")
        kept = tuple(entry for entry in self.entries if entry.start <= start)
        return History((*kept, EpochStart(epoch, start)))

    def divergence(self, other: History) -> int | None:
        """The position above which a copy with this history may differ from one with `other`; None: equal."""
        for mine, theirs in zip(self.entries, other.entries, strict=False):
            if mine != theirs:
                return min(mine.start, theirs.start)
        shorter, longer = sorted((self.entries, other.entries), key=len)
        return longer[len(shorter)].start if len(shorter) < len(longer) else None

    def shares_start(self, other: History, lsn: int) -> bool:
        """Whether an epoch that is in both histories began at `lsn`."""
        return any(entry.start == lsn and entry in other.entries for entry in self.entries)

    def to_json(self) -> list[list[int]]:
        """Return this history as lists, for a node's metadata."""
        return [list(entry) for entry in self.entries]

    @classmethod
    def from_json(cls, data: Any) -> History:
        """Read what `to_json` wrote."""
        return cls(tuple(EpochStart(int(epoch), int(start)) for epoch, start in data))
