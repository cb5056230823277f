"""A storage node behind a TCP socket, as its driver sees it: `protocols.NodeHandle` over one connection.

The connection is kept up in the background. While there is none, requests fail at once and log is dropped: a node that
hangs or has gone delays no caller twice, and what it missed its peers give it when it is back (`up_again`). A request
that is not answered in time ends the connection, because it is no longer known what the node has read of it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused, StorageError
from aurora_router_cluster.storage.rpc import codec, frames, proof
from aurora_router_cluster.waiting import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router_cluster.storage.core.extents import Extent, Span
    from aurora_router_cluster.storage.core.replica import Charter, NodeState
    from aurora_router_cluster.storage.core.scrub import Loss
    from aurora_router_cluster.storage.protocols import AckSink

log = logging.getLogger(__name__)

DEADLINE = 5.0
"""Seconds for one request."""
SCRUB_DEADLINE = 600.0
"""Seconds for reading a whole journal again."""
INTRODUCTION = 5.0
"""Seconds for connecting and authenticating."""
PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between two tries to connect; the last is repeated."""
MOST_QUEUED = 16 << 20
"""Bytes on their way to a node that does not read; more log is dropped, and filled in by the peers later."""
EPOCHS_KEPT = 8
"""Of how many drivers acknowledgements are still passed on."""


