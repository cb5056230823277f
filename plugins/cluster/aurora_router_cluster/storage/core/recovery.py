"""Where the log ends after its driver is gone: decided from what a write quorum of nodes answered to a promise.

Any extent at or below a VDL that was ever reported is on 4 of 6 nodes, so on at least one of any 3 that answer. For
each group the *donor* is the answering node of the highest (epoch really held, SCL): an epoch that was announced to a
node that lacks the log below its start does not count for that node. Laying the donors' extents end to end gives the
volume's complete LSN; the last record boundary at or below it is where the new epoch begins. What lies above was never
acknowledged, and is cut off when the charter of the new epoch is adopted. (SIGMOD 2018 paper on Aurora, section 2.4.)

Invariant: the point chosen is at or above every VDL that any driver of an older epoch ever reported or ever will.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.core.errors import CorruptLog, QuorumUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aurora_router_cluster.storage.core.extents import Span
    from aurora_router_cluster.storage.core.history import Timeline
    from aurora_router_cluster.storage.core.quorum import Membership
    from aurora_router_cluster.storage.core.replica import Charter, NodeState


@dataclass(frozen=True, slots=True)
class Survey:
    """What the answers say.

    Attributes:
        membership: the newest that any of them knows.
        copies: the nodes whose log counts.
        donors: group -> state of the one whose copy goes farthest.
        floor: a record boundary known to be durable, in bytes: the search for the end starts here.
        newest: state of a node with the newest epoch really held, whose history counts.
        charter: the newest known, whether its epoch is held or not: membership, floor, timelines, groups.
        collected: below where some node has removed the log, in bytes.
    """

    membership: Membership
    copies: tuple[NodeState, ...]
    donors: dict[int, NodeState]
    floor: int
    newest: NodeState
    charter: Charter
    collected: int

    def limit(self, state: NodeState) -> int | None:
        """Where the log of a node ends that the newest history has not cut off, in bytes; None: it has cut off none."""
        return self.newest.charter.history.divergence(state.charter.history)

    def equals(self, group: int) -> list[NodeState]:
        """The donor of a group, and the other copies that promised as much of it."""
        donor = self.donors[group]
        others = (state for state in self.copies if state is not donor and state.rank(group) == donor.rank(group))
        return [donor, *others]

    def sources(self, lsn: int) -> list[tuple[NodeState, int | None]]:
        """The nodes that may have the log at `lsn`, with limits: donors first, then all: an extent may be damaged."""
        known = {state.node: state for state in (*self.donors.values(), *self.copies)}
        limits = ((state, self.limit(state)) for state in known.values())
        return [(state, limit) for state, limit in limits if limit is None or lsn < limit]


def newest_charter(states: Iterable[NodeState]) -> Charter:
    """The charter of the newest epoch among the answers, in its newest revision.

    A revision counts once a write quorum holds it, and every quorum of answers meets that one.
    """
    return max((state.charter for state in states), key=lambda charter: (charter.history.epoch, charter.revision))


def survey(states: Sequence[NodeState]) -> Survey:
    """Choose the donors.

    Args:
        states: answers of nodes that promised the new epoch.

    Raises:
        QuorumUnavailable: they are no read quorum.
    """
    membership = newest_charter(states).membership if states else None
    members = [state for state in states if membership and state.node in membership.members]
    if membership is None or not membership.reads([state.node for state in members]):
        raise QuorumUnavailable(f"{len(members)} nodes answered: no read quorum (3 of 6)")
    trusted = [state for state in members if state.node not in membership.joining]
    groups = sorted({group for state in trusted for group in state.scls})
    donors = {group: _farthest(trusted, group) for group in groups}
    newest = max(trusted, key=lambda state: (max(map(state.rank, groups), default=(0, 0)), -state.node))
    charter = newest_charter(state for state in states if state.charter.line == newest.charter.line)
    floor = max(charter.history.base, charter.floor, *(_durable(state, newest) for state in trusted))
    collected = max(state.charter.collected for state in trusted)
    return Survey(membership, tuple(trusted), donors, floor, newest, charter, collected)


def _durable(state: NodeState, newest: NodeState) -> int:
    """The VDL that a node knows, as far as it concerns the newest branch: the volume may have been set back."""
    if state.charter.line == newest.charter.line:
        return state.vdl
    parted = newest.charter.history.divergence(state.charter.history)
    return state.vdl if parted is None else min(state.vdl, parted)


def _farthest(states: Sequence[NodeState], group: int) -> NodeState:
    return max(states, key=lambda state: (*state.rank(group), -state.node))


def complete(floor: int, pieces: Iterable[tuple[int, int]]) -> int:
    """How far the pieces (start, end) of all groups cover the log without a gap, from `floor` on, in bytes."""
    reach = floor
    for start, end in sorted(pieces):
        if start > reach:
            break
        reach = max(reach, end)
    return reach


def chain_end(scl: int, spans: Sequence[Span], point: int) -> int:
    """Where the chain of a group ends at `point`.

    Args:
        scl: the donor's SCL of the group, in bytes.
        spans: the donor's extents of the group above the floor.
        point: the recovery point, at or above the floor.
    """
    below = [span for span in spans if span.start < point]
    if below:
        return min(below[-1].end, point)
    return spans[0].prev if spans else min(scl, point)


def timelines_up_to(charter: Charter, start: int) -> tuple[Timeline, ...]:
    """The timelines that were registered, as far as they began at or below `start`.

    Each charter carries on the list of the one before, and a timeline counts only once a write quorum holds it: so the
    newest charter of any node has all that count.
    """
    return tuple(timeline for timeline in charter.timelines if timeline.start <= start)


def check_floor(reach: int, floor: int) -> None:
    """Make sure that the copies found hold what was durable once.

    Raises:
        CorruptLog: the log that was found ends below a position once reported durable.
    """
    if reach < floor:
        raise CorruptLog(
            f"the log found ends at {format_lsn(reach)}, below {format_lsn(floor)}, which was durable: more copies "
            "than the quorum bears are lost; nothing was changed"
        )
