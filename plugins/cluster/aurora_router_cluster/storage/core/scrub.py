"""What to do about damage that a scrub found: which pieces of the log lay there.

A damaged place is never repaired by guessing. The index shows which pieces of the chain lie in it; each becomes a
*hole*, and holes are what peers fill, at the journal's end. The node's SCL falls for that time: it says what can be
read. A restart leaves the damaged frames out, which makes the same hole, and the frames written since then fill it.
(SIGMOD 2017 paper on Aurora, section 3.3, step 8: "periodically validate CRC codes on pages".)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aurora_router_cluster.storage.core.extents import Span
from aurora_router_cluster.storage.core.segment import lies_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router_cluster.storage.core.segment import Segment


class Loss(NamedTuple):
    """A piece of the log that cannot be read here any more."""

    group: int
    span: Span


class Places(NamedTuple):
    """A damaged stretch of the journal: places from `start` up to, not including, `end`."""

    start: int
    end: int


def losses(segments: Mapping[int, Segment], damaged: Iterable[Places]) -> list[Loss]:
    """The chained pieces of the log that lie, in part or whole, in damaged places, in order of the log."""
    stretches = list(damaged)
    found = {
        Loss(group, Span(piece.prev, piece.start, piece.end))
        for group, segment in segments.items()
        for piece in segment.after(segment.base)
        for places in stretches
        if lies_in(piece.place, piece.end - piece.start, *places)
    }
    return sorted(found, key=lambda loss: (loss.span.start, loss.group))
