"""A storage node behind a TCP socket: `node.StorageNode` for callers that know the cluster's secret."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused, StorageError
from aurora_router_cluster.storage.core.extents import Extent
from aurora_router_cluster.storage.disk.errors import LogFailedError
from aurora_router_cluster.storage.rpc import codec, frames, proof

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from aurora_router_cluster.storage.core.replica import NodeState
    from aurora_router_cluster.storage.node import StorageNode

    Reply = tuple[dict[str, Any], bytes]

log = logging.getLogger(__name__)

MOST_STRANGERS = 16
"""Callers that are not yet authenticated; beyond that the oldest one is cut."""
STRANGER_SECONDS = 10.0
"""Seconds that a caller may take to authenticate."""


class NodeServer:
    """Serves one node.

    Args:
        node: the node.
        secret: the cluster's.
    """

    def __init__(self, node: StorageNode, secret: str) -> None:
        self.node = node
        self.secret = secret
        self.callers: dict[Caller, None] = {}
        self._server: asyncio.AbstractServer | None = None

    async def listen(self, where: socket.socket) -> None:
        """Serve the callers that connect to a bound socket.

        Raises:
            OSError: it cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Caller(self), sock=where)

    def exchange(self, node: StorageNode) -> None:
        """Serve another opening of the node: callers come back, and bring it into step."""
        self.node = node
        for caller in list(self.callers):
            caller.abort()

    async def close(self) -> None:
        """Stop serving; the node itself is closed by its owner."""
        if self._server is not None:
            self._server.close()
        for caller in list(self.callers):
            caller.abort()


class _Sink:
    """Sends the acknowledgements of one epoch back to the caller that sent the log."""

    __slots__ = ("_caller", "_epoch")

    def __init__(self, caller: Caller, epoch: int) -> None:
        self._caller = caller
        self._epoch = epoch

    def on_ack(self, node: int, group: int, scl: int) -> None:  # noqa: ARG002  # the caller knows whom it asked
        self._caller.send(frames.ACK, 0, frames.ACK_BODY.pack(self._epoch, group, scl))

    def on_refusal(self, node: int, promised: int) -> None:  # noqa: ARG002  # as above
        self._caller.send(frames.NACK, 0, frames.NACK_BODY.pack(self._epoch, promised))


