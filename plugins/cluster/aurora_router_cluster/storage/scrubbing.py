"""Scrub: read all that a node has on its disk, and refill from the peers what is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aurora_router_cluster.storage.healing import catch_up, catch_up_kept
from aurora_router_cluster.storage.quorum_call import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router_cluster.storage.core.scrub import Loss
    from aurora_router_cluster.storage.protocols import NodeHandle


class Examined(Protocol):
    """What a scrub needs of a node's disk."""

    async def find_damage(self) -> tuple[int, list[Loss]]:
        """Read the whole journal again; see `node.StorageNode.find_damage`."""
        ...

    async def rewrite_metadata(self) -> None:
        """Write the metadata again."""
        ...

    async def retire_damage(self) -> None:
        """What was found damaged has been refilled: let it be found no more."""
        ...


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a scrub of one node found and did.

    Attributes:
        node: which.
        damaged: how many damaged places of its journal were found.
        refilled: bytes of log that were fetched from peers and written again.
        lost: pieces that no peer gave; they stay holes, and are filled when one can.
        failure: why the node was not scrubbed; None: it was.
    """

    node: int
    damaged: int
    refilled: int
    lost: tuple[Loss, ...]
    failure: str | None = None


async def scrub(node: Examined, handle: NodeHandle, peers: Mapping[int, NodeHandle]) -> ScrubReport:
    """Check every frame of a node's journal against its checksum; what is damaged is a hole, and peers fill holes.

    Args:
        node: the node's disk.
        handle: how it is reached.
        peers: all nodes, by number.

    Raises:
        NodeUnavailable: the node's disk fails altogether.
        Refused: the node's epoch changed meanwhile; scrub again.
    """
    damaged, losses = await node.find_damage()
    if damaged:
        await node.rewrite_metadata()
    others = [peer for peer in peers.values() if peer.node != handle.node]
    states = await ask(others, lambda peer: peer.state(), lambda _answers: False)
    state = await catch_up(handle, await handle.state(), peers, states.values())
    state = await catch_up_kept(handle, state, peers, states.values())
    lost = tuple(loss for loss in losses if state.scl(loss.group) < loss.span.end)
    if damaged and not lost:
        await node.retire_damage()
    refilled = sum(loss.span.end - loss.span.start for loss in losses if loss not in lost)
    return ScrubReport(handle.node, damaged, refilled, lost)
