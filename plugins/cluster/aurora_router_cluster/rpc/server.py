"""A server for callers that know the cluster's secret."""

from __future__ import annotations

import abc
import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.rpc import framing, proof
from aurora_router_cluster.rpc.framing import MalformedStream
from aurora_router_cluster.rpc.peer import Peer

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Coroutine

    from aurora_router_cluster.rpc.framing import Facts, Message, Reply
    from aurora_router_cluster.rpc.proof import Identity

MOST_STRANGERS = 16
"""Callers that are not yet authenticated; beyond that the oldest one is cut."""
STRANGER_SECONDS = 10.0
"""Seconds that a caller may take to authenticate."""


class Server(abc.ABC):
    """Accepts connections, and makes a `Caller` for each.

    Args:
        identity: what it is.
        secret: the cluster's.

    Attributes:
        callers: the connections, the oldest first.
    """

    def __init__(self, identity: Identity, secret: str) -> None:
        self.identity = identity
        self.secret = secret
        self.callers: dict[Caller, None] = {}
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @abc.abstractmethod
    def make_caller(self) -> Caller:
        """The protocol of a new connection."""

    async def listen(self, host: str, port: int) -> None:
        """Serve the callers that connect to an address.

        Raises:
            OSError: it cannot be listened on.
        """
        self._listening = await asyncio.get_running_loop().create_server(self.make_caller, host, port)

    async def listen_on(self, where: socket.socket) -> None:
        """Serve the callers that connect to a bound socket.

        Raises:
            OSError: it cannot be listened on.
        """
        self._listening = await asyncio.get_running_loop().create_server(self.make_caller, sock=where)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._listening is not None
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    def start_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the rest; it goes on when the caller that asked for it has gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def disconnect_callers(self) -> None:
        """Cut all connections; callers come back."""
        for caller in list(self.callers):
            caller.abort()

    async def close(self) -> None:
        """Stop serving."""
        if self._listening is not None:
            self._listening.close()
        self.disconnect_callers()

    async def cancel_tasks(self) -> None:
        """End what `start_task` has started and is not done."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Caller(Peer):
    """One connection: first the proof, then requests, and what else the kind of server has, in any order."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(name)
        self._server = server
        self._nonce = proof.nonce()
        self._timer: asyncio.TimerHandle | None = None
        self.known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello with a nonce."""
        super().connection_made(transport)
        callers = self._server.callers
        callers[self] = None
        strangers = [caller for caller in callers if not caller.known]
        if len(strangers) > MOST_STRANGERS:
            strangers[0].abort()
        self._timer = asyncio.get_running_loop().call_later(STRANGER_SECONDS, self.abort)
        self.send(framing.HELLO, self._server.identity.number, self._nonce)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever is under way goes on, without an answer."""
        super().connection_lost(exc)
        self._server.callers.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def on_message(self, message: Message) -> None:
        """Authenticate the caller, or do what it asks for."""
        if not self.known:
            self._introduce(message)
        elif message.kind == framing.REQUEST:
            self._on_request(message)
        else:
            self.on_other(message)

    def _introduce(self, message: Message) -> None:
        ours, claim = message.body[: proof.NONCE], message.body[proof.NONCE :]
        identity, secret = self._server.identity, self._server.secret
        if message.kind != framing.PROOF or not proof.holds(secret, proof.CALLER, identity, self._nonce, ours, claim):
            raise MalformedStream(f"it does not know the cluster's secret, or means another {identity.kind}")
        self.known = True
        self.trust()
        if self._timer is not None:
            self._timer.cancel()
        self.send(framing.PROOF, identity.number, proof.prove(secret, proof.SERVER, identity, self._nonce, ours))
        self.on_introduced()

    def _on_request(self, message: Message) -> None:
        """Do what takes no time now, in the order of the requests; begin with what takes time."""
        facts, data = framing.unpack(message.body)
        self.on_arrival(message.number)
        try:
            work = self.perform(facts.pop("op"), facts, data)
        except Exception as error:  # noqa: BLE001  # reported to the caller
            self.reply(framing.FAILED, message.number, self.describe_failure(error))
            return
        if inspect.isawaitable(work):
            self._server.start_task(self._finish(message.number, work))
        else:
            self.reply(framing.ANSWER, message.number, *work)

    async def _finish(self, number: int, work: Awaitable[Reply]) -> None:
        try:
            answer = await work
        except Exception as error:  # noqa: BLE001  # reported to the caller
            self.reply(framing.FAILED, number, self.describe_failure(error))
        else:
            self.reply(framing.ANSWER, number, *answer)

    def reply(self, kind: int, number: int, facts: Facts, data: bytes = b"") -> None:
        """Send the answer to a request."""
        self.send(kind, number, framing.pack(facts, data))

    # What a kind of server decides

    @abc.abstractmethod
    def perform(self, op: str, facts: Facts, data: bytes) -> Reply | Awaitable[Reply]:
        """Do what a request asks for, at once or later."""

    @abc.abstractmethod
    def describe_failure(self, error: Exception) -> Facts:
        """An error as facts, for `client.Handle.read_failure`."""

    def on_introduced(self) -> None:
        """The caller is authenticated."""

    def on_arrival(self, number: int) -> None:
        """A request has arrived, and nothing is done about it yet."""

    def on_other(self, message: Message) -> None:
        """Handle a message that is no request.

        Raises:
            MalformedStream: there are none of that kind.
        """
        raise MalformedStream(f"a message of kind {message.kind} is not for a {self._server.identity.kind}")
