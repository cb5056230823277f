"""Garbage collection: how much of the log will never be read again.

What may still be read: by a reader that follows, from what it has applied; an instance built from a base, from where
the recovery of that base begins; a restore into the retention window, from the base before the window, as far as the
room for the window reaches.

Invariant: the floor is at or below each of these, and at or below the durable end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aurora_router_cluster.lsn import segment_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COPIES = 6
"""Of the log."""


@dataclass(frozen=True, slots=True)
class Base:
    """A data directory kept in the storage, from which instances are built.

    Attributes:
        redo: where its recovery begins, in bytes.
        end: how far the log has to be replayed until it is consistent, in bytes.
        taken: when, in seconds since 1970.
    """

    redo: int
    end: int
    taken: float


def select_needed(bases: Sequence[Base], oldest_wanted: float) -> list[Base]:
    """The bases to keep: the newest, those taken in the retention window, and the newest one taken before it.

    Args:
        bases: in the order in which they were taken.
        oldest_wanted: start of the retention window, in seconds since 1970.
    """
    before = [base for base in bases if base.taken <= oldest_wanted]
    within = [base for base in bases if base.taken > oldest_wanted]
    return [*before[-1:], *within]


def select_spaced(bases: Sequence[Base], seconds: float) -> list[Base]:
    """The bases of which neighbours are at least so many seconds apart, and the newest in any case.

    Args:
        bases: in the order in which they were taken.
        seconds: the distance.
    """
    kept: list[Base] = []
    for base in bases[:-1]:
        if not kept or base.taken - kept[-1].taken >= seconds:
            kept.append(base)
    return [*kept, *bases[-1:]]


def select_affordable(bases: Sequence[Base], sizes: Sequence[int], durable: int, budget: int) -> list[Base]:
    """The newest base, and older ones as long as they and the log since the oldest of them take no more than a budget.

    As on Aurora, how far a cluster can go back is a wish: where much is written it is less.

    Args:
        bases: in the order in which they were taken.
        sizes: bytes on disk of each.
        durable: the VDL.
        budget: bytes, of the bases and of six copies of the log.
    """
    kept: list[Base] = []
    taken = 0
    for base, size in zip(reversed(bases), reversed(sizes), strict=True):
        taken += size
        if kept and taken + COPIES * (durable - base.redo) > budget:
            break
        kept.append(base)
    return kept[::-1]


def floor(durable: int, bases: Iterable[Base], readers: Iterable[int], segment_size: int) -> int:
    """The position below which the log may be forgotten, in bytes: the start of a segment file.

    Args:
        durable: the VDL.
        bases: those that are kept.
        readers: how far each reader has applied the log.
        segment_size: bytes in a WAL segment file.
    """
    return segment_start(min([durable, *(base.redo for base in bases), *readers]), segment_size)
