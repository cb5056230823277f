"""Storage nodes that run in this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.core.errors import CorruptLog, NodeUnavailable
from aurora_router_cluster.storage.disk.errors import LogFailedError
from aurora_router_cluster.storage.operations import NodeOperations
from aurora_router_cluster.storage.reopening import open_node, reopen
from aurora_router_cluster.storage.scrubbing import scrub

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.storage.core.extents import Extent
    from aurora_router_cluster.storage.node import StorageNode
    from aurora_router_cluster.storage.operations import Operation
    from aurora_router_cluster.storage.protocols import AckSink, NodeHandle
    from aurora_router_cluster.storage.scrubbing import ScrubReport

T = TypeVar("T")


class LocalNode(NodeOperations):
    """A `protocols.NodeHandle` on a node in this process, which can be taken down and brought up again.

    Args:
        node: its number.
        zone: availability zone, e.g. ``eu-test-1a``.
        directory: of its journal.
        sync: whether its disk is synced.
    """

    def __init__(self, node: int, zone: str, directory: Path, *, sync: bool = True) -> None:
        self._number = node
        self.zone = zone
        self.directory = directory
        self._sync = sync
        self._node: StorageNode | None = None
        self._why = "it was never started"

    @property
    def node(self) -> int:
        """Its number."""
        return self._number

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._node is not None

    @property
    def failure(self) -> str | None:
        """Why it is absent though it runs: a sentence about its disk; None: it is not."""
        return self._node.failure if self._node is not None else None

    @property
    def empty(self) -> bool:
        """Whether it holds nothing, not even the promise to be a member."""
        return self._node is not None and self._node.replica.metadata is None

    @property
    def lost(self) -> bool:
        """It ends with this process, and never alone."""
        return False

    async def start(self) -> None:
        """Bring it up: its state is what its journal says.

        Raises:
            NodeUnavailable: the journal cannot be opened, or does not show what was promised.
        """
        if self._node is None:
            try:
                self._node = await open_node(self._number, self.directory, sync=self._sync)
            except (LogFailedError, CorruptLog) as error:
                raise NodeUnavailable(f"node {self._number} in {self.zone} did not start: {error}") from error

    async def stop(self) -> None:
        """Take it down."""
        node, self._node = self._node, None
        self._why = "it is down"
        if node is not None:
            await node.close()

    async def reopen(self) -> bool:
        """Open it again after its disk failed, if the disk takes what is written; whether that was done."""
        failed = self._node
        if failed is None or not failed.failed:
            return False
        opened = await reopen(failed, self.directory, sync=self._sync)
        if opened is not None and self._node is not failed:
            await opened.close()  # it was taken down meanwhile
            return False
        self._node = opened or failed
        return opened is not None

    async def scrub(self, peers: Mapping[int, NodeHandle]) -> ScrubReport:
        """Check its disk and refill from `peers` what is damaged; see `scrubbing.scrub`."""
        return await scrub(self._running(), self, peers)

    async def look(self) -> None:
        """`describe` is always fresh."""

    @property
    def size(self) -> int:
        """Bytes of its files on disk."""
        return sum(path.stat().st_size for path in self.directory.glob("*") if path.is_file())

    def groups(self) -> dict[int, int]:
        """Protection group -> SCL, in bytes, of the segment replicas that it holds."""
        segments = self._running().replica.segments
        return {group: segment.scl for group, segment in segments.items()}

    def describe(self) -> dict[str, Any]:
        """What ``status`` shows of it."""
        about: dict[str, Any] = {"node": self._number, "zone": self.zone, "up": self.up}
        about |= {"pid": os.getpid() if self.up else None, "address": None, "failure": self.failure}
        if self._node is not None and self._node.replica.metadata is not None:
            state = self._node.replica.state()
            about["epoch"] = state.promised
            about["scl"] = format_lsn(max(state.scls.values(), default=state.base))
            about["holes"] = state.holes
        return about

    def _running(self) -> StorageNode:
        if self._node is None:
            raise NodeUnavailable(f"node {self._number} in {self.zone} does not answer: {self._why}")
        return self._node

    def append(self, epoch: int, vdl: int, extent: Extent, sink: AckSink) -> None:
        """See `protocols.NodeHandle`."""
        if self._node is not None:
            self._node.append(epoch, vdl, extent, sink)

    async def perform(self, operation: Operation[T], *arguments: Any) -> T:
        """Let the node do it.

        Raises:
            NodeUnavailable: it is down.
        """
        return await operation.apply(self._running(), arguments)
