"""Repair between peers: what `core.gossip` decides, done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused
from aurora_router_cluster.storage.core.gossip import plan, plan_kept
from aurora_router_cluster.storage.node import MAX_PULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aurora_router_cluster.storage.core.extents import Extent
    from aurora_router_cluster.storage.core.gossip import Pull
    from aurora_router_cluster.storage.core.replica import NodeState
    from aurora_router_cluster.storage.protocols import NodeHandle

AT_ONCE = 16
"""Groups that a peer is asked for at a time."""


async def catch_up(
    target: NodeHandle, state: NodeState, peers: Mapping[int, NodeHandle], states: Iterable[NodeState]
) -> NodeState:
    """Fill the holes of one node from its peers, as far as they go; return its state afterwards.

    A peer that fails or changes its epoch meanwhile is left out; the next round finds another.

    Raises:
        Refused, NodeUnavailable: by the target itself.
    """
    return await _fetch(target, state, peers, plan(state, states))


async def catch_up_kept(
    target: NodeHandle, state: NodeState, peers: Mapping[int, NodeHandle], states: Iterable[NodeState]
) -> NodeState:
    """Give one node what it lacks of the branches that are kept; otherwise as `catch_up`."""
    return await _fetch(target, state, peers, plan_kept(state, states))


async def _fetch(
    target: NodeHandle, state: NodeState, peers: Mapping[int, NodeHandle], pulls: Iterable[Pull]
) -> NodeState:
    """Do what was planned: several groups at a time are asked for, and written with one sync."""
    left = sorted(pulls, key=lambda pull: (pull.branch, pull.group))
    while left:
        branch = left[0].branch
        some = [pull for pull in left[:AT_ONCE] if pull.branch == branch]
        left = left[len(some) :]
        limit = MAX_PULL // len(some)
        found = await asyncio.gather(*(_pull(peers, state.promised, pull, limit) for pull in some))
        extents = [extent for each in found for extent in each]
        if extents:
            state = await target.fill(state.promised, extents, branch)
        for pull, each in zip(some, found, strict=True):
            reached = state.kept.get(branch, {}).get(pull.group, 0) if branch else state.scl(pull.group)
            if each and reached > pull.after:  # there may be more
                left.insert(0, pull._replace(after=reached))
    return state


async def _pull(peers: Mapping[int, NodeHandle], epoch: int, pull: Pull, limit: int) -> Sequence[Extent]:
    peer = peers.get(pull.peer)  # a node may be replaced and forgotten meanwhile
    if peer is None:
        return ()
    try:
        return await peer.pull(epoch, pull.group, pull.after, limit, pull.branch)
    except (Refused, NodeUnavailable):
        return ()
