"""A simulated network between one client (a driver or a recovery) and the nodes: delay, reordering, loss, partition."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.storage.core.errors import NodeUnavailable
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.recovery import complete
from aurora_router_cluster.storage.node import StorageNode
from aurora_router_cluster.storage.scrubbing import scrub

from .disk import Disk, SimulatedJournal

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from aurora_router_cluster.storage.core.replica import Charter, NodeState
    from aurora_router_cluster.storage.protocols import Frame

DEADLINE = 0.2


@dataclass
class Weather:
    """How one client's network is doing.

    Attributes:
        cut: nodes that are cut off.
        loss: share of messages lost.
        later_loss: the same, once it sends a charter.
        delay: longest delay of a message, in seconds.
        late: share of messages that arrive once more, or arrive after their sender gave up: up to 3 s later.
        impatient: whether the sender gives up after `DEADLINE`, while the node goes on.
        calm: no node is cut off and nothing is lost for now.
    """

    cut: set[int] = field(default_factory=set)
    loss: float = 0.0
    later_loss: float = 0.0
    delay: float = 0.002
    late: float = 0.0
    impatient: bool = False
    calm: bool = False

    def clear_up(self) -> None:
        """Nothing hinders messages any more."""
        self.cut, self.loss, self.late, self.delay, self.impatient = set(), 0.0, 0.0, 0.002, False


class Host:
    """A machine with a disk on which a node runs, or does not."""

    def __init__(self, number: int, rnd: random.Random, node_type: type[StorageNode] = StorageNode) -> None:
        self.number, self._rnd, self._node_type = number, rnd, node_type
        self.disk = Disk()
        self.node: StorageNode | None = None
        self.acked: dict[tuple[int, int], int] = {}  # (epoch, group) -> highest SCL that was reported
        self.promised = 0
        self._calls: set[asyncio.Future[Any]] = set()
        self._unattended: set[asyncio.Future[Any]] = set()
        self.dismissed = False
        self.start()

    def start(self) -> None:
        if self.dismissed:
            return
        self._journal = SimulatedJournal(self.disk, self._rnd, self._rnd.choice((0.002, 0.002, 0.03)))
        self.node = self._node_type(self.number, self._journal)
        self._check_memory(self.node)

    def _check_memory(self, node: StorageNode) -> None:
        """What was ever acknowledged or promised survives a restart."""
        replica = node.replica
        if self.wounded():
            return
        assert replica.promised >= self.promised, f"node {self.number} forgot promise {self.promised}"
        for (epoch, group), scl in self.acked.items():
            if replica.admits(epoch):
                found = replica.segment(group).scl
                assert found >= scl, f"node {self.number} acknowledged {scl} and has {found} after a restart"

    def remember(self, epoch: int, group: int, scl: int) -> None:
        """The node has reported that it holds so much of a group."""
        self.acked[epoch, group] = max(scl, self.acked.get((epoch, group), -1))

    def rot(self) -> None:
        """A byte flips on the disk."""
        self.disk.rot(self._rnd.choice)

    def wounded(self) -> bool:
        """Whether this copy lacks something, or may, because a byte flipped: it is one copy lost until it is whole.

        The damaged frame may have been given back as garbage before all that was in it could be forgotten.
        """
        if self.disk.rotten and not self.disk.damaged:
            replica, spans = (self.node or self._on_disk()).replica, self.spans()
            charter = replica.metadata.charter if replica.metadata else None
            self.disk.rotten = [frame for frame in self.disk.rotten if charter and _lacks(charter, spans, frame)]
        return bool(self.disk.damaged or self.disk.rotten)

    def is_absent(self) -> bool:
        """Whether it is down, or its disk fails; what was dismissed is not missed."""
        return not self.dismissed and (self.node is None or self.disk.failure is not None or self._journal.failed)

    def dismiss(self) -> None:
        """The node is no member any more: it ends, and its disk is erased."""
        if self.node is not None:
            self.crash()
        self.dismissed, self.disk = True, Disk()

    async def scrub(self, peers: dict[int, Link], durable: int) -> None:
        if self.node is None:
            return
        node, damaged = self.node, set(self.disk.damaged)
        call = await self.call(lambda node: scrub(node, peers[node.node], peers))
        if call is not None and self.node is node and call.exception() is None:
            report = call.result()
            still = damaged & self.disk.damaged  # log may be forgotten meanwhile, and its damage with it
            assert len(still) <= report.damaged, "a scrub misses damage"
            if not report.lost and self._healed(node, damaged, durable):
                self.disk.mend(damaged)

    def _healed(self, node: StorageNode, damaged: set[int], durable: int) -> bool:
        """Whether the node has again what is durable, or what it acknowledged itself, of the damaged frames."""
        lost = [frame for frame, place in self.disk.frames if place in damaged]
        told = max((scl for (epoch, _), scl in self.acked.items() if node.replica.admits(epoch)), default=0)
        spans, base = self.spans(), node.replica.state().base
        ends = [(max(base, one.start), min(one.start + len(one.data), max(durable, told))) for one in lost]
        return all(complete(start, [span for span in spans if span[1] > start]) >= end for start, end in ends)

    def crash(self) -> None:
        self._journal.crash()
        self.node = None
        for call in list(self._calls):
            call.cancel()

    def _on_disk(self) -> StorageNode:
        """What a restart would find."""
        return StorageNode(self.number, SimulatedJournal(self.disk, self._rnd, 0.0))

    def spans(self, epoch: int = 0, above: int = 0) -> list[tuple[int, int]]:
        """The (start, end) of what the disk holds above a position; nothing if it is not in `epoch` (0: any)."""
        replica = (self.node or self._on_disk()).replica
        if epoch and not replica.admits(epoch):
            return []
        pieces = (piece for segment in replica.segments.values() for piece in segment.after(max(above, segment.base)))
        return [(piece.start, piece.end) for piece in pieces]

    def disk_promise(self) -> int:
        """The epoch promised, on disk."""
        return self._on_disk().replica.promised

    def highest_promise(self) -> int:
        """The epoch promised, also one whose promise is not durable yet."""
        return self.node.replica.promised if self.node is not None else self.disk_promise()

    def background(self, work: Any) -> None:
        """Let something go on without waiting for it."""
        task = asyncio.ensure_future(work)
        self._unattended.add(task)
        task.add_done_callback(self._unattended.discard)

    async def call(self, request: Callable[[StorageNode], Awaitable[Any]]) -> Any:
        """Let the node do something that takes time; None if it dies before it has."""
        node = self.node
        if node is None:
            return None
        call = asyncio.ensure_future(request(node))
        call.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps no caller waits any more
        call.add_done_callback(self._calls.discard)  # not before: the caller may give up, the node goes on
        self._calls.add(call)
        await asyncio.wait({call})
        return None if call.cancelled() else call


class Link:
    """A `NodeHandle` over the simulated network."""

    def __init__(self, host: Host, weather: Weather, rnd: random.Random) -> None:
        self.host, self._weather, self._rnd = host, weather, rnd

    @property
    def node(self) -> int:
        return self.host.number

    def _is_late(self) -> bool:
        return self._weather.late > 0 and self._rnd.random() < self._weather.late

    def _much_later(self) -> float:
        return self._rnd.random() * self._rnd.choice((0.05, 0.5, 3.0))

    def _lost(self) -> bool:
        weather = self._weather
        if weather.calm:
            return False
        return self.node in weather.cut or (weather.loss > 0 and self._rnd.random() < weather.loss)

    def _delay(self) -> float:
        return self._rnd.random() * self._weather.delay

    def append(self, epoch: int, vdl: int, extent: Any, sink: Any) -> None:
        loop = asyncio.get_running_loop()
        if not self._lost():
            loop.call_later(self._delay(), self._deliver, epoch, vdl, extent, _Back(self, epoch, sink))
        if self._is_late():
            loop.call_later(self._much_later(), self._deliver, epoch, vdl, extent, _Back(self, epoch, sink))

    def _deliver(self, epoch: int, vdl: int, extent: Any, sink: Any) -> None:
        if self.host.node is not None:
            self.host.node.append(epoch, vdl, extent, sink)

    async def _look(self, request: Callable[[StorageNode], Any]) -> Any:
        """Ask for something that the node answers from what it has."""
        if self._lost():
            await self._give_up()
        await asyncio.sleep(self._delay())
        if self.host.node is None or self._lost():
            await self._give_up()
        assert self.host.node is not None
        return request(self.host.node)

    async def _ask(self, request: Callable[[StorageNode], Awaitable[Any]]) -> Any:
        if self._is_late():
            asyncio.get_running_loop().call_later(self._much_later(), self._deliver_request, request)
        if self._lost():
            await self._give_up()
        await asyncio.sleep(self._delay())
        if self._weather.impatient:
            call = await self._wait_a_while(request)
        else:
            call = await self.host.call(request)
        if call is None or self._lost():
            await self._give_up()
        await asyncio.sleep(self._delay())
        return call.result()

    async def _wait_a_while(self, request: Callable[[StorageNode], Awaitable[Any]]) -> Any:
        """Give up after the deadline, while the node goes on."""
        calling = asyncio.ensure_future(self.host.call(request))
        await asyncio.wait({calling}, timeout=self._rnd.random() * DEADLINE)
        return calling.result() if calling.done() else None

    def _deliver_request(self, request: Callable[[StorageNode], Awaitable[Any]]) -> None:
        self.host.background(self.host.call(request))

    async def _give_up(self) -> None:
        await asyncio.sleep(DEADLINE)
        raise NodeUnavailable(f"node {self.node} does not answer")

    def _told(self, state: NodeState) -> NodeState:
        """Remember what a node reported of itself: a restart may take nothing of it back."""
        self.host.promised = max(self.host.promised, state.promised)
        if state.current:
            for group, scl in state.scls.items():
                self.host.remember(state.promised, group, scl)
        return state

    async def state(self) -> Any:
        await self._look(lambda _node: None)
        call = await self.host.call(lambda node: node.state())
        if call is None:
            await self._give_up()
        return self._told(call.result())

    async def promise(self, epoch: int) -> Any:
        async def promise(node: StorageNode) -> Any:
            state = await node.promise(epoch)
            self.host.promised = max(self.host.promised, epoch)
            return state

        return await self._ask(promise)

    async def adopt(self, epoch: int, charter: Any) -> Any:
        self._weather.loss = max(self._weather.loss, self._weather.later_loss)
        return self._told(await self._ask(lambda node: node.adopt(epoch, charter)))

    async def pull(self, epoch: int, group: int, after: int, limit: int, branch: int = 0) -> Any:
        return await self._look(lambda node: node.pull(epoch, group, after, limit, branch))

    async def spans(self, group: int, after: int, branch: int = 0) -> Any:
        return await self._look(lambda node: node.spans(group, after, branch))

    async def fill(self, epoch: int, extents: Any, branch: int = 0) -> Any:
        return self._told(await self._ask(lambda node: node.fill(epoch, extents, branch)))

    async def read(self, epoch: int, lsn: int, n: int, branch: int = 0) -> Any:
        return await self._look(lambda node: node.read(epoch, lsn, n, branch))


class _Back:
    """The way back of an acknowledgement, which may be lost too."""

    def __init__(self, link: Link, epoch: int, sink: Any) -> None:
        self._link, self._epoch, self._sink = link, epoch, sink

    def on_ack(self, node: int, group: int, scl: int) -> None:
        self._link.host.remember(self._epoch, group, scl)
        self._send(self._sink.on_ack, node, group, scl)

    def on_refusal(self, node: int, promised: int) -> None:
        self._send(self._sink.on_refusal, node, promised)

    def _send(self, function: Callable[..., None], *arguments: int) -> None:
        link = self._link
        if not link._lost():
            asyncio.get_running_loop().call_later(link._delay(), function, *arguments)


def _lacks(charter: Charter, spans: list[tuple[int, int]], frame: Frame) -> bool:
    """Whether a copy lacks something of a frame that it should have by its charter."""
    limit = charter.history.alive_below(frame.epoch)
    start, end = max(charter.collected, frame.start), frame.start + len(frame.data)
    end = end if limit is None else min(end, limit)
    return complete(start, [span for span in spans if span[1] > start]) < end


def missing_copies(
    hosts: list[Host], membership: Membership, start: int, end: int, epoch: int = 0
) -> tuple[int, list[int]] | None:
    """A position in [start, end) that no write quorum of disks holds, and the nodes that hold it; None: there is none.

    A copy that was damaged does not count as a violation: a flipped byte is the loss of one copy. A newcomer that is
    not hydrated yet does not count: what met the quorum before it joined need not be on it.
    """
    members = Membership(tuple(tuple(m for m in slot if m not in membership.joining) for slot in membership.slots))
    spans = {host.number: host.spans(epoch, start) for host in hosts}
    edges = {edge for held in spans.values() for span in held for edge in span if start <= edge < end}
    for position in sorted({start, *edges} if start < end else ()):
        holders = [
            host.number
            for host in hosts
            if host.wounded() or any(begin <= position < stop for begin, stop in spans[host.number])
        ]
        if not members.writes(holders):
            return position, holders
    return None
