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


class _Source(NamedTuple):
    """A peer that has log which a node lacks: whether it still has what comes first of it, how far it goes, which."""

    first: bool
    scl: int
    peer: int

    def is_better(self, other: _Source | None) -> bool:
        return other is None or self[:2] > other[:2]


def may_exchange(one: NodeState, other: NodeState) -> bool:
    """Whether log of one node may be given to the other: same epoch promised and adopted, same history."""
    return (
        one.promised == other.promised
        and one.current
        and other.current
        and one.charter.history == other.charter.history
    )


def plan(mine: NodeState, peers: Iterable[NodeState]) -> list[Pull]:
    """What a node should fetch: for each group in which a peer goes farther, from the one that goes farthest.

    A peer that has removed some of what the node lacks comes after all others: it may have nothing that continues the
    node's chain.
    """
    best: dict[int, _Source] = {}
    for peer in peers:
        if peer.node == mine.node or not may_exchange(mine, peer):
            continue
        for group, scl in peer.scls.items():
            source = _Source(peer.base <= mine.scl(group), scl, peer.node)
            if scl > mine.scl(group) and source.is_better(best.get(group)):
                best[group] = source
    return [Pull(source.peer, group, mine.scl(group)) for group, source in sorted(best.items())]


def plan_kept(mine: NodeState, peers: Iterable[NodeState]) -> list[Pull]:
    """What a node should fetch of the branches that are kept: as `plan`. A kept branch never changes."""
    best: dict[tuple[int, int], _Source] = {}
    for peer in peers:
        if peer.node == mine.node or not may_exchange(mine, peer):
            continue
        for branch, scls in peer.kept.items():
            for group, scl in scls.items():
                held = _scl_of_kept(mine, branch, group)
                source = _Source(peer.base <= held, scl, peer.node)
                if scl > held and source.is_better(best.get((branch, group))):
                    best[branch, group] = source
    return [
        Pull(source.peer, group, _scl_of_kept(mine, branch, group), branch)
        for (branch, group), source in sorted(best.items())
        if any(kept.line.number == branch for kept in mine.charter.kept)
    ]


def _scl_of_kept(state: NodeState, branch: int, group: int) -> int:
    return state.kept.get(branch, {}).get(group, state.base)
