"""Planted bugs: each breaks one rule of the storage in a way that could be written by mistake.

A simulation that does not find them proves nothing when it finds no others.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from aurora_router_cluster.storage import branching, driver, quorum_call
from aurora_router_cluster.storage import recovery as volume_recovery
from aurora_router_cluster.storage.core import errors, gossip, quorum, recovery, replica, segment, tracker
from aurora_router_cluster.storage.membership import change as change_module
from aurora_router_cluster.storage.membership import replace as replace_module
from aurora_router_cluster.storage.node import StorageNode
from aurora_router_cluster.storage.protocols import LOG, METADATA, Frame

from .branches import play as play_branches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@dataclass(frozen=True)
class Mutant:
    """A bug: its name, the invariant that it breaks, how it gets in, and in which schedules it shows, if not in all."""

    name: str
    invariant: int
    plant: Callable[[], AbstractContextManager[Any]]
    play: Callable[[int], object] | None = None


def acknowledge_before_durable() -> Any:
    original = StorageNode.append

    def append(self: StorageNode, epoch: int, vdl: int, extent: Any, sink: Any) -> None:
        original(self, epoch, vdl, extent, sink)
        known = self.replica.segments.get(extent.group)
        if self.replica.admits(epoch) and known is not None and known.scl >= extent.prev:
            sink.on_ack(self.node, extent.group, extent.end)

    return patch.object(StorageNode, "append", append)


@contextmanager
def acknowledge_across_a_promise() -> Iterator[None]:
    original = StorageNode._install

    def apply_durable(self: Any, epoch: int, group: int, prev: int, start: int, end: int, place: int) -> int:
        return self.segment(group).insert(prev, start, end, place)

    async def install(self: StorageNode, metadata: Any) -> Any:
        early = None if self.replica.metadata is None else self.replica.state()
        late = await original(self, metadata)
        return late if early is None or early.charter != late.charter else replace(late, scls=early.scls)

    with patch.object(replica.Replica, "apply_durable", apply_durable), patch.object(StorageNode, "_install", install):
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


def tell_a_state_that_is_not_durable() -> Any:
    async def state(self: StorageNode) -> Any:
        self._check_disk()
        return self.replica.state()

    return patch.object(StorageNode, "state", state)


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

    with patch.object(volume_recovery, "repair", repair):
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

    return patch.object(volume_recovery, "_last_boundary", last_boundary)


def count_holes() -> Any:
    def insert(self: Any, _prev: int, start: int, end: int, place: int) -> int:
        self._chain(start, end, place)
        return self.scl

    return patch.object(segment.Segment, "insert", insert)


@contextmanager
def gossip_across_histories() -> Iterator[None]:
    original = StorageNode.pull

    def pull(self: StorageNode, _epoch: int, group: int, after: int, limit: int, branch: int = 0) -> Any:
        return original(self, 0, group, after, limit, branch)

    with patch.object(gossip, "may_exchange", lambda _one, _other: True), patch.object(StorageNode, "pull", pull):
        yield


def never_resend_the_tail() -> Any:
    return patch.object(driver.Driver, "_resend", lambda self, handle: None)


@contextmanager
def write_before_refusing() -> Iterator[None]:
    original = StorageNode._replay

    def append(self: StorageNode, epoch: int, vdl: int, extent: Any, sink: Any) -> None:
        def durable(place: Any) -> None:
            scl = self._on_durable(epoch, extent, place)
            if scl is None:
                sink.on_refusal(self.node, self.replica.promised)
            else:
                sink.on_ack(self.node, extent.group, scl)

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

    return patch.object(volume_recovery, "survey", survey)


def settle_before_hydration() -> Any:
    async def is_hydrated(_driver: Any, _new: int, _timeout: float) -> bool:
        return True

    return patch.object(replace_module, "_is_hydrated", is_hydrated)


def repair_without_checking_damage() -> Any:
    original = segment.Segment.lose

    def lose(self: Any, start: int, end: int) -> None:
        holder = self.at(start)
        original(self, start, end)
        if holder is not None:
            self.insert(holder.prev, holder.start, holder.end, holder.place)

    return patch.object(segment.Segment, "lose", lose)


def trust_what_a_donor_promised() -> Any:
    async def spans(handles: Any, found: Any, group: int) -> Any:
        donor = found.donors[group]
        return volume_recovery._alive(await handles[donor.node].spans(group, found.floor), found.limit(donor))

    return patch.object(volume_recovery, "_spans", spans)


def refuse_reads_of_an_epoch_that_is_over() -> Any:
    def end_of(self: StorageNode, epoch: int) -> int:
        self._check_current(epoch)
        return 1 << 63

    return patch.object(StorageNode, "_end_of", end_of)


@contextmanager
def promise_without_a_quorum() -> Iterator[None]:
    async def reach(handles: Any) -> Any:
        return await quorum_call.ask(handles.values(), lambda handle: handle.state(), volume_recovery._is_write_quorum)

    with patch.object(volume_recovery, "reach_write_quorum", reach):
        yield


@contextmanager
def change_the_members_that_were_seen_before() -> Iterator[None]:
    async def change(self: Any, step: Any) -> None:
        membership = step(self.charter.membership)
        await self.amend(lambda charter: replace(charter, membership=membership))

    @contextmanager
    def alone(_self: Any, _what: str) -> Iterator[None]:
        yield

    with (
        patch.object(driver.Driver, "change_membership", change),
        patch.object(change_module.MembershipChange, "alone", alone),
    ):
        yield


def dismiss_the_old_node_early() -> Any:
    original = change_module.MembershipChange._replace

    async def renew(self: Any, old: int) -> int:
        try:
            return await original(self, old)
        finally:
            if old in self._node_set:
                await self._node_set.forget(old)

    return patch.object(change_module.MembershipChange, "_replace", renew)


def count_a_failed_write() -> Any:
    original = StorageNode._on_durable

    def apply_durable(self: StorageNode, epoch: int, extent: Any, place: Any) -> Any:
        return original(self, epoch, extent, 0 if isinstance(place, OSError) else place)

    return patch.object(StorageNode, "_on_durable", apply_durable)


def answer_after_a_failed_write() -> Any:
    return patch.object(StorageNode, "_check_disk", lambda self: None)


def take_a_late_promise() -> Any:
    def promise(self: Any, epoch: int) -> Any:
        return replace(self._require_metadata(), promised=epoch)

    return patch.object(replica.Replica, "promise", promise)


def take_a_late_charter() -> Any:
    def adopt(self: Any, epoch: int, charter: Any) -> Any:
        return replace(self._require_metadata(), promised=max(epoch, self.promised), charter=charter)

    return patch.object(replica.Replica, "adopt", adopt)


def fill_across_a_promise() -> Any:
    async def fill(self: StorageNode, epoch: int, extents: Any, branch: int = 0) -> Any:
        for extent in extents:
            self._journal.append(Frame(LOG, self.replica.promised, 0, *extent), lambda _: None)
            self.replica.segment(extent.group).insert(extent.prev, extent.start, extent.end, 0)
        return self.replica.state()

    return patch.object(StorageNode, "fill", fill)


def read_what_is_not_durable() -> Any:
    async def read(self: Any, lsn: int, n: int) -> bytes:
        for handle in self._members:
            try:
                data: bytes = await handle.read(0, lsn, n)
            except errors.StorageError:
                continue
            if data:
                return data
        raise errors.QuorumUnavailable("no node has it")

    return patch.object(driver.Driver, "read", read)


def resume_too_far() -> Any:
    original = replica.Replica._resume

    def resume(self: Any, charter: Any) -> None:
        original(self, replace(charter, line=charter.line._replace(start=charter.history.start)))

    return patch.object(replica.Replica, "_resume", resume)


def keep_nothing() -> Any:
    return patch.object(replica.Replica, "_keep", lambda _self, _old, _charter: None)


def close_one_chain() -> Any:
    original = branching._tails

    async def tails(handles: Any, _groups: Any, floor: int, point: int, branch: int) -> Any:
        return await original(handles, [0], floor, point, branch)

    return patch.object(branching, "_tails", tails)


@contextmanager
def newcomers_without_branches() -> Iterator[None]:
    async def progress_of_kept(_self: Any, _node: int) -> tuple[bool, int]:
        return True, 0

    async def give_kept(_self: Any, _handle: Any) -> None:
        """Nothing is given."""

    with (
        patch.object(driver.Driver, "progress_of_kept", progress_of_kept),
        patch.object(driver.Driver, "_give_kept", give_kept),
    ):
        yield


MUTANTS = (
    Mutant("a node acknowledges before its disk has it", 6, acknowledge_before_durable),
    Mutant("a node acknowledges what was under way when it promised another epoch", 3, acknowledge_across_a_promise),
    Mutant("a node accepts older epochs", 3, accept_older_epochs),
    Mutant("a promise is kept in memory only", 3, promise_in_memory_only),
    Mutant("a node reports what it holds before its disk has it", 3, tell_a_state_that_is_not_durable),
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
    Mutant("a donor is trusted to have what it promised", 2, trust_what_a_donor_promised),
    Mutant("nodes refuse the reads of a driver whose epoch is over", 2, refuse_reads_of_an_epoch_that_is_over),
    Mutant("an epoch is promised though no write quorum answers", 2, promise_without_a_quorum),
    Mutant(
        "a change of the members starts from those that were seen before", 5, change_the_members_that_were_seen_before
    ),
    Mutant("a node is erased before its replacement is in force", 5, dismiss_the_old_node_early),
    Mutant("a write that failed counts as durable", 6, count_a_failed_write),
    Mutant("a node whose disk failed goes on answering", 3, answer_after_a_failed_write),
    Mutant("a late promise brings an older epoch back", 3, take_a_late_promise),
    Mutant("a late charter is taken, whatever is promised", 3, take_a_late_charter),
    Mutant("a node is filled whatever it has promised", 6, fill_across_a_promise),
    Mutant("readers are shown what is not durable", 1, read_what_is_not_durable),
    Mutant("a node takes a kept branch up beyond where it was left", 2, resume_too_far, play_branches),
    Mutant("a node forgets the branch that is left", 2, keep_nothing, play_branches),
    Mutant("a branch closes the chain of one group only", 4, close_one_chain, play_branches),
    Mutant("a newcomer lacks the branches that are kept", 2, newcomers_without_branches, play_branches),
)
