"""The log of a branch that was left, as the endpoint serves it to an instance that is built up to a point on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused
from aurora_router_cluster.wire.errors import LogRemovedError
from aurora_router_cluster.wire.source import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aurora_router_cluster.storage.core.branches import Branch
    from aurora_router_cluster.storage.protocols import NodeHandle
    from aurora_router_cluster.wire.replication import HotStandbyFeedback
    from aurora_router_cluster.wire.source import LogSource


class BranchLog:
    """`wire.source.LogSource` of a kept branch, which does not change any more.

    Args:
        branch: which.
        nodes: those that may have it.
        present: the log of the present branch, for what all branches share.
    """

    def __init__(self, branch: Branch, nodes: Mapping[int, NodeHandle], present: LogSource) -> None:
        self._branch = branch
        self._nodes = nodes
        self.system_identifier = present.system_identifier
        self.server_version = present.server_version
        self.segment_size = present.segment_size
        self.first_lsn = present.first_lsn
        self.durable_lsn = branch.end
        later = (Timeline(t.tli, t.start, t.content) for t in branch.timelines if t.tli > 1)
        self.timelines = (Timeline(1, branch.history.base), *later)

    def read_tail(self, lsn: int, length: int) -> bytes | None:  # noqa: ARG002  # nothing of it is in memory
        """Nothing."""
        return None

    async def read(self, lsn: int, length: int) -> bytes:
        """Bytes of the branch; empty while no node that has them answers.

        Raises:
            LogRemovedError: garbage collection has removed them.
        """
        if lsn < self.first_lsn:
            raise LogRemovedError(f"the log below {self.first_lsn:#x} has been removed")
        number = self._branch.line.number
        for node in list(self._nodes.values()):
            try:
                data = await node.read(0, lsn, min(length, self.durable_lsn - lsn), number)
            except (Refused, NodeUnavailable):
                continue
            if data:
                return data
        return b""

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002  # it never grows
        """Do nothing: the log of a branch that was left does not grow."""
        return lambda: None

    def on_feedback(self, feedback: HotStandbyFeedback) -> None:
        """No writer has to know."""
