"""The framing of PostgreSQL's log, as the storage needs it: where records end, to which groups they go."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.storage.core.blocks import block_refs
from aurora_router_cluster.storage.core.extents import SingleGroup
from aurora_router_cluster.storage.core.groups import RANGE_BLOCKS, GroupCutter, GroupMap
from aurora_router_cluster.storage.core.wal import Scanner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster.storage.core.extents import Cutter
    from aurora_router_cluster.storage.core.groups import Fork
    from aurora_router_cluster.storage.core.replica import Charter


class PostgresFraming:
    """`extents.Framing` of PostgreSQL.

    Args:
        segment_size: bytes in a WAL segment file.
        version: major version of PostgreSQL.
        group_bytes: size of a protection group; None: the volume is one group, and the log is shipped as it comes.
        range_blocks: blocks that are placed together.
    """

    def __init__(
        self, segment_size: int, version: int = 18, group_bytes: int | None = None, range_blocks: int = RANGE_BLOCKS
    ) -> None:
        self.segment_size = segment_size
        self._version = version
        self._group_bytes = group_bytes
        self._range_blocks = range_blocks

    @property
    def striped(self) -> bool:
        """Whether the volume is striped over groups."""
        return self._group_bytes is not None

    def scanner(self, start: int) -> Scanner:
        """A scanner from `start` on."""
        return Scanner(start, self.segment_size)

    def cutter(self, charter: Charter) -> Cutter:
        """A cutter for the epoch of `charter`."""
        start = charter.history.start
        if self._group_bytes is None:
            return SingleGroup(self.scanner(start))
        return self._group_cutter(charter, start, self._group_bytes)

    def _group_cutter(self, charter: Charter, start: int, group_bytes: int) -> GroupCutter:
        places = GroupMap.from_json(charter.placements, group_bytes, self._range_blocks)
        tails = {group: start for group, _tail in charter.tails}
        scanner = partial(Scanner, start, self.segment_size)
        return GroupCutter(start, tails, charter.history.base, places, scanner, self._references)

    def _references(self, record: bytes) -> Iterator[tuple[Fork, int]]:
        return ((ref[:4], ref.block) for ref in block_refs(record, self._version))

    def placements(self, charter: Charter, log: bytes) -> dict[str, Any]:
        """The map of the groups after `log`."""
        if self._group_bytes is None:
            return {}
        start = max(charter.history.start, charter.floor)
        cutter = self._group_cutter(charter, start, self._group_bytes)
        cutter.cut(start, log)
        return cutter.placements()
