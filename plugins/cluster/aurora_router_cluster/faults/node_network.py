"""The network in front of a storage node: what lies between it and the driver, the recovery and its peers.

A link stands where the node is called, whether the node runs in this process or in one of its own. Held, it is a
partition: log that is sent is dropped and no ack comes back, a call is not answered until its deadline, also one that
reached the node before. Slow, it adds latency, and keeps the order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router_cluster.storage.core.errors import NodeUnavailable
from aurora_router_cluster.storage.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aurora_router_cluster.storage.core.extents import Extent
    from aurora_router_cluster.storage.members import Member
    from aurora_router_cluster.storage.protocols import AckSink

T = TypeVar("T")

DEADLINE = 2.0  # seconds until a call that is not answered ends
CALLS = frozenset(name for name, operation in OPERATIONS.items() if not operation.owner)


class NodeLink:
    """A storage node behind a network that can fail; else it is the node.

    Attributes:
        held: nothing passes.
        delay: seconds, each way.
        rate: bytes per second of log sent to it; None: unlimited.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self.held = False
        self.delay = 0.0
        self.rate: float | None = None
        self._free_at = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._member, name)
        if name not in CALLS:
            return found

        def call(*arguments: Any) -> Awaitable[Any]:
            return self._call(lambda: found(*arguments))

        return call

    async def _call(self, start: Callable[[], Awaitable[T]]) -> T:
        await self._pass()
        try:
            return await start()
        finally:
            await self._pass()

    async def _pass(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.held:
            await asyncio.sleep(DEADLINE)
            raise NodeUnavailable(f"node {self._member.node} in {self._member.zone} does not answer: it is cut off")

    def append(self, epoch: int, vdl: int, extent: Extent, sink: AckSink, /) -> None:
        """See `protocols.NodeHandle`."""
        if self.held:
            return
        if not self.delay and not self.rate:
            self._member.append(epoch, vdl, extent, ReturnPath(self, sink))
            return
        loop = asyncio.get_running_loop()
        seconds = len(extent.data) / self.rate if self.rate else 0.0
        self._free_at = max(loop.time(), self._free_at) + seconds
        loop.call_at(self._free_at + self.delay, self._arrive, epoch, vdl, extent, sink)

    def _arrive(self, epoch: int, vdl: int, extent: Extent, sink: AckSink) -> None:
        if not self.held:
            self._member.append(epoch, vdl, extent, ReturnPath(self, sink))


class ReturnPath:
    """The way back of acknowledgements and refusals through the link: a `protocols.AckSink`."""

    def __init__(self, link: NodeLink, sink: AckSink) -> None:
        self._link = link
        self._sink = sink

    def on_ack(self, node: int, group: int, scl: int, /) -> None:
        """Durable."""
        self._back(lambda: self._sink.on_ack(node, group, scl))

    def on_refusal(self, node: int, promised: int, /) -> None:
        """The node obeys another epoch."""
        self._back(lambda: self._sink.on_refusal(node, promised))

    def _back(self, answer: Callable[[], None]) -> None:
        if self._link.delay:
            asyncio.get_running_loop().call_later(self._link.delay, self._deliver, answer)
        else:
            self._deliver(answer)

    def _deliver(self, answer: Callable[[], None]) -> None:
        if not self._link.held:
            answer()
