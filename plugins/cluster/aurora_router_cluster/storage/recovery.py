"""Recovery: fence the old epoch, find the end of the durable log, open a new epoch there.

The steps, each at a write quorum (``core.recovery`` has the theory):

1. *promise* a new epoch: older drivers are fenced from here on;
2. *survey* the answers and find the recovery point;
3. *adopt* the charter of the new epoch: what lies above the point is cut off, durably; doing it again is harmless;
4. *repair* until a write quorum holds everything below the point;

and only then is the volume open.

A copy may shrink after its promise: a read or a scrub finds a damaged piece, and what follows is beyond a hole. So what
a donor is asked for is compared with what it promised; where that is gone, another copy that promised as much is the
donor, and if there is none the recovery fails before it has changed anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.core.errors import NodeUnavailable, QuorumUnavailable, Refused
from aurora_router_cluster.storage.core.recovery import (
    chain_end,
    check_floor,
    complete,
    newest_charter,
    survey,
    timelines_up_to,
)
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.healing import catch_up
from aurora_router_cluster.storage.node import MAX_PULL
from aurora_router_cluster.storage.quorum_call import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from aurora_router_cluster.storage.core.extents import Framing, Span
    from aurora_router_cluster.storage.core.recovery import Survey
    from aurora_router_cluster.storage.core.replica import NodeState
    from aurora_router_cluster.storage.protocols import NodeHandle
    from aurora_router_cluster.storage.quorum_call import Answers

REPAIR_ROUNDS = 50
REPAIR_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class RecoveredVolume:
    """An epoch that is open for writing.

    Attributes:
        epoch: its number.
        charter: what was adopted at a write quorum.
        states: the nodes that hold it.
    """

    epoch: int
    charter: Charter
    states: tuple[NodeState, ...]

    @property
    def point(self) -> int:
        """The recovery point: where the epoch begins, in bytes."""
        return self.charter.history.start


async def recover(handles: Mapping[int, NodeHandle], framing: Framing) -> RecoveredVolume:
    """Fence, survey, truncate and repair.

    Args:
        handles: every node that may be a member.
        framing: knows where records end.

    Raises:
        QuorumUnavailable: too few nodes, or another recovery was faster; it can be tried again.
        CorruptLog: the log found ends below what was durable once.
    """
    handles = dict(handles)  # a node may be replaced and forgotten meanwhile: then it does not answer any more
    epoch, promises = await fence(handles)
    charter = await succeed(handles, survey(list(promises.values())), framing, epoch)
    states = await adopt(handles, epoch, charter)
    return RecoveredVolume(epoch, charter, tuple(await repair(handles, states, charter)))


async def succeed(handles: Mapping[int, NodeHandle], found: Survey, framing: Framing, epoch: int) -> Charter:
    """The charter with which `epoch` begins: at the end of the durable log, as a survey found it.

    Raises:
        QuorumUnavailable: a donor does not answer any more.
        CorruptLog: the log found ends below what was durable once.
    """
    point, tails = await _end_of_log(handles, found, framing)
    history = found.newest.charter.history.extend(epoch, point)
    timelines = timelines_up_to(found.charter, point)
    placements = await _placements(handles, found, framing, point)
    return Charter(
        history,
        found.membership,
        tuple(sorted(tails.items())),
        timelines,
        placements,
        floor=found.charter.floor,
        collected=found.collected,
        line=found.charter.line,
        kept=found.charter.kept,
    )


async def fence(handles: Mapping[int, NodeHandle]) -> tuple[int, Answers[NodeState]]:
    """Promise a new epoch at a write quorum, if one answers.

    Fewer nodes are asked for nothing: their promises could open no epoch, and would only end the present one there.

    Returns:
        The epoch, and the answers.

    Raises:
        QuorumUnavailable: too few nodes answered, or promised.
    """
    states = await reach_write_quorum(handles)
    epoch = max((state.promised for state in states.values()), default=0) + 1
    promises = await ask(handles.values(), lambda handle: handle.promise(epoch), _is_write_quorum)
    if not _is_write_quorum(promises):
        raise QuorumUnavailable(f"epoch {epoch} was not promised by a write quorum (4 of 6): {promises.explain()}")
    return epoch, promises


async def reach_write_quorum(handles: Mapping[int, NodeHandle]) -> Answers[NodeState]:
    """What a write quorum of nodes hold and have promised; changes nothing.

    Raises:
        QuorumUnavailable: too few nodes answered.
    """
    states = await ask(handles.values(), lambda handle: handle.state(), _is_write_quorum)
    if not _is_write_quorum(states):
        raise QuorumUnavailable(f"no write quorum (4 of 6) can be reached: {states.explain()}")
    return states


def _is_write_quorum(answers: Answers[NodeState]) -> bool:
    return bool(answers) and newest_charter(answers.values()).membership.writes(answers)


async def _end_of_log(handles: Mapping[int, NodeHandle], found: Survey, framing: Framing) -> tuple[int, dict[int, int]]:
    """The last record boundary up to which the donors hold everything, and where each group's chain ends there."""
    spans = {group: await _spans(handles, found, group) for group in found.donors}
    reach = complete(found.floor, ((span.start, span.end) for pieces in spans.values() for span in pieces))
    check_floor(max((found.donors[group].scl(group) for group in spans), default=found.floor), found.floor)
    point = await _last_boundary(handles, found, framing, reach)
    tails = {group: chain_end(found.donors[group].scl(group), pieces, point) for group, pieces in spans.items()}
    return point, tails


