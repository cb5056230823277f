"""The storage driver: one epoch of the volume, from the writer's log to six nodes and back to its commits.

It ships every extent to all members, counts their acknowledgements (``core.tracker``), and reports to its listeners how
far the log is durable. Members that fall behind or come back are brought into the epoch again: promise, charter, what
is missing from their peers, and the tail that perhaps no node has yet from its own memory. (Gossip only up to the VCL
would never heal a volume that lost its write quorum: the tail above it is what the quorum waits for.)

What arrives while an extent waits for its quorum is *gathered* and goes with the next one: the nodes would have to
queue it behind their syncs anyway, and one extent for six nodes costs as much for ten commits as for one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.core.errors import Fenced, NodeUnavailable, QuorumUnavailable, Refused, StorageError
from aurora_router_cluster.storage.core.extents import join_extents
from aurora_router_cluster.storage.core.gossip import plan_kept
from aurora_router_cluster.storage.core.tracker import LAL, Tracker
from aurora_router_cluster.storage.healing import catch_up, catch_up_kept
from aurora_router_cluster.storage.log_buffer import RING_BYTES, LogBuffer
from aurora_router_cluster.storage.quorum_call import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aurora_router_cluster.storage.core.extents import Extent, Framing
    from aurora_router_cluster.storage.core.quorum import Membership
    from aurora_router_cluster.storage.core.replica import Charter, NodeState
    from aurora_router_cluster.storage.protocols import NodeHandle
    from aurora_router_cluster.storage.recovery import RecoveredVolume

log = logging.getLogger(__name__)

GATHER_BYTES = 64 << 10
"""Of log, at most, wait for the extents under way."""
UPKEEP_SECONDS = 0.05
UPKEEP_SHARE = 0.05
"""Of the time, at most, is spent on looking: with tens of thousands of protection groups one look takes a while."""


class Stall:
    """For how long nothing has met its quorum though something waits for it, as far as it was looked at."""

    def __init__(self) -> None:
        self._vcl = -1
        self._since: float | None = None

    def note(self, vcl: int, *, outstanding: bool) -> None:
        """How far the log is complete now, and whether something waits."""
        if vcl != self._vcl or not outstanding:
            self._vcl, self._since = vcl, None
        if outstanding and self._since is None:
            self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first look that found it so; 0: nothing waits, or it goes on."""
        return 0.0 if self._since is None else time.monotonic() - self._since


