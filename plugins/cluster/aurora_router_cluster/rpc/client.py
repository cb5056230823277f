"""A server as its caller sees it: a connection that is kept up in the background.

While there is no connection, requests fail at once: a server that hangs or has gone delays no caller twice.
"""

from __future__ import annotations

import abc
import asyncio
import hmac
import logging
from typing import TYPE_CHECKING, ClassVar

from aurora_router_cluster.rpc import framing, proof
from aurora_router_cluster.rpc.framing import MalformedStream, Reply
from aurora_router_cluster.rpc.peer import Peer
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router_cluster.rpc.framing import Facts, Message
    from aurora_router_cluster.rpc.proof import Identity

log = logging.getLogger(__name__)


class Handle(abc.ABC):
    """A server behind an address.

    Args:
        identity: which server is meant.
        secret: the cluster's.

    Attributes:
        connection: the present one; None: there is none.
        pauses: seconds between two tries to connect; the last is repeated.
        patience: seconds for connecting and authenticating.
        silence: seconds without a message after which a connection is given up; None: none.
        unavailable: class of the errors by which requests fail without an answer.
    """

    pauses: ClassVar[Sequence[float]]
    patience: ClassVar[float]
    silence: ClassVar[float | None] = None
    unavailable: ClassVar[type[Exception]]

    def __init__(self, identity: Identity, secret: str) -> None:
        self.identity = identity
        self.secret = secret
        self._host_port: tuple[str, int] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._tries = 0
        self.connection: Connection | None = None

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What messages call the server."""

    @property
    def address(self) -> str | None:
        """``host:port``; None: it has none now."""
        return None if self._host_port is None else f"{self._host_port[0]}:{self._host_port[1]}"

    @property
    def connected(self) -> bool:
        """Whether it can be spoken to, as far as known."""
        return self.connection is not None

    def connect(self, host: str, port: int) -> None:
        """Begin to keep up a connection to an address; needs a running event loop."""
        self._host_port = host, port
        self._keeping = asyncio.get_running_loop().create_task(self._keep_up(host, port))

    async def wait_connected(self) -> None:
        """Return once there is a connection."""
        await self._ready.wait()

    async def disconnect(self) -> None:
        """End the connection, and do not make another."""
        keeping, self._keeping, self._host_port = self._keeping, None, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_up(self, host: str, port: int) -> None:
        while True:
            why = await self._speak(host, port)
            log.debug("%s at %s:%d: %s", self.title, host, port, why)
            self.on_disconnected(why)
            await asyncio.sleep(self.pauses[min(self._tries, len(self.pauses) - 1)])
            self._tries += 1

    async def _speak(self, host: str, port: int) -> Exception:
        """Connect, and wait for the end of the connection; returns why it ended."""
        connection = Connection(self)
        try:
            await wait_at_most(self.patience, self._introduce(connection, host, port))
            return await connection.wait_lost(self.silence)
        except (OSError, asyncio.TimeoutError) as error:
            return error
        finally:
            self.connection = None
            self._ready.clear()
            connection.abort()

    async def _introduce(self, connection: Connection, host: str, port: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: connection, host, port)
        await connection.introduced

    def begin(self, connection: Connection) -> None:
        """Use a connection: both sides are authenticated."""
        self._tries = 0
        self.connection = connection
        self.on_connected()
        self._ready.set()

    # Requests

    def post(self, op: str, facts: Facts | None = None, data: bytes = b"") -> asyncio.Future[Reply]:
        """Send a request; the future has its answer, and need not be looked at.

        Raises (by the future):
            unavailable: there is no connection, or it ended before the answer.
            Exception: what the server says went wrong, see `read_failure`.
        """
        if self.connection is not None:
            return self.connection.request(framing.pack({"op": op, **(facts or {})}, data))
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        answer.set_exception(self.unavailable(f"{self.title} {self.why_unreachable()}"))
        answer.exception()  # it need not be looked at
        return answer

    async def ask(self, op: str, facts: Facts | None = None, data: bytes = b"", *, timeout: float) -> Reply:
        """Send a request and wait for its answer.

        Raises:
            unavailable: as `post`, or no answer within `timeout` seconds.
            Exception: as `post`.
        """
        try:
            return await wait_at_most(timeout, self.post(op, facts, data))
        except asyncio.TimeoutError:
            self.on_unanswered()
            raise self.unavailable(f"{self.title} did not answer {op!r} within {timeout:g} s") from None

    # What a kind of server decides

    @abc.abstractmethod
    def read_failure(self, facts: Facts) -> Exception:
        """The error that `server.Caller.describe_failure` has described."""

    def why_unreachable(self) -> str:
        """Why it cannot be spoken to: the end of a sentence."""
        return "cannot be reached"

    def on_connected(self) -> None:
        """There is a new connection, on which nothing was sent yet."""

    def on_disconnected(self, why: Exception) -> None:
        """A connection, or a try to make one, has ended.

        A `ConnectionResetError` or `ConnectionRefusedError` means that the other side answered; any other error means
        that it was silent.
        """

    def on_unanswered(self) -> None:
        """A request was not answered in time."""

    def on_answer(self, facts: Facts) -> None:
        """An answer has come, and its request does not know yet."""

    def on_other(self, message: Message) -> None:
        """Handle a message that is no answer."""


class Connection(Peer):
    """One connection to a server: first the proof, then requests, and what else the kind of server has.

    Attributes:
        introduced: done once both sides are authenticated.
        sent: number of the last request.
    """

    def __init__(self, handle: Handle) -> None:
        super().__init__(handle.title)
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._expected = b""  # the server's proof; empty: its nonce has not come
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._heard = 0.0
        self.introduced: asyncio.Future[None] = self._loop.create_future()
        self.sent = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is answered."""
        super().connection_lost(exc)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._handle.unavailable(f"the connection to {self._name} ended"))
        if not self.introduced.done():
            other = self._handle.identity.kind
            text = f"{self._name} ended the introduction: another secret, or another {other}?"
            self.introduced.set_exception(self._fault or ConnectionResetError(text))
        self._lost.set_result(None)

    def on_message(self, message: Message) -> None:
        """Authenticate the server, or hand an answer to its request."""
        self._heard = self._loop.time()
        if not self.introduced.done():
            self._introduce(message)
        elif message.kind in {framing.ANSWER, framing.FAILED}:
            self._on_answer(message)
        else:
            self._handle.on_other(message)

    def _introduce(self, message: Message) -> None:
        identity, secret = self._handle.identity, self._handle.secret
        if message.kind == framing.HELLO and not self._expected:
            theirs, ours = message.body, proof.nonce()
            self._expected = proof.prove(secret, proof.SERVER, identity, theirs, ours)
            self.send(framing.PROOF, 0, ours, proof.prove(secret, proof.CALLER, identity, theirs, ours))
        elif message.kind == framing.PROOF and self._expected:
            if not hmac.compare_digest(self._expected, message.body):
                raise MalformedStream(f"what answers is not {self._name} of this cluster")
            self.trust()
            self.introduced.set_result(None)
            self._handle.begin(self)
        else:
            raise MalformedStream(f"a message of kind {message.kind} is no introduction")

    def _on_answer(self, message: Message) -> None:
        facts, data = framing.unpack(message.body)
        self._handle.on_answer(facts)
        waiting = self._waiting.get(message.number)
        if waiting is None or waiting.done():
            return
        if message.kind == framing.FAILED:
            waiting.set_exception(self._handle.read_failure(facts))
        else:
            waiting.set_result(Reply(facts, data))

    async def wait_lost(self, silence: float | None) -> Exception:
        """Wait for the end of the connection, or until nothing came for `silence` seconds; returns which."""
        self._heard = self._loop.time()
        while self.ended is None:
            rest = None if silence is None else self._heard + silence - self._loop.time()
            if rest is not None and rest <= 0:
                return asyncio.TimeoutError(f"nothing came for {silence:g} s")
            await asyncio.wait({self._lost}, timeout=rest)
        return self.ended

    async def wait_answered(self, timeout: float) -> None:
        """Wait until all requests are answered, or `timeout` seconds have passed."""
        if self._waiting:
            await asyncio.wait(list(self._waiting.values()), timeout=timeout)

    def request(self, body: bytes) -> asyncio.Future[Reply]:
        """Send a request; the future has its answer, and need not be looked at."""
        number = self.sent = self.sent + 1
        answer: asyncio.Future[Reply] = self._loop.create_future()
        answer.add_done_callback(lambda _: self._forget(number))
        self._waiting[number] = answer
        self.send(framing.REQUEST, number, body)
        return answer

    def _forget(self, number: int) -> None:
        """A request is answered, or not waited for any more."""
        answer = self._waiting.pop(number, None)
        if answer is not None and not answer.cancelled():
            answer.exception()
