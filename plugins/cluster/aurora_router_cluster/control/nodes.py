"""What can be asked of a cluster's storage nodes over the control socket."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.rpc.served import served

if TYPE_CHECKING:
    from aurora_router_cluster.control.plane import ControlPlane
    from aurora_router_cluster.storage.quorum import QuorumVolume


class NodeCommands:
    """Requests to the storage nodes of one cluster.

    Args:
        plane: the cluster's control plane; the volume has the nodes.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def _volume(self) -> QuorumVolume:
        volume = self._plane.state.volume
        if volume.flavour != "quorum":
            raise RequestError(
                f"this cluster has no storage nodes: its flavour is {volume.flavour!r}; start one with flavour 'quorum'"
            )
        return cast("QuorumVolume", volume)

    @served
    async def node_down(self, node: int) -> None:
        """Take a storage node down, as the loss of its machine; with --isolated: kill -9 of its process."""
        await self._volume().node_down(node)

    @served
    async def node_up(self, node: int) -> None:
        """Bring a storage node up again over the files that it has."""
        await self._volume().node_up(node)

    @served
    async def replace_node(self, node: int) -> int:
        """Put a new storage node in the place of one; returns its number."""
        return await self._volume().replace_node(node)

    @served
    async def replace_zone(self, zone: str) -> list[list[int]]:
        """Put new storage nodes in the places of a zone's; returns pairs of old and new."""
        return [list(pair) for pair in (await self._volume().replace_zone(zone)).items()]

    @served
    async def scrub(self) -> list[dict[str, Any]]:
        """Read the disks of all nodes that run, and refill from their peers what is damaged."""
        return [asdict(report) for report in await self._volume().scrub()]

    @served
    async def repair(self, *, force: bool = False) -> dict[str, Any]:
        """Form a new membership from three survivors, and fail over; see `storage.membership.reform`."""
        volume = self._volume()
        return await self._plane.after_repair(lambda: volume.repair(force=force))
