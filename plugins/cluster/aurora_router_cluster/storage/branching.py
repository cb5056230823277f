"""Opening a branch: the volume goes back to a position, or forward to one on a branch that is kept.

The steps are those of a recovery (`recovery`), but where the new epoch begins was chosen, not found:

1. the present branch has just been recovered: a write quorum holds all of it;
2. *promise* another epoch; the log up to the point is looked up at the nodes *before* anything is changed;
3. *adopt* a charter of a new branch; each node keeps the index of the branch that is left (`core.branches`);
4. *repair* until a write quorum holds everything below the point.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.core.branches import Branch, Line
from aurora_router_cluster.storage.core.errors import QuorumUnavailable
from aurora_router_cluster.storage.core.recovery import chain_end, complete
from aurora_router_cluster.storage.quorum_call import ask
from aurora_router_cluster.storage.recovery import RecoveredVolume, adopt, fence, repair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aurora_router_cluster.storage.core.extents import Span
    from aurora_router_cluster.storage.core.replica import Charter
    from aurora_router_cluster.storage.protocols import NodeHandle


def make_kept_branch(charter: Charter, end: int, closed: float) -> Branch:
    """The present branch as it is kept when it is left.

    Args:
        charter: its present one.
        end: where it ends, in bytes.
        closed: when it is left, in seconds since 1970.
    """
    return Branch(charter.line, charter.history, end, closed, charter.timelines, charter.placements)


def branch_charter(before: Charter, left: Branch, source: Branch, epoch: int, point: int) -> Charter:
    """The charter of a new branch, without the ends of the chains.

    Args:
        before: of the epoch that ends.
        left: the branch that is left.
        source: the branch whose log is continued: `left`, or one that is kept.
        epoch: the new one.
        point: where it begins, in bytes.
    """
    kept = (*(branch for branch in before.kept if branch.line.number != left.line.number), left)
    number = max(branch.line.number for branch in kept) + 1
    resumed = 0 if source is left else source.line.number
    return replace(
        before,
        history=source.history.extend(epoch, point),
        timelines=tuple(timeline for timeline in source.timelines if timeline.start <= point),
        placements=source.placements,
        revision=0,
        collected=max(before.floor, before.collected),  # some nodes may have removed as much, and a quorum knows it
        line=Line(number, source.line.number, point, epoch, resumed),
        kept=kept,
    )


async def branch_off(
    handles: Mapping[int, NodeHandle], before: RecoveredVolume, point: int, source: Branch | None, closed: float
) -> RecoveredVolume:
    """Leave the present branch and open a new one.

    Args:
        handles: every node that may be a member.
        before: the present branch, just recovered.
        point: where the new one begins, in bytes: a record boundary.
        source: the kept branch whose log is continued; None: the present one.
        closed: now, in seconds since 1970.

    Raises:
        QuorumUnavailable: too few nodes, or they do not hold the log up to `point`. The epoch before is over then;
            a recovery opens the branch that a write quorum has.
    """
    handles = dict(handles)
    left = make_kept_branch(before.charter, before.point, closed)
    epoch, promises = await fence(handles)
    charter = branch_charter(before.charter, left, source or left, epoch, point)
    floor = max(charter.history.base, charter.collected)
    groups = {group for state in promises.values() for group in state.scls}  # also those that have no log up to there
    tails = await _tails(handles, groups, floor, point, source.line.number if source is not None else 0)
    charter = replace(charter, tails=tuple(sorted(tails.items())))
    states = await adopt(handles, epoch, charter)
    return RecoveredVolume(epoch, charter, tuple(await repair(handles, states, charter)))


async def _tails(
    handles: Mapping[int, NodeHandle], groups: Iterable[int], floor: int, point: int, branch: int
) -> dict[int, int]:
    """Group -> end of its chain at `point`, by the copies that go farthest."""
    spans = {group: await _farthest(handles, group, floor, branch) for group in groups}
    reach = complete(floor, ((span.start, span.end) for pieces in spans.values() for span in pieces))
    if reach < point:
        raise QuorumUnavailable(
            f"the nodes that can be reached hold the log of that branch up to {format_lsn(reach)} only, "
            f"not up to {format_lsn(point)}"
        )
    return {group: chain_end(floor, pieces, point) for group, pieces in spans.items()}


async def _farthest(handles: Mapping[int, NodeHandle], group: int, floor: int, branch: int) -> Sequence[Span]:
    answers = await ask(
        handles.values(),
        lambda handle: handle.spans(group, floor, branch),
        lambda answers: len(answers) == len(handles),
    )
    return max(answers.values(), key=lambda spans: spans[-1].end if spans else floor, default=())
