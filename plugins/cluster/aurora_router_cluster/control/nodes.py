"""What can be asked of a cluster's storage nodes over the control socket."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.rpc.served import served
from aurora_router_cluster.storage.volume import require_nodes

if TYPE_CHECKING:
    from aurora_router_cluster.control.plane import ControlPlane
    from aurora_router_cluster.storage.membership.change import MembershipChange
    from aurora_router_cluster.storage.nodes import NodeSet


class NodeCommands:
    """Requests to the storage nodes of one cluster.

    Args:
        plane: the cluster's control plane; the volume has the nodes.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    @property
    def _nodes(self) -> NodeSet:
        volume = self._plane.state.volume
        return require_nodes(volume, volume.nodes)

    @property
    def _change(self) -> MembershipChange:
        volume = self._plane.state.volume
        return require_nodes(volume, volume.membership_change)

    @served
    async def node_down(self, node: int) -> None:
        """Take a storage node down, as the loss of its machine; with --isolated: kill -9 of its process."""
        await self._nodes.down(node)

    @served
    async def node_up(self, node: int) -> None:
        """Bring a storage node up again over the files that it has; it is filled by its peers."""
        await self._nodes.up(node)

    @served
    async def replace_node(self, node: int) -> int:
        """Put a new storage node in the place of one while the log goes on; returns its number."""
        return await self._change.replace(node)

    @served
    async def replace_zone(self, zone: str) -> list[list[int]]:
        """Put new storage nodes in the places of a zone's; returns pairs of old and new."""
        return [list(pair) for pair in (await self._change.replace_zone(zone)).items()]

    @served
    async def scrub(self) -> list[dict[str, Any]]:
        """Read the disks of all nodes that run, and refill from their peers what is damaged."""
        return [asdict(report) for report in await self._nodes.scrub()]

    @served
    async def repair(self, *, force: bool = False) -> dict[str, Any]:
        """Form a new membership from three survivors, and fail over; see `storage.membership.reform`."""
        change = self._change
        return await self._plane.after_repair(lambda: change.repair(force=force))
