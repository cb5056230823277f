"""Repair between peers: what `core.gossip` decides, done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused
from aurora_router_cluster.storage.core.gossip import plan
from aurora_router_cluster.storage.node import MAX_PULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router_cluster.storage.core.replica import NodeState
    from aurora_router_cluster.storage.ports import NodeHandle


async def catch_up(
    target: NodeHandle, state: NodeState, peers: Mapping[int, NodeHandle], states: Iterable[NodeState]
) -> NodeState:
    """Fill the holes of one node from its peers, as far as they go; return its state afterwards.

    A peer that fails or changes its epoch meanwhile is left out; the next round finds another.

    Raises:
        Refused, NodeUnavailable: by the target itself.
    """
    epoch = state.promised
    for pull in plan(state, states):
        after = pull.after
        while (peer := peers.get(pull.peer)) is not None:  # a node may be replaced and forgotten meanwhile
            try:
                extents = await peer.pull(epoch, pull.group, after, MAX_PULL)
            except (Refused, NodeUnavailable):
                break
            if not extents:
                break
            state = await target.fill(epoch, extents)
            reached = state.scl(pull.group)
            if reached <= after:
                break
            after = reached
    return state
