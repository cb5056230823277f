"""A new membership from three survivors, when the lost nodes are gone for good.

With three of six nodes nothing can be fenced by a quorum: the other three, wherever they are, might promise another
epoch and go on. An operator has to say that they are *gone*; then this does what a recovery does, with all three
survivors in the place of the write quorum:

1. a new epoch is promised at *all* of the survivors: from here on no older driver has a write quorum, for it would need
   one of them (4 + 3 > 6), and neither has a recovery by the lost nodes;
2. they are surveyed. Everything at or below the VDL is on 4 of 6, so on at least one of any three: nothing that was
   acknowledged is missing;
3. empty newcomers take the lost nodes' slots. They count for writes, and not yet for reads: until they are hydrated a
   read needs all three survivors, so a repair that dies half way is done again and finds the same;
4. the survivors adopt the charter, the newcomers are filled, and once a write quorum holds everything they count for
   reads, too.

What it cannot do: if a node said to be gone holds a newer membership that none of the survivors knows, or if it is
alive elsewhere under another supervisor, there are two volumes. The nodes given up are never spoken to again.
(SIGMOD 2018 paper on Aurora, section 4, has membership change; losing a read quorum there means restoring from S3.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import QuorumUnavailable
from aurora_router_cluster.storage.core.recovery import newest_charter, survey
from aurora_router_cluster.storage.quorum_call import ask
from aurora_router_cluster.storage.recovery import RecoveredVolume, repair, succeed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aurora_router_cluster.storage.core.extents import Framing
    from aurora_router_cluster.storage.core.replica import Charter, NodeState
    from aurora_router_cluster.storage.protocols import NodeHandle
    from aurora_router_cluster.storage.quorum_call import Answers


@dataclass(frozen=True, slots=True)
class Survivors:
    """The nodes that answer, and those that are lost.

    Attributes:
        survivors: members that answer and may be read from.
        lost: the other members.
    """

    survivors: tuple[int, ...]
    lost: tuple[int, ...]


async def assess(handles: Mapping[int, NodeHandle]) -> Survivors:
    """Find out whether there is something to reform, and enough to do it from.

    Raises:
        QuorumUnavailable: fewer than three survivors: the log cannot be determined from them.
        ValueError: a write quorum answers, so that nothing has to be reformed.
    """
    states = await ask(handles.values(), lambda handle: handle.state(), lambda _answers: False)
    if not states:
        raise QuorumUnavailable(f"no storage node answers: {states.explain()}")
    membership = newest_charter(states.values()).membership
    survivors = tuple(m for m in membership.members if m in states and m not in membership.joining)
    if membership.writes(states):
        raise ValueError(
            f"nodes {sorted(states)} answer, and are a write quorum (4 of 6): nothing has to be given up; fail over, "
            "or replace the lost nodes one by one"
        )
    if not membership.reads(survivors):
        raise QuorumUnavailable(
            f"only nodes {sorted(survivors)} are left of {membership.slots}: the durable log is unknown from fewer "
            f"than three; bring one up again, or restore a snapshot ({states.explain()})"
        )
    return Survivors(survivors, tuple(m for m in membership.members if m not in survivors))


async def reform(
    handles: Mapping[int, NodeHandle],
    framing: Framing,
    survivors: tuple[int, ...],
    newcomers: Mapping[int, Callable[[Charter], Awaitable[NodeState]]],
) -> RecoveredVolume:
    """Open the volume with the survivors and newcomers as its members.

    Args:
        handles: of the survivors and the newcomers.
        framing: knows where records end.
        survivors: a read quorum.
        newcomers: for each empty node what formats it.

    Raises:
        QuorumUnavailable: a survivor or newcomer failed meanwhile; do it again.
        CorruptLog: the log found ends below what was durable once.
    """
    left = {number: handles[number] for number in survivors}
    states = _all(await ask(left.values(), lambda handle: handle.state(), lambda _answers: False), survivors)
    epoch = max(state.promised for state in states.values()) + 1
    promises = _all(await ask(left.values(), lambda handle: handle.promise(epoch), lambda _answers: False), survivors)
    found = survey(list(promises.values()))
    charter = await succeed(left, found, framing, epoch)
    charter = replace(charter, membership=found.membership.reform(survivors, newcomers))
    members = {number: handles[number] for number in (*survivors, *newcomers)}
    fresh = {number: await format_it(charter) for number, format_it in newcomers.items()}
    held = await ask(left.values(), lambda handle: handle.adopt(epoch, charter), lambda _answers: False)
    return RecoveredVolume(epoch, charter, tuple(await repair(members, {**_all(held, survivors), **fresh}, charter)))


def _all(answers: Answers[NodeState], wanted: tuple[int, ...]) -> Answers[NodeState]:
    if set(wanted) - set(answers):
        raise QuorumUnavailable(f"all of the survivors {list(wanted)} are needed: {answers.explain()}")
    return answers
