"""Which node gives what to which other one: nodes fill each other's holes.

Two nodes may exchange log only if they hold the same epoch and the same history; then any byte that one of them has is
the byte that the other misses. Gossip is idempotent: what is known already changes nothing. (SIGMOD 2017 paper on
Aurora, section 3.3, step 4: "peer-to-peer gossip to fill in gaps".)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router_cluster.storage.core.replica import NodeState


class Pull(NamedTuple):
    """Let the node get the extents of `group` above `after` (bytes) from `peer`; `branch`: a kept one, or 0."""

    peer: int
    group: int
    after: int
    branch: int = 0


def may_exchange(one: NodeState, other: NodeState) -> bool:
    """Whether log of one node may be given to the other: same epoch promised and adopted, same history."""
    return (
        one.promised == other.promised
        and one.current
        and other.current
        and one.charter.history == other.charter.history
    )


def plan(mine: NodeState, peers: Iterable[NodeState]) -> list[Pull]:
    """What a node should fetch: for each group in which a peer goes farther, from the one that goes farthest."""
    best: dict[int, tuple[int, int]] = {}
    for peer in peers:
        if peer.node == mine.node or not may_exchange(mine, peer):
            continue
        for group, scl in peer.scls.items():
            if scl > mine.scl(group) and scl > best.get(group, (0, 0))[0]:
                best[group] = scl, peer.node
    return [Pull(peer, group, mine.scl(group)) for group, (_scl, peer) in sorted(best.items())]


def plan_kept(mine: NodeState, peers: Iterable[NodeState]) -> list[Pull]:
    """What a node should fetch of the branches that are kept: as `plan`. A kept branch never changes."""
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for peer in peers:
        if peer.node == mine.node or not may_exchange(mine, peer):
            continue
        for branch, scls in peer.kept.items():
            for group, scl in scls.items():
                if scl > _scl_of_kept(mine, branch, group) and scl > best.get((branch, group), (0, 0))[0]:
                    best[branch, group] = scl, peer.node
    return [
        Pull(peer, group, _scl_of_kept(mine, branch, group), branch)
        for (branch, group), (_scl, peer) in sorted(best.items())
        if any(kept.line.number == branch for kept in mine.charter.kept)
    ]


def _scl_of_kept(state: NodeState, branch: int, group: int) -> int:
    return state.kept.get(branch, {}).get(group, state.base)