class Driver:
    """One epoch of the volume.

    Args:
        handles: every node that may be a member, now or later.
        opened: the epoch, as recovery opened it.
        framing: knows where records end and to which groups they go.
        limit: LSN allocation limit, in bytes.
        ring_bytes: how much of the log's end is kept in memory.

    Attributes:
        epoch: its number.
        charter: what the nodes hold of it: history, membership, timelines.
        tracker: the positions; VDL = `durable`.
        on_durable: called when the VDL advanced.
        on_fenced: called once, when a later epoch has taken over.
        on_full: called with True when the writer must be held back, with False when it may go on.
    """

    def __init__(
        self,
        handles: Mapping[int, NodeHandle],
        opened: RecoveredVolume,
        framing: Framing,
        *,
        limit: int = LAL,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        self.epoch = opened.epoch
        self.charter = self._proposed = opened.charter
        self.tracker = Tracker(opened.charter.membership, opened.point, limit)
        self.on_durable: list[Callable[[], None]] = []
        self.on_fenced: list[Callable[[], None]] = []
        self.on_full: list[Callable[[bool], None]] = []
        self._handles = handles
        self._cutter = framing.cutter(opened.charter)
        self._ring = LogBuffer(opened.point, ring_bytes)
        self._gathered: list[Extent] = []
        self._fenced = self._full = self._closed = False
        self._stall = Stall()
        self._amending = asyncio.Lock()
        self._healing: dict[int, asyncio.Task[None]] = {}
        self._upkeep: asyncio.Task[None] | None = None
        self._members = [handles[member] for member in self.charter.membership.members if member in handles]
        for state in opened.states:
            self._count(state)

    @property
    def durable(self) -> int:
        """The VDL, in bytes."""
        return self.tracker.vdl

    @property
    def fenced(self) -> bool:
        """Whether a later epoch has taken over."""
        return self._fenced

    @property
    def stalled_for(self) -> float:
        """Seconds since when nothing that was handed to the nodes has met its quorum; 0: nothing waits."""
        return self._stall.seconds

    @property
    def disputed(self) -> bool:
        """Whether members obey an epoch that is to follow this one, and has perhaps never been opened."""
        return any(member in self.tracker.refusals for member in self.charter.membership.members)

    @property
    def over(self) -> bool:
        """Whether this driver does nothing any more: it is closed, or a later epoch has taken over."""
        return self._fenced or self._closed

    def start(self) -> None:
        """Begin to look after the members; needs a running event loop."""
        self._upkeep = asyncio.get_running_loop().create_task(self._look_after())

    async def close(self) -> None:
        """Stop all activity. Nothing is sent to the nodes: the next epoch fences this one."""
        self._closed = True
        tasks = [*self._healing.values(), *([self._upkeep] if self._upkeep else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The path of a commit

    def feed(self, start: int, data: bytes) -> None:
        """Take the writer's next bytes and ship them.

        Raises:
            StorageError: they do not continue what was received.
        """
        tracker = self.tracker
        if start != tracker.received:
            raise StorageError(
                f"the writer's log goes on at {format_lsn(start)}, not at {format_lsn(tracker.received)}: "
                "it is not this volume's"
            )
        self._gathered += self._cutter.cut(start, data)
        tracker.record_received(start + len(data), self._cutter.boundary)
        if not tracker.outstanding or tracker.received - tracker.handed >= GATHER_BYTES:
            self._ship()
        if tracker.full and not self._full:
            self._hold(full=True)

    def _ship(self) -> None:
        """Hand what was gathered to the nodes."""
        tracker, epoch, vdl = self.tracker, self.epoch, self.tracker.vdl
        gathered, self._gathered = self._gathered, []
        for extent in join_extents(gathered):
            tracker.record_sent(extent.group, extent.end)
            self._ring.add(extent, vdl)
            for handle in self._members:
                handle.append(epoch, vdl, extent, self)

    def on_ack(self, node: int, group: int, scl: int) -> None:
        """A node has everything of `group` up to `scl`."""
        if self.tracker.record_ack(node, group, scl):
            self._on_advance()
        if self._gathered and not self.tracker.outstanding:
            self._ship()

    def _on_advance(self) -> None:
        for listener in self.on_durable:
            listener()
        if self._full and not self.tracker.full:
            self._hold(full=False)

    def _hold(self, *, full: bool) -> None:
        self._full = full
        for listener in self.on_full:
            listener(full)

    def on_refusal(self, node: int, promised: int) -> None:
        """A node obeys another epoch. A lower one only means that it was away; a higher one may fence this driver."""
        if promised > self.epoch and self.tracker.record_refusal(node, promised) and not self._fenced:
            self._fenced = True
            for listener in self.on_fenced:
                listener()

    def read_memory(self, lsn: int, n: int) -> bytes | None:
        """At most `n` bytes of log from `lsn` on, if it is in memory; never above the VDL."""
        return self._ring.read(lsn, min(n, self.tracker.vdl - lsn)) if lsn < self.tracker.vdl else None

    async def read(self, lsn: int, n: int) -> bytes:
        """At most `n` bytes of durable log from `lsn` on.

        This is no quorum read: the driver knows from the acknowledgements which node holds what.

        Raises:
            QuorumUnavailable: no node that can be reached holds it.
        """
        n = min(n, self.tracker.vdl - lsn)
        if n <= 0:
            return b""
        memory = self.read_memory(lsn, n)
        if memory:
            return memory
        for handle in self._members:
            try:
                data = await handle.read(self.epoch, lsn, n)
            except (Refused, NodeUnavailable):
                continue
            if data:
                return data
        raise QuorumUnavailable(f"no node of epoch {self.epoch} that can be reached holds the log at {format_lsn(lsn)}")

    # Looking after the members

    def node_up(self, node: int) -> None:
        """A node can be reached again."""
        if node in self.charter.membership.members:
            self._heal(node)

    async def _look_after(self) -> None:
        """Heal members that are behind and did not move since the last look."""
        last: dict[int, list[tuple[int, int]]] = {}
        time, cost = asyncio.get_running_loop().time, 0.0
        while not self._fenced:
            await asyncio.sleep(max(UPKEEP_SECONDS, cost / UPKEEP_SHARE))
            began = time()
            try:
                if not self._amending.locked():
                    await self._carry_through()
                began = time()
                self._heal_those_that_stand_still(last)
            except Exception:  # of one look: without the next ones nothing would be healed any more
                log.exception("looking after the nodes of epoch %d failed", self.epoch)
            cost = time() - began

    def _heal_those_that_stand_still(self, last: dict[int, list[tuple[int, int]]]) -> None:
        """Heal each member that misses the same as `last` time; that is brought up to date."""
        tracker = self.tracker
        self._stall.note(tracker.vcl, outstanding=tracker.outstanding)
        for member in self.charter.membership.members:
            missing = [(group, tracker.scl(member, group)) for group in tracker.behind(member)]
            if missing and missing == last.get(member):
                self._heal(member)
            last[member] = missing

    def _heal(self, node: int) -> None:
        running = self._healing.get(node)
        if self.over or node not in self._handles or (running is not None and not running.done()):
            return
        self._healing[node] = asyncio.get_running_loop().create_task(self._bring_in_step(self._handles[node]))

    async def _bring_in_step(self, handle: NodeHandle) -> None:
        try:
            state = await self._enrol(handle)
            if state is None:
                return
            self.tracker.forget(handle.node)
            self._count(state)
            if self.tracker.behind(handle.node):
                peers = await ask(self._others(handle), lambda peer: peer.state(), lambda _answers: False)
                self._count(await catch_up(handle, state, self._handles, peers.values()))
            self._resend(handle)
            if self.charter.kept:
                await self._give_kept(handle)
        except Refused as refusal:
            self.on_refusal(handle.node, refusal.promised)
        except NodeUnavailable:
            return

    async def _give_kept(self, handle: NodeHandle) -> None:
        """Let a node have what it lacks of the branches that are kept."""
        peers = await ask(self._others(handle), lambda peer: peer.state(), lambda _answers: False)
        await catch_up_kept(handle, await handle.state(), self._handles, peers.values())

    async def progress_of_kept(self, node: int) -> tuple[bool, int]:
        """Whether a node has as much of the branches that are kept as its peers, and a figure that grows until then."""
        if not self.charter.kept:
            return True, 0
        states = await ask(self._members, lambda handle: handle.state(), lambda _answers: False)
        mine = states.get(node)
        if mine is None or not mine.current:
            return False, 0
        return not plan_kept(mine, states.values()), sum(sum(copy.values()) for copy in mine.kept.values())

    def _others(self, handle: NodeHandle) -> list[NodeHandle]:
        return [member for member in self._members if member is not handle]

    async def _enrol(self, handle: NodeHandle) -> NodeState | None:
        """Make a node hold this epoch; None if it holds a later one."""
        state = await handle.state()
        if state.promised > self.epoch:
            self.on_refusal(handle.node, state.promised)
            return None
        if state.promised < self.epoch:
            state = await handle.promise(self.epoch)
        if state.charter != self._proposed.following(state.charter):
            state = await handle.adopt(self.epoch, self._proposed)
        return state

    def _count(self, state: NodeState) -> None:
        for group in {*state.scls, *self.tracker.complete()}:  # of a group that it never saw it has what begins the log
            self.on_ack(state.node, group, state.scl(group))

    def _resend(self, handle: NodeHandle) -> None:
        for group in self.tracker.behind(handle.node):
            for extent in self._ring.after(group, self.tracker.scl(handle.node, group)):
                handle.append(self.epoch, self.tracker.vdl, extent, self)

    # Metadata of the epoch

    async def amend(self, change: Callable[[Charter], Charter] | None = None, /, **fields: Any) -> None:
        """Install a later revision of this epoch's charter at a write quorum of the membership before and after.

        Args:
            change: makes the next revision of the charter that was proposed last, which may not have reached a quorum:
                some nodes may hold it, and a node never goes back. It is called when no other amendment is under way.
            **fields: what the next revision has whatever the charter before it said.

        Raises:
            Fenced: a later epoch has taken over.
            QuorumUnavailable: too few nodes took it so far. It stays proposed, and may come into force later.
        """
        async with self._amending:  # one at a time: nodes refuse a revision older than the one they hold
            await self._amend(lambda charter: replace(change(charter) if change else charter, **fields))

    async def _amend(self, change: Callable[[Charter], Charter]) -> None:
        revision = max(self.charter.revision, self._proposed.revision) + 1
        self._proposed = charter = replace(change(self._proposed), revision=revision)
        before, after = self.charter.membership, charter.membership
        members = dict.fromkeys((*before.members, *after.members))
        handles = [self._handles[member] for member in members if member in self._handles]
        states = await ask(
            handles,
            lambda handle: handle.adopt(self.epoch, charter),
            lambda answers: before.writes(answers) and after.writes(answers),
        )
        if states.highest_refusal > self.epoch:
            raise Fenced(f"epoch {self.epoch} is over: {states.explain()}")
        if not before.writes(states) or not after.writes(states):
            raise QuorumUnavailable(f"the charter was not taken by a write quorum (4 of 6): {states.explain()}")
        self._install(charter)

    def _install(self, charter: Charter) -> None:
        if charter.revision <= self.charter.revision:
            return  # a later amendment was faster
        after = charter.membership
        self.charter = charter
        self._members = [self._handles[member] for member in after.members if member in self._handles]
        if self.tracker.change(after):
            self._on_advance()
        if self._gathered and not self.tracker.outstanding:
            self._ship()

    async def _carry_through(self) -> None:
        """Go on with what was begun, and did not reach a quorum: some nodes may have it, and those never go back.

        So with an amendment, and with a collection, also one of an earlier epoch: copies that begin at different
        positions cannot always fill each other's holes.
        """
        try:
            if self.unsettled:
                await self.amend()
            elif self.charter.collected < self.charter.floor:
                await self._remove_below(self.charter.floor)
        except StorageError:
            return  # the next look tries again

    async def collect(self, floor: int) -> None:
        """Let the nodes forget the log below `floor`, which must be at or below the VDL; see `core.gc`.

        First a write quorum learns that it will never be read again, then it is removed.

        Raises:
            ValueError: `floor` is above the VDL.
            Fenced, QuorumUnavailable: as `amend`.
        """
        if floor > self.durable:
            raise ValueError(f"{format_lsn(floor)} is not durable yet: the VDL is {format_lsn(self.durable)}")
        if floor > self.charter.collected:
            placements = self._cutter.placements()
            await self.amend(lambda charter: replace(charter, floor=max(floor, charter.floor), placements=placements))
            await self._remove_below(floor)

    async def _remove_below(self, floor: int) -> None:
        """Let the nodes remove the log below a floor that a write quorum holds."""
        await self.amend(lambda charter: replace(charter, collected=max(floor, charter.collected)))

    @property
    def unsettled(self) -> bool:
        """Whether a revision of the charter was proposed that a write quorum has not taken yet."""
        return self._proposed is not self.charter

    async def change_membership(self, step: Callable[[Membership], Membership]) -> None:
        """Go to the next state of a replacement; see `core.quorum`.

        Args:
            step: makes the next membership of the one in force. It is called when no other amendment is under way, and
                what was proposed before has been carried through: so that no step is lost, and none is left out.

        Raises:
            ValueError: by `step`.
            Fenced, QuorumUnavailable: as `amend`.
        """
        async with self._amending:
            if self.unsettled:
                await self._amend(_keep_charter)
            await self._amend(lambda charter: replace(charter, membership=step(charter.membership)))


def _keep_charter(charter: Charter) -> Charter:
    return charter
