"""A storage node behind a TCP socket: `node.StorageNode` for callers that know the cluster's secret."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aurora_router_cluster.rpc.proof import Identity
from aurora_router_cluster.rpc.server import Caller, Server
from aurora_router_cluster.storage import operations
from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused
from aurora_router_cluster.storage.core.extents import Extent
from aurora_router_cluster.storage.disk.errors import LogFailedError
from aurora_router_cluster.storage.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aurora_router_cluster.rpc.framing import Facts, Message, Reply
    from aurora_router_cluster.storage.node import StorageNode

log = logging.getLogger(__name__)


class NodeServer(Server):
    """Serves one node.

    Args:
        node: the node.
        secret: the cluster's.
    """

    def __init__(self, node: StorageNode, secret: str) -> None:
        super().__init__(Identity("node", node.node), secret)
        self.node = node

    def make_caller(self) -> NodeCaller:
        """See `Server`."""
        return NodeCaller(self, self.node)

    def exchange(self, node: StorageNode) -> None:
        """Serve another opening of the node: callers come back, and bring it into step."""
        self.node = node
        self.disconnect_callers()


class _Sink:
    """Sends the acknowledgements of one epoch back to the caller that sent the log."""

    __slots__ = ("_caller", "_epoch")

    def __init__(self, caller: NodeCaller, epoch: int) -> None:
        self._caller = caller
        self._epoch = epoch

    def on_ack(self, node: int, group: int, scl: int) -> None:  # noqa: ARG002  # the caller knows which node it asked
        self._caller.send(operations.ACK, 0, operations.ACK_BODY.pack(self._epoch, group, scl))

    def on_refusal(self, node: int, promised: int) -> None:  # noqa: ARG002  # as above
        self._caller.send(operations.NACK, 0, operations.NACK_BODY.pack(self._epoch, promised))


class NodeCaller(Caller):
    """One connection: requests, and log."""

    def __init__(self, server: NodeServer, node: StorageNode) -> None:
        super().__init__(server, f"a caller of node {node.node}")
        self._node = node
        self._sinks: dict[int, _Sink] = {}

    def on_other(self, message: Message) -> None:
        """Log."""
        if message.kind != operations.LOG:
            super().on_other(message)
        head = operations.LOG_HEAD
        epoch, vdl, group, prev, start = head.unpack_from(message.body)
        sink = self._sinks.get(epoch)
        if sink is None:
            sink = self._sinks[epoch] = _Sink(self, epoch)
        self._node.append(epoch, vdl, Extent(group, prev, start, message.body[head.size :]), sink)

    def perform(self, op: str, facts: Facts, data: bytes) -> Awaitable[Reply]:
        """See `operations`."""
        return OPERATIONS[op].serve(self._node, facts, data)

    def describe_failure(self, error: Exception) -> Facts:
        """For `remote.RemoteNode.read_failure`."""
        if isinstance(error, Refused):
            return {"message": str(error), "promised": error.promised}
        if isinstance(error, NodeUnavailable | LogFailedError):
            return {"message": str(error)}
        number = self._node.node
        log.error("a request to node %d failed", number, exc_info=error)
        return {"message": f"node {number} failed: {type(error).__name__}: {error}"}
