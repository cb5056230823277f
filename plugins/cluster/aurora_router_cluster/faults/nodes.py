"""Faults of storage nodes: down, cut off, slow, a flipped byte, a torn tail."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from aurora_router_cluster.errors import EngineError, RequestError
from aurora_router_cluster.faults import disks
from aurora_router_cluster.faults.catalog import NODE_PREFIX
from aurora_router_cluster.faults.node_network import NodeLink
from aurora_router_cluster.storage.volume import require_nodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router_cluster.faults.catalog import Fault, Registry
    from aurora_router_cluster.storage.members import Member
    from aurora_router_cluster.storage.nodes import NodeSet
    from aurora_router_cluster.storage.scrubbing import ScrubReport
    from aurora_router_cluster.storage.volume import Volume

log = logging.getLogger(__name__)

KIB = 1024


class NodeFaults:
    """Faults of the storage nodes of one volume.

    Args:
        volume: the cluster's.
        registry: the faults in force.
        gated: put a link in front of every node, so that it can be cut off, or slow.
    """

    def __init__(self, volume: Volume, registry: Registry, *, gated: bool) -> None:
        self._volume = volume
        self._registry = registry
        self._links: dict[int, NodeLink] = {}
        nodes = volume.nodes
        if nodes is not None:
            nodes.on_scrubbed.append(self._on_scrub)
        if nodes is not None and gated:
            nodes.wrap = self._wrap
            for number, node in list(nodes.items()):
                nodes[number] = self._wrap(node)

    @property
    def _nodes(self) -> NodeSet:
        return require_nodes(self._volume, self._volume.nodes)

    def _wrap(self, node: Member) -> Member:
        self._links[node.node] = link = NodeLink(node)
        self._refresh(node.node, node.zone)
        return cast("Member", link)  # it has all that the node has, see `NodeLink.__getattr__`

    def number(self, target: str) -> int:
        """The node that is meant by ``node:<number>``.

        Raises:
            RequestError: there is none, or the cluster has no nodes.
        """
        text = target.removeprefix(NODE_PREFIX)
        if not text.isdigit():
            raise RequestError(f"{target!r} is no storage node; write node:<number>, e.g. node:0")
        return self._nodes.get_node(int(text)).node

    def in_zone(self, zone: str) -> list[int]:
        """The nodes of a zone; none where the cluster has no nodes."""
        nodes: Mapping[int, Member] = self._volume.nodes or {}
        return [number for number, node in nodes.items() if node.zone == zone]

    def check_links(self) -> None:
        """Raise `RequestError` unless there are links in front of the nodes."""
        if not self._links:
            _ = self._nodes
            raise RequestError(
                "cutting a storage node off, or slowing it, needs a cluster that was started with faults=True "
                "(cluster up --faults, pytest --aurora-faults)"
            )

    async def down(self, number: int) -> None:
        """Take a node down."""
        await self._nodes.down(number)

    async def up(self, number: int) -> None:
        """Bring a node up again, unless it is no member any more."""
        if number in self._nodes:
            await self._nodes.up(number)

    async def corrupt(self, fault: Fault) -> None:
        """Flip a byte on a node's disk."""
        node = self._nodes[self.number(fault.target)]
        disks.flip_byte(node.directory, fault.parameters.get("offset"))

    def _on_scrub(self, report: ScrubReport) -> None:
        """A scrub that left nothing lost has healed what was flipped on the node."""
        if report.failure is None and not report.lost:
            for fault in self._registry.on({"corrupt"}, f"{NODE_PREFIX}{report.node}"):
                self._registry.drop(fault)

    async def scrub(self, fault: Fault) -> None:
        """Check the disk of a node and refill what is damaged."""
        node = self._nodes.get(int(fault.target.removeprefix(NODE_PREFIX)))
        if node is not None and node.up:
            await node.scrub(self._nodes)

    async def tear(self, fault: Fault) -> None:
        """Let a node lose its power in the middle of a write, and come up again."""
        number = self.number(fault.target)
        await self.down(number)
        disks.tear(self._nodes[number].directory)
        await self.up(number)

    async def refresh(self) -> None:
        """Set the links to what the faults in force make of them; a node that is no longer cut off catches up."""
        for number, link in list(self._links.items()):
            node = self._nodes.get(number)
            if node is None:
                del self._links[number]  # it was replaced
                continue
            was_held = link.held
            self._refresh(number, node.zone)
            if was_held and not link.held and node.up:
                try:
                    await self.up(number)
                except EngineError as error:  # the network is healed all the same
                    log.warning("%s", error)

    def _refresh(self, number: int, zone: str) -> None:
        link, target = self._links[number], f"{NODE_PREFIX}{number}"
        cuts = self._registry.on({"partition"}, target, zone)
        slow = self._registry.on({"slow"}, target)
        rates = [fault.value("bandwidth") * KIB for fault in slow if fault.value("bandwidth")]
        link.held = any(not {"clients_only", "heartbeat_only"} & set(fault.parameters) for fault in cuts)
        link.delay = sum(fault.value("latency") for fault in slow)
        link.rate = min(rates, default=None)