class RemoteNode:
    """A node behind an address.

    Args:
        node: its number.
        secret: the cluster's.
        up_again: called with the number each time a connection has been made.

    Attributes:
        last: what it reported of itself last.
        scls: protection group -> SCL in bytes, by that and by what it has acknowledged since.
        failure: why it is absent though it answers, as it reported last: its disk has failed.
    """

    def __init__(self, node: int, secret: str, up_again: Callable[[int], None] = lambda _node: None) -> None:
        self._number = node
        self._secret = secret
        self._up_again = up_again
        self._address: tuple[str, int] | None = None
        self._link: _Link | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._sinks: dict[int, AckSink] = {}
        self.last: NodeState | None = None
        self.scls: dict[int, int] = {}
        self.failure: str | None = None

    @property
    def node(self) -> int:
        """Its number."""
        return self._number

    @property
    def address(self) -> str | None:
        """``host:port``; None: it has none now."""
        return None if self._address is None else f"{self._address[0]}:{self._address[1]}"

    @property
    def connected(self) -> bool:
        """Whether it can be spoken to."""
        return self._link is not None

    def connect(self, host: str, port: int) -> None:
        """Begin to keep up a connection to an address; needs a running event loop."""
        self._address = host, port
        self._keeping = asyncio.get_running_loop().create_task(self._keep_up(host, port))

    async def wait_connected(self) -> None:
        """Return once there is a connection."""
        await self._connected.wait()

    async def disconnect(self) -> None:
        """End the connection, and do not make another."""
        keeping, self._keeping, self._address = self._keeping, None, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_up(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            link = _Link(self)
            try:
                await wait_at_most(INTRODUCTION, self._introduce(link, host, port))
                tries = 0
                self._link = link
                self._connected.set()
                loop.call_soon(self._up_again, self._number)
                await link.lost
            except (OSError, StorageError, asyncio.TimeoutError) as error:
                log.debug("node %d at %s:%d: %s", self._number, host, port, error)
            finally:
                self._link = None
                self._connected.clear()
                link.abort()
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1

    async def _introduce(self, link: _Link, host: str, port: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: link, host, port)
        theirs = await link.expect(frames.HELLO)
        ours = proof.nonce()
        link.send(frames.PROOF, 0, ours, proof.prove(self._secret, proof.CALLER, self._number, theirs, ours))
        claim = await link.expect(frames.PROOF)
        if not proof.holds(self._secret, proof.NODE, self._number, theirs, ours, claim):
            raise frames.MalformedStream(f"what answers at {host}:{port} is not node {self._number} of this cluster")
        link.on_introduced()

    # Acknowledgements

    def on_ack(self, epoch: int, group: int, scl: int) -> None:
        """The node has become durable up to there."""
        sink = self._sinks.get(epoch)
        if sink is not None:
            self.scls[group] = max(scl, self.scls.get(group, 0))
            sink.on_ack(self._number, group, scl)

    def on_refusal(self, epoch: int, promised: int) -> None:
        """The node obeys another epoch."""
        sink = self._sinks.get(epoch)
        if sink is not None:
            sink.on_refusal(self._number, promised)

    def append(self, epoch: int, vdl: int, extent: Extent, sink: AckSink) -> None:
        """See `protocols.NodeHandle`."""
        link = self._link
        if link is None or link.queued > MOST_QUEUED:
            return
        if self._sinks.get(epoch) is not sink:
            self._sinks[epoch] = sink
            for old in sorted(self._sinks)[:-EPOCHS_KEPT]:
                del self._sinks[old]
        head = frames.LOG_HEAD.pack(epoch, vdl, extent.group, extent.prev, extent.start)
        link.send(frames.LOG, 0, head, extent.data)

    # Requests

    async def _ask(
        self, op: str, facts: dict[str, Any] | None = None, data: bytes = b"", deadline: float = DEADLINE
    ) -> tuple[dict[str, Any], bytes]:
        link = self._link
        if link is None:
            raise NodeUnavailable(f"node {self._number} does not answer: {self.why_not()}")
        try:
            return await link.request(frames.pack({"op": op, **(facts or {})}, data), deadline)
        except asyncio.TimeoutError:
            link.abort()
            raise NodeUnavailable(f"node {self._number} did not answer {op!r} within {deadline:g} s") from None

    def why_not(self) -> str:
        """Why it cannot be spoken to: for a message."""
        return "it is down" if self._address is None else f"there is no connection to {self.address}"

    async def _ask_state(self, op: str, facts: dict[str, Any] | None = None, data: bytes = b"") -> NodeState:
        try:
            answer, _ = await self._ask(op, facts, data)
        except NodeUnavailable as error:
            self.failure = str(error) if self.connected else None
            raise
        self.failure = None
        state = self.last = codec.read_state(answer)
        self.scls = dict(state.scls)
        return state

    async def format(self, charter: Charter) -> NodeState:
        """Make the empty node a member of a new volume."""
        return await self._ask_state("format", codec.charter_facts(charter.history.epoch, charter))

    async def state(self) -> NodeState:
        """See `protocols.NodeHandle`."""
        return await self._ask_state("state")

    async def promise(self, epoch: int) -> NodeState:
        """See `protocols.NodeHandle`."""
        return await self._ask_state("promise", {"epoch": epoch})

    async def adopt(self, epoch: int, charter: Charter) -> NodeState:
        """See `protocols.NodeHandle`."""
        return await self._ask_state("adopt", {"epoch": epoch, **codec.charter_facts(epoch, charter)})

    async def pull(self, epoch: int, group: int, after: int, limit: int, branch: int = 0) -> Sequence[Extent]:
        """See `protocols.NodeHandle`."""
        asked = {"epoch": epoch, "group": group, "after": after, "limit": limit, "branch": branch}
        return codec.read_extents(*await self._ask("pull", asked))

    async def spans(self, group: int, after: int, branch: int = 0) -> Sequence[Span]:
        """See `protocols.NodeHandle`."""
        facts, _ = await self._ask("spans", {"group": group, "after": after, "branch": branch})
        return codec.read_spans(facts)

    async def fill(self, epoch: int, extents: Sequence[Extent], branch: int = 0) -> NodeState:
        """See `protocols.NodeHandle`."""
        facts, data = codec.extents_facts(extents)
        return await self._ask_state("fill", {"epoch": epoch, "branch": branch, **facts}, data)

    async def read(self, epoch: int, lsn: int, n: int, branch: int = 0) -> bytes:
        """See `protocols.NodeHandle`."""
        _, data = await self._ask("read", {"epoch": epoch, "lsn": lsn, "n": n, "branch": branch})
        return data

    async def find_damage(self) -> tuple[int, list[Loss]]:
        """See `node.StorageNode.find_damage`."""
        facts, _ = await self._ask("find_damage", deadline=SCRUB_DEADLINE)
        return codec.read_damage(facts)

    async def retire_damage(self) -> None:
        """See `node.StorageNode.retire_damage`."""
        await self._ask("retire_damage", deadline=SCRUB_DEADLINE)

    async def rewrite_metadata(self) -> None:
        """See `node.StorageNode.rewrite_metadata`."""
        await self._ask("rewrite_metadata")


class _Link(asyncio.Protocol):
    """One connection to a node."""

    def __init__(self, owner: RemoteNode) -> None:
        self._owner = owner
        self._stream = frames.Stream()
        self._transport: asyncio.Transport | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._greetings: asyncio.Queue[frames.Message | None] = asyncio.Queue()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def queued(self) -> int:
        """Bytes that the node has not read yet, as far as this process holds them."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # every reason is the same to us
        self._transport = None
        self._greetings.put_nowait(None)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(NodeUnavailable(f"the connection to node {self._owner.node} ended"))
        self._waiting.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, kind: int, number: int, *parts: bytes) -> None:
        """Send a message; it may be lost."""
        if self._transport is not None:
            self._transport.write(frames.frame(kind, number, *parts))

    async def expect(self, kind: int) -> bytes:
        """The body of the next message of the introduction."""
        message = await self._greetings.get()
        if message is None or message.kind != kind:
            raise frames.MalformedStream(
                f"node {self._owner.node} ended the introduction: another secret, or another node?"
            )
        return message.body

    def on_introduced(self) -> None:
        """Both sides are authenticated."""
        self._stream.limit = frames.LONGEST

    async def request(self, body: bytes, deadline: float) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for its answer.

        Raises:
            Refused, NodeUnavailable: as the node says, or because the connection ended.
            asyncio.TimeoutError: no answer within `deadline` seconds.
        """
        if self._transport is None:
            raise NodeUnavailable(f"the connection to node {self._owner.node} has ended")
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.send(frames.REQUEST, number, body)
        try:
            return await wait_at_most(deadline, waiting)
        finally:
            self._waiting.pop(number, None)

    def data_received(self, data: bytes) -> None:
        self._stream.feed(data)
        try:
            while self._transport is not None and (message := self._stream.next_message()) is not None:
                self._take(message)
        except StorageError as error:
            log.warning("the connection to node %d is cut: %s", self._owner.node, error)
            self.abort()

    def _take(self, message: frames.Message) -> None:
        if message.kind == frames.ACK:
            self._owner.on_ack(*frames.ACK_BODY.unpack(message.body))
        elif message.kind == frames.NACK:
            self._owner.on_refusal(*frames.NACK_BODY.unpack(message.body))
        elif message.kind in {frames.HELLO, frames.PROOF}:
            self._greetings.put_nowait(message)
        else:
            self._on_answer(message)

    def _on_answer(self, message: frames.Message) -> None:
        waiting = self._waiting.pop(message.number, None)
        if waiting is None or waiting.done():
            return
        facts, data = frames.unpack(message.body)
        if message.kind == frames.REFUSED:
            waiting.set_exception(Refused(facts["message"], facts["promised"]))
        elif message.kind == frames.FAILED:
            waiting.set_exception(NodeUnavailable(facts["message"]))
        else:
            waiting.set_result((facts, data))
