"""A storage node behind a TCP socket, as its driver sees it: `protocols.NodeHandle` over one connection.

While there is no connection log is dropped as requests are refused: what a node missed its peers give it when it is
back (`up_again`). A request that is not answered in time ends the connection, because it is no longer known what the
node has read of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router_cluster.rpc.client import Handle
from aurora_router_cluster.rpc.proof import Identity
from aurora_router_cluster.storage import operations
from aurora_router_cluster.storage.core.errors import NEVER_FORMATTED, NodeFailed, NodeUnavailable, Refused
from aurora_router_cluster.storage.core.replica import NodeState
from aurora_router_cluster.storage.operations import NodeOperations

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.rpc.framing import Facts, Message
    from aurora_router_cluster.storage.core.extents import Extent
    from aurora_router_cluster.storage.operations import Operation
    from aurora_router_cluster.storage.protocols import AckSink

T = TypeVar("T")

MOST_QUEUED = 16 << 20
"""Bytes on their way to a node that does not read; more log is dropped, and filled in by the peers later."""
EPOCHS_KEPT = 8
"""Of how many drivers acknowledgements are still passed on."""


class RemoteNode(NodeOperations, Handle):
    """A node behind an address.

    Args:
        node: its number.
        secret: the cluster's.
        up_again: called with the number each time a connection has been made.

    Attributes:
        last: what it reported of itself last.
        scls: protection group -> SCL in bytes, by that and by what it has acknowledged since.
        failure: why it is absent though it answers, by what it said itself over this connection: its disk has failed.
        empty: it said that it holds nothing, not even the promise to be a member.
    """

    pauses = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    patience = 5.0
    unavailable = NodeUnavailable

    def __init__(self, node: int, secret: str, up_again: Callable[[int], None] = lambda _node: None) -> None:
        super().__init__(Identity("node", node), secret)
        self._up_again = up_again
        self._sinks: dict[int, AckSink] = {}
        self.last: NodeState | None = None
        self.scls: dict[int, int] = {}
        self.failure: str | None = None
        self.empty = False

    @property
    def node(self) -> int:
        """Its number."""
        return self.identity.number

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"node {self.node}"

    def why_unreachable(self) -> str:
        """Why it cannot be spoken to."""
        where = self.address
        return "does not answer: " + ("it is down" if where is None else f"there is no connection to {where}")

    def on_connected(self) -> None:
        """It can be brought into step; what it said before it has to say again."""
        self.failure = None
        asyncio.get_running_loop().call_soon(self._up_again, self.node)

    def on_unanswered(self) -> None:
        """Abort the connection after a request without an answer: what the node has read is not known."""
        if self.connection is not None:
            self.connection.abort()

    # Log

    def append(self, epoch: int, vdl: int, extent: Extent, sink: AckSink) -> None:
        """See `protocols.NodeHandle`."""
        connection = self.connection
        if connection is None or connection.queued > MOST_QUEUED:
            return
        if self._sinks.get(epoch) is not sink:
            self._sinks[epoch] = sink
            for old in sorted(self._sinks)[:-EPOCHS_KEPT]:
                del self._sinks[old]
        head = operations.LOG_HEAD.pack(epoch, vdl, extent.group, extent.prev, extent.start)
        connection.send(operations.LOG, 0, head, extent.data)

    def on_other(self, message: Message) -> None:
        """Log has become durable, or was refused."""
        if message.kind == operations.ACK:
            epoch, group, scl = operations.ACK_BODY.unpack(message.body)
            sink = self._sinks.get(epoch)
            if sink is not None:
                self.scls[group] = max(scl, self.scls.get(group, 0))
                sink.on_ack(self.node, group, scl)
        elif message.kind == operations.NACK:
            epoch, promised = operations.NACK_BODY.unpack(message.body)
            sink = self._sinks.get(epoch)
            if sink is not None:
                sink.on_refusal(self.node, promised)

    # Requests

    async def perform(self, operation: Operation[T], *arguments: Any) -> T:
        """Ask the node to do it; what it says of itself is remembered."""
        try:
            answer = await self.ask(operation.name, *operation.encode_request(arguments), timeout=operation.seconds)
        except NodeFailed as error:
            if operation.result is operations.NODE_STATE:
                self.failure = str(error)
            raise
        except Refused as refusal:
            if refusal.promised == NEVER_FORMATTED:  # what was known of it counts no more
                self.last, self.scls, self.empty = None, {}, True
            raise
        result = operation.result.decode(*answer)
        if isinstance(result, NodeState):
            self.failure, self.empty = None, False
            self.last, self.scls = result, dict(result.scls)
        return result

    def read_failure(self, facts: Facts) -> Exception:
        """A refusal, or why the node cannot."""
        if "promised" in facts:
            return Refused(facts["message"], facts["promised"])
        return NodeFailed(facts["message"])