async def _spans(handles: Mapping[int, NodeHandle], found: Survey, group: int) -> list[Span]:
    """The extents of `group` above the floor, of a donor, without what the newest history has cut off.

    Raises:
        QuorumUnavailable: no copy that promised as much as the donor has all of it any more.
    """
    for donor in found.equals(group):
        try:
            spans = await handles[donor.node].spans(group, found.floor)
        except (Refused, NodeUnavailable):
            continue
        if donor.scl(group) <= found.floor or (spans and spans[-1].end >= donor.scl(group)):
            return _alive(spans, found.limit(donor))
    scl = found.donors[group].scl(group)
    raise QuorumUnavailable(
        f"no node has all of the log up to {format_lsn(scl)} that nodes "
        f"{[donor.node for donor in found.equals(group)]} promised (group {group}): a copy was damaged, or its node "
        "does not answer any more; a retry finds out what is left"
    )


def _alive(spans: Sequence[Span], limit: int | None) -> list[Span]:
    if limit is None:
        return list(spans)
    return [span._replace(end=min(span.end, limit)) for span in spans if span.start < limit]


async def _placements(handles: Mapping[int, NodeHandle], found: Survey, framing: Framing, point: int) -> dict[str, Any]:
    """The map of the protection groups at the recovery point: that of the last epoch, and its log since then."""
    charter = found.charter
    if not framing.striped:
        return {}
    log = [data async for data in _log(handles, found, max(charter.history.start, charter.floor), point)]
    return framing.placements(charter, b"".join(log))


async def _last_boundary(handles: Mapping[int, NodeHandle], found: Survey, framing: Framing, reach: int) -> int:
    scanner = framing.scanner(found.floor)
    async for data in _log(handles, found, found.floor, reach):
        scanner.feed(data)
    return scanner.boundary


async def _log(handles: Mapping[int, NodeHandle], found: Survey, start: int, end: int) -> AsyncIterator[bytes]:
    """The log of all groups from `start` to `end`, read from any node that has it and was not cut off below it."""
    while start < end:
        data = b""
        for state, limit in found.sources(start):
            upto = end if limit is None else min(end, limit)
            try:
                data = await handles[state.node].read(0, start, min(MAX_PULL, upto - start))
            except (Refused, NodeUnavailable):
                continue
            if data:
                break
        if not data:
            raise QuorumUnavailable(f"no node gave the log at {format_lsn(start)} back")
        start += len(data)
        yield data


async def adopt(handles: Mapping[int, NodeHandle], epoch: int, charter: Charter) -> dict[int, NodeState]:
    """Install a charter at a write quorum.

    Raises:
        QuorumUnavailable: too few nodes took it.
    """
    membership = charter.membership
    states = await ask(handles.values(), lambda handle: handle.adopt(epoch, charter), membership.writes)
    if not membership.writes(states):
        raise QuorumUnavailable(f"epoch {epoch} was not adopted by a write quorum (4 of 6): {states.explain()}")
    return states


async def repair(handles: Mapping[int, NodeHandle], states: dict[int, NodeState], charter: Charter) -> list[NodeState]:
    """Let peers fill each other until a write quorum has everything below the start of the epoch.

    Raises:
        QuorumUnavailable: it did not come to that, or another recovery has taken over.
    """
    for _round in range(REPAIR_ROUNDS):
        whole = [node for node, state in states.items() if _is_whole(state, charter)]
        if charter.membership.writes(whole):
            return list(states.values())
        for node in sorted(set(states) - set(whole)):
            states[node] = await _fill(handles, states, node)
        await asyncio.sleep(REPAIR_PAUSE if _round else 0)
        if _round:
            states.update(await _read_states(handles, states, charter))  # a copy may have shrunk: others fill it
    raise QuorumUnavailable(f"the log could not be repaired to 4 of 6 below {format_lsn(charter.history.start)}")


async def _read_states(
    handles: Mapping[int, NodeHandle], states: Mapping[int, NodeState], charter: Charter
) -> Mapping[int, NodeState]:
    """What the nodes that adopted the epoch hold of it now."""
    now = await ask([handles[node] for node in states], lambda handle: handle.state(), charter.membership.writes)
    return {node: state for node, state in now.items() if state.promised == states[node].promised}


async def _fill(handles: Mapping[int, NodeHandle], states: Mapping[int, NodeState], node: int) -> NodeState:
    try:
        return await catch_up(handles[node], states[node], handles, list(states.values()))
    except Refused as refusal:
        raise QuorumUnavailable(f"another recovery has taken over: {refusal}") from None
    except NodeUnavailable:
        return states[node]


def _is_whole(state: NodeState, charter: Charter) -> bool:
    start = charter.history.start
    return all(state.scl(group) >= start for group, _tail in charter.tails)
