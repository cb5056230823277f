"""How a stream of log becomes extents, each of one protection group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aurora_router_cluster.storage.core.replica import Charter


class Extent(NamedTuple):
    """A stretch of the log that belongs to one protection group.

    Attributes:
        group: number of the protection group.
        prev: end of the extent before it in the same group, in bytes.
        start: position of its first byte.
        data: its bytes; empty where it only closes a chain for an epoch.
    """

    group: int
    prev: int
    start: int
    data: bytes

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self.start + len(self.data)


def join_extents(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The extents, in the order of the log; those that lie end to end in one group are one."""
    run: list[Extent] = []
    for extent in extents:
        if run and (extent.group != run[0].group or extent.start != run[-1].end):
            yield _one(run)
            run = []
        run.append(extent)
    if run:
        yield _one(run)


def _one(run: list[Extent]) -> Extent:
    return run[0] if len(run) == 1 else run[0]._replace(data=b"".join([extent.data for extent in run]))


class Span(NamedTuple):
    """Where an extent lies: end of the one before it in its group, first position, position after the last byte."""

    prev: int
    start: int
    end: int


class BoundaryScanner(Protocol):
    """Finds where records end in a stream that comes in pieces of any size."""

    @property
    def boundary(self) -> int:
        """End of the last whole record, in bytes."""
        ...

    def feed(self, data: bytes, /) -> int:
        """Take the next bytes; return the boundary."""
        ...


class Cutter(Protocol):
    """Cuts the stream of one epoch into extents and finds where records end."""

    @property
    def boundary(self) -> int:
        """End of the last whole record that was cut, in bytes."""
        ...

    def placements(self) -> dict[str, Any]:
        """The map of the groups as it is now; empty: one group."""
        ...

    def cut(self, start: int, data: bytes, /) -> list[Extent]:
        """The extents that can be shipped now that `data` arrived at `start`."""
        ...


class Framing(Protocol):
    """What the storage must know about the log that it keeps; everything else is opaque bytes to it."""

    @property
    def striped(self) -> bool:
        """Whether the volume has more than one protection group, or may get more."""
        ...

    def scanner(self, start: int) -> BoundaryScanner:
        """A scanner for a stream that begins at `start`: a record boundary."""
        ...

    def cutter(self, charter: Charter) -> Cutter:
        """A cutter for the epoch of `charter`."""
        ...

    def placements(self, charter: Charter, log: bytes) -> dict[str, Any]:
        """The map of the groups after `log`, empty: one group.

        The log begins where the epoch of `charter` does, or at the charter's floor if that is above.
        """
        ...


class SingleGroup:
    """The cutter of a volume with one protection group: everything that arrives is one extent, shipped at once."""

    __slots__ = ("_scanner",)

    def __init__(self, scanner: BoundaryScanner) -> None:
        self._scanner = scanner

    @property
    def boundary(self) -> int:
        """End of the last whole record, in bytes."""
        return self._scanner.boundary

    def placements(self) -> dict[str, Any]:
        """There is no map."""
        return {}

    def cut(self, start: int, data: bytes) -> list[Extent]:
        """One extent, whose predecessor ends where it begins."""
        self._scanner.feed(data)
        return [Extent(0, start, start, data)]
