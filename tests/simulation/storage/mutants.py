"""Planted bugs: each breaks one rule of the storage in a way that somebody could write by mistake.

A simulation that does not find them proves nothing when it finds no others.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from aurora_router_cluster.storage import driver, opening, replacement
from aurora_router_cluster.storage.core import gossip, quorum, recovery, replica, segment, tracker
from aurora_router_cluster.storage.node import StorageNode
from aurora_router_cluster.storage.ports import LOG, METADATA, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@dataclass(frozen=True)
class Mutant:
    """A bug: its name, the invariant that it breaks, and how it gets in."""

    name: str
    invariant: int
    plant: Callable[[], AbstractContextManager[Any]]


def acknowledge_before_durable() -> Any:
    original = StorageNode.append

    def append(self: StorageNode, epoch: int, vdl: int, extent: Any, sink: Any) -> None:
        original(self, epoch, vdl, extent, sink)
        known = self.replica.segments.get(extent.group)
        if self.replica.admits(epoch) and known is not None and known.scl >= extent.prev:
            sink.acked(self.node, extent.group, extent.end)

    return patch.object(StorageNode, "append", append)


@contextmanager
def acknowledge_across_a_promise() -> Iterator[None]:
    original = StorageNode._install

    def landed(self: Any, epoch: int, group: int, prev: int, start: int, end: int, place: int) -> int:
        return self.segment(group).insert(prev, start, end, place)

    async def install(self: StorageNode, metadata: Any) -> Any:
        early = None if self.replica.metadata is None else self.replica.state()
        late = await original(self, metadata)
        return late if early is None or early.charter != late.charter else replace(late, scls=early.scls)

    with patch.object(replica.Replica, "landed", landed), patch.object(StorageNode, "_install", install):
        yield


def accept_older_epochs() -> Any:
    def admits(self: Any, epoch: int) -> bool:
        return self.metadata is not None and epoch <= self.metadata.promised

    return patch.object(replica.Replica, "admits", admits)


@contextmanager
def promise_in_memory_only() -> Iterator[None]:
    original = StorageNode._install

    async def install(self: StorageNode, metadata: Any) -> Any:
        if self.replica.metadata is not None and metadata.charter == self.replica.metadata.charter:
            self.replica.install(metadata)
            return self.replica.state()
        return await original(self, metadata)

    with patch.object(StorageNode, "_install", install):
        yield


def longest_copy_wins() -> Any:
    return patch.object(replica.NodeState, "rank", lambda self, group: (0, self.scl(group)))


def announced_epoch_wins() -> Any:
    return patch.object(replica.NodeState, "rank", lambda self, group: (self.charter.history.epoch, self.scl(group)))


def three_are_a_write_quorum() -> Any:
    return patch.object(quorum, "WRITE_QUORUM", 3)


def durable_at_three() -> Any:
    def durable(self: Any, complete: Any) -> int:
        return sorted(complete.get(member, -1) for member in self.members)[3]

    return patch.object(quorum.Membership, "durable", durable)


def no_truncation() -> Any:
    return patch.object(segment.Segment, "truncate", lambda self, lsn, keep_mark=True: None)


@contextmanager
def no_repair_before_opening() -> Iterator[None]:
    async def repair(_handles: Any, states: Any, _charter: Any) -> Any:
        return list(states.values())

    with patch.object(opening, "repair", repair):
        yield


def report_the_vcl() -> Any:
    original = tracker.Tracker._advance

    def advance(self: Any) -> bool:
        before = self.vdl
        original(self)
        self.vdl = self.vcl
        return self.vdl > before

    return patch.object(tracker.Tracker, "_advance", advance)


def open_at_the_vcl() -> Any:
    async def last_boundary(_handles: Any, _found: Any, _framing: Any, reach: int) -> int:
        return reach

    return patch.object(opening, "_last_boundary", last_boundary)


def count_holes() -> Any:
    def insert(self: Any, _prev: int, start: int, end: int, place: int) -> int:
        self._chain(start, end, place)
        return self.scl

    return patch.object(segment.Segment, "insert", insert)


@contextmanager
def gossip_across_histories() -> Iterator[None]:
    original = StorageNode.pull

    def pull(self: StorageNode, _epoch: int, group: int, after: int, limit: int) -> Any:
        return original(self, 0, group, after, limit)

    with patch.object(gossip, "may_exchange", lambda _one, _other: True), patch.object(StorageNode, "pull", pull):
        yield


def never_resend_the_tail() -> Any:
    return patch.object(driver.Driver, "_resend", lambda self, handle: None)


@contextmanager
def write_before_refusing() -> Iterator[None]:
    original = StorageNode._replay

    def append(self: StorageNode, epoch: int, vdl: int, extent: Any, sink: Any) -> None:
        def durable(place: Any) -> None:
            scl = self._landed(epoch, extent, place)
            if scl is None:
                sink.refused(self.node, self.replica.promised)
            else:
                sink.acked(self.node, extent.group, scl)

        self._journal.append(Frame(LOG, epoch, 0, *extent), durable)

    def replay(self: StorageNode, frame: Any, place: int) -> None:
        if frame.kind == METADATA:
            original(self, frame, place)
        else:
            self.replica.segment(frame.group).insert(frame.prev, frame.start, frame.start + len(frame.data), place)

    with patch.object(StorageNode, "append", append), patch.object(StorageNode, "_replay", replay):
        yield


def forget_the_charter_on_restart() -> Any:
    original = StorageNode._replay
    seen: set[tuple[int, int]] = set()

    def replay(self: StorageNode, frame: Any, place: int) -> None:
        if frame.kind == METADATA and (id(self), frame.epoch) in seen:
            return
        seen.add((id(self), frame.epoch))
        original(self, frame, place)

    return patch.object(StorageNode, "_replay", replay)


def survey_two_nodes() -> Any:
    original = recovery.survey

    def survey(states: Any) -> Any:
        found = original(states)
        few = sorted(states, key=lambda state: state.scl(0))[:2]
        donors = {group: max(few, key=lambda state: state.rank(group)) for group in found.donors}
        return replace(found, donors=donors, floor=min(state.vdl for state in few) or found.floor, newest=few[-1])

    return patch.object(opening, "survey", survey)


def settle_before_hydration() -> Any:
    async def is_hydrated(_driver: Any, _new: int, _timeout: float) -> bool:
        return True

    return patch.object(replacement, "_is_hydrated", is_hydrated)


def repair_without_checking_damage() -> Any:
    original = segment.Segment.lose

    def lose(self: Any, start: int) -> None:
        holder = self.at(start)
        original(self, start)
        if holder is not None:
            self.insert(holder.prev, holder.start, holder.end, holder.place)

    return patch.object(segment.Segment, "lose", lose)


MUTANTS = (
    Mutant("a node acknowledges before its disk has it", 6, acknowledge_before_durable),
    Mutant("a node acknowledges what was under way when it promised another epoch", 3, acknowledge_across_a_promise),
    Mutant("a node accepts older epochs", 3, accept_older_epochs),
    Mutant("a promise is kept in memory only", 3, promise_in_memory_only),
    Mutant("the longest copy is the donor, whatever its epoch", 4, longest_copy_wins),
    Mutant("an epoch counts for a copy that does not reach its start", 4, announced_epoch_wins),
    Mutant("three of six are taken for a write quorum by recovery", 4, three_are_a_write_quorum),
    Mutant("three of six make a commit durable", 2, durable_at_three),
    Mutant("nothing is cut off when a new epoch is adopted", 2, no_truncation),
    Mutant("a volume opens before it is repaired", 4, no_repair_before_opening),
    Mutant("readers are shown the VCL", 1, report_the_vcl),
    Mutant("an epoch begins in the middle of a record", 4, open_at_the_vcl),
    Mutant("a hole is counted as complete", 6, count_holes),
    Mutant("nodes of different histories exchange log", 6, gossip_across_histories),
    Mutant("the tail above the durable log is never sent again", 6, never_resend_the_tail),
    Mutant("refused log is written all the same, and counted after a restart", 3, write_before_refusing),
    Mutant("a restart forgets the charter", 4, forget_the_charter_on_restart),
    Mutant("a newcomer replaces a member before it is hydrated", 5, settle_before_hydration),
    Mutant("a damaged piece still counts as held", 8, repair_without_checking_damage),
    Mutant("recovery looks at two nodes", 4, survey_two_nodes),
)