class Caller(asyncio.Protocol):
    """One connection: first the proof, then requests and log in any order."""

    def __init__(self, server: NodeServer) -> None:
        self._server = server
        self._node = server.node
        self._stream = frames.Stream()
        self._nonce = proof.nonce()
        self.known = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sinks: dict[int, _Sink] = {}

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello with a nonce."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.callers[self] = None
        strangers = [caller for caller in self._server.callers if not caller.known]
        if len(strangers) > MOST_STRANGERS:
            strangers[0].abort()
        self._timer = asyncio.get_running_loop().call_later(STRANGER_SECONDS, self.abort)
        self.send(frames.HELLO, self._node.node, self._nonce)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the caller comes back, or not
        """Whatever is under way goes on, without an acknowledgement."""
        self._transport = None
        self._server.callers.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Do what the messages ask for."""
        self._stream.feed(data)
        try:
            while self._transport is not None and (message := self._stream.next_message()) is not None:
                self._take(message)
        except StorageError as error:
            log.warning("a caller of node %d is cut off: %s", self._node.node, error)
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, kind: int, number: int, *parts: bytes) -> None:
        """Send a message, unless the caller has gone."""
        if self._transport is not None:
            self._transport.write(frames.frame(kind, number, *parts))

    # What is asked

    def _take(self, message: frames.Message) -> None:
        if not self.known:
            self._introduce(message)
        elif message.kind == frames.LOG:
            self._append(message.body)
        elif message.kind == frames.REQUEST:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            raise frames.MalformedStream(f"a message of kind {message.kind} is not for a node")

    def _introduce(self, message: frames.Message) -> None:
        ours, claim = message.body[: proof.NONCE], message.body[proof.NONCE :]
        node, secret = self._node.node, self._server.secret
        if message.kind != frames.PROOF or not proof.holds(secret, proof.CALLER, node, self._nonce, ours, claim):
            raise frames.MalformedStream("it does not know the cluster's secret, or means another node")
        self.known = True
        self._stream.limit = frames.LONGEST
        if self._timer is not None:
            self._timer.cancel()
        self.send(frames.PROOF, node, proof.prove(secret, proof.NODE, node, self._nonce, ours))

    def _append(self, body: bytes) -> None:
        epoch, vdl, group, prev, start = frames.LOG_HEAD.unpack_from(body)
        sink = self._sinks.get(epoch)
        if sink is None:
            sink = self._sinks[epoch] = _Sink(self, epoch)
        self._node.append(epoch, vdl, Extent(group, prev, start, body[frames.LOG_HEAD.size :]), sink)

    async def _answer(self, message: frames.Message) -> None:
        try:
            facts, data = frames.unpack(message.body)
            reply = await OPERATIONS[facts["op"]](self._node, facts, data)
        except Refused as refusal:
            self.send(
                frames.REFUSED, message.number, frames.pack({"message": str(refusal), "promised": refusal.promised})
            )
        except (NodeUnavailable, LogFailedError) as error:
            self.send(frames.FAILED, message.number, frames.pack({"message": str(error)}))
        except Exception as error:
            log.exception("a request to node %d failed", self._node.node)
            text = f"node {self._node.node} failed: {type(error).__name__}: {error}"
            self.send(frames.FAILED, message.number, frames.pack({"message": text}))
        else:
            self.send(frames.ANSWER, message.number, frames.pack(*reply))


# The operations: what `protocols.NodeHandle` has, and what the owner of the node may ask for


async def _state(work: Callable[[], Awaitable[NodeState]]) -> Reply:
    return codec.state_facts(await work()), b""


async def _format(node: StorageNode, facts: dict[str, Any], _data: bytes) -> Reply:
    return await _state(partial(node.format, codec.read_charter(facts)))


async def _look(node: StorageNode, _facts: dict[str, Any], _data: bytes) -> Reply:
    return await _state(node.state)


async def _promise(node: StorageNode, facts: dict[str, Any], _data: bytes) -> Reply:
    return await _state(partial(node.promise, facts["epoch"]))


async def _adopt(node: StorageNode, facts: dict[str, Any], _data: bytes) -> Reply:
    return await _state(partial(node.adopt, facts["epoch"], codec.read_charter(facts)))


async def _pull(node: StorageNode, facts: dict[str, Any], _data: bytes) -> Reply:
    asked = (facts[name] for name in ("epoch", "group", "after", "limit", "branch"))
    return codec.extents_facts(node.pull(*asked))


async def _spans(node: StorageNode, facts: dict[str, Any], _data: bytes) -> Reply:
    return codec.spans_facts(node.spans(facts["group"], facts["after"], facts["branch"])), b""


async def _fill(node: StorageNode, facts: dict[str, Any], data: bytes) -> Reply:
    return await _state(partial(node.fill, facts["epoch"], codec.read_extents(facts, data), facts["branch"]))


async def _read(node: StorageNode, facts: dict[str, Any], _data: bytes) -> Reply:
    return {}, node.read(facts["epoch"], facts["lsn"], facts["n"], facts["branch"])


async def _find_damage(node: StorageNode, _facts: dict[str, Any], _data: bytes) -> Reply:
    return codec.damage_facts(*await node.find_damage()), b""


async def _retire_damage(node: StorageNode, _facts: dict[str, Any], _data: bytes) -> Reply:
    await node.retire_damage()
    return {}, b""


async def _rewrite_metadata(node: StorageNode, _facts: dict[str, Any], _data: bytes) -> Reply:
    await node.rewrite_metadata()
    return {}, b""


OPERATIONS: dict[str, Callable[[StorageNode, dict[str, Any], bytes], Awaitable[Reply]]] = {
    "format": _format,
    "state": _look,
    "promise": _promise,
    "adopt": _adopt,
    "pull": _pull,
    "spans": _spans,
    "fill": _fill,
    "read": _read,
    "find_damage": _find_damage,
    "retire_damage": _retire_damage,
    "rewrite_metadata": _rewrite_metadata,
}
"""Name of a request -> what does it."""
