"""Requests of the control plane to an agent on another host, over one TCP connection.

The framing and the introduction are those of the storage nodes (`storage.rpc`): both sides prove that they know the
cluster's secret, and neither says it. Then the control plane sends numbered requests. The agent does what takes no time
when it arrives, in that order; what takes time begins after that, goes on beside the rest, and a caller that wants
something done after it waits for its answer. With every answer, whenever something changed, and at least every `PULSE`
seconds the agent reports how it is.

Invariant: a report counts only if it was made after all requests sent so far had arrived, so that what the control
plane assumes of a request that it has just sent is never taken back by an older report.

A connection that ends by the peer's word (end of stream, reset, refused) means that the agent's process is *gone*; one
on which nothing comes any more means that it is *silent*: its state is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

from aurora_router_cluster import errors
from aurora_router_cluster.errors import ClusterError, EngineError
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.rpc import frames, proof
from aurora_router_cluster.storage.rpc.frames import MalformedStream, Message
from aurora_router_cluster.waiting import wait_at_most

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    Facts = dict[str, Any]
    Operation = Callable[[Facts, bytes], "Awaitable[Facts | None] | Facts | None"]

log = logging.getLogger(__name__)

CALLER, AGENT = b"aurora-agent-caller", b"aurora-agent"
REPORT: Final = 10  # a kind of message besides those of `frames`

PULSE: Final = 0.5
"""Seconds between two reports at most."""
SILENCE: Final = 2.0
"""Seconds without a word after which a connection is given up."""
PAUSE: Final = 0.2
"""Seconds between two tries to connect."""
STRANGER_SECONDS: Final = 10.0
MOST_QUEUED: Final = 1 << 20
"""Bytes of reports that a caller may leave unread."""


async def read_message(reader: asyncio.StreamReader, limit: int) -> Message:
    """Read one message.

    Raises:
        MalformedStream: it is longer than `limit` bytes.
        asyncio.IncompleteReadError: the connection ended.
    """
    length, kind, number = frames.HEADER.unpack(await reader.readexactly(frames.HEADER.size))
    if length > limit:
        raise MalformedStream(f"a message of {length} bytes was announced, {limit} are allowed")
    return Message(kind, number, await reader.readexactly(length))


class RpcServer:
    """The agent's side.

    Args:
        secret: the cluster's.
        operations: name of a request -> what does it. What is no coroutine function is done before the next request
            is looked at.
        report: how the agent is, as plain facts.
    """

    def __init__(self, secret: str, operations: Mapping[str, Operation], report: Callable[[], Facts]) -> None:
        self._secret = secret
        self._operations = operations
        self._report = report
        self._server: asyncio.AbstractServer | None = None
        self._callers: set[_Caller] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> None:
        """Serve the callers that connect.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._server = await asyncio.start_server(self._serve, host, port)
        self._keep(self._pulse())

    def push(self) -> None:
        """Report to all callers now."""
        for caller in self._callers:
            caller.report(self._report())

    async def _pulse(self) -> None:
        while True:
            self.push()
            await asyncio.sleep(PULSE)

    async def close(self) -> None:
        """Stop serving, and what is under way."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        caller = _Caller(writer)
        try:
            await wait_at_most(STRANGER_SECONDS, self._introduce(reader, writer))
            self._callers.add(caller)
            caller.report(self._report())
            while True:
                self._take(caller, await read_message(reader, frames.LONGEST))
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass
        except StorageError as error:
            log.warning("a caller is cut off: %s", error)
        except asyncio.CancelledError:
            pass  # `close` ends us; no caller waits for the result
        finally:
            self._callers.discard(caller)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = proof.nonce()
        writer.write(frames.frame(frames.HELLO, 0, ours))
        message = await read_message(reader, frames.LONGEST_STRANGER)
        theirs, claim = message.body[: proof.NONCE], message.body[proof.NONCE :]
        if message.kind != frames.PROOF or not proof.holds(self._secret, CALLER, 0, ours, theirs, claim):
            raise MalformedStream("it does not know the cluster's secret")
        writer.write(frames.frame(frames.PROOF, 0, proof.prove(self._secret, AGENT, 0, ours, theirs)))

    def _take(self, caller: _Caller, message: Message) -> None:
        facts, data = frames.unpack(message.body)
        caller.arrived = message.number
        try:
            result = self._operations[facts.pop("op")](facts, data)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            caller.fail(message.number, error, self._report())
            return
        if inspect.isawaitable(result):
            self._keep(self._finish(caller, message.number, result))
        else:
            caller.answer(message.number, result, self._report())

    async def _finish(self, caller: _Caller, number: int, work: Awaitable[Facts | None]) -> None:
        try:
            result = await work
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            caller.fail(number, error, self._report())
        else:
            caller.answer(number, result, self._report())


class _Caller:
    """One connection of a control plane's."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.arrived = 0

    def _send(self, kind: int, number: int, facts: Facts, report: Facts) -> None:
        if self._writer.transport.is_closing():
            return
        body = frames.pack({**facts, "report": report, "arrived": self.arrived})
        self._writer.write(frames.frame(kind, number, body))
        if self._writer.transport.get_write_buffer_size() > MOST_QUEUED:
            self._writer.transport.abort()

    def report(self, report: Facts) -> None:
        self._send(REPORT, 0, {}, report)

    def answer(self, number: int, result: Facts | None, report: Facts) -> None:
        self._send(frames.ANSWER, number, {"result": result or {}}, report)

    def fail(self, number: int, error: Exception, report: Facts) -> None:
        known = isinstance(error, ClusterError)
        if not known:
            log.warning("a request failed", exc_info=error)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        name = type(error).__name__ if known else "EngineError"
        self._send(frames.FAILED, number, {"error": name, "message": text}, report)


class Link:
    """The control plane's side: a connection to an agent that is kept up.

    Args:
        host: the agent's address.
        port: its port.
        secret: the cluster's.
        introduced: called with each new connection, before anything else is sent on it.
        reported: called with each report that counts.
        lost: called when a connection or a try to make one ended; True: the agent is gone, False: it is silent.
    """

    def __init__(
        self,
        host: str,
        port: int,
        secret: str,
        *,
        introduced: Callable[[], None] = lambda: None,
        reported: Callable[[Facts], None] = lambda _facts: None,
        lost: Callable[[bool], None] = lambda _gone: None,
    ) -> None:
        self.host, self.port = host, port
        self._secret = secret
        self._introduced, self._reported, self._lost = introduced, reported, lost
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Facts]] = {}
        self._sent = 0
        self._closed = False
        self._keeping: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the agent can be spoken to, as far as known."""
        return self._writer is not None

    def start(self) -> None:
        """Begin to keep up a connection; needs a running event loop."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep_up())

    async def wait_connected(self, timeout: float) -> None:
        """Return once there is a connection.

        Raises:
            EngineError: there is none after `timeout` seconds.
        """
        try:
            await wait_at_most(timeout, self._ready.wait())
        except asyncio.TimeoutError:
            raise EngineError(
                f"no agent of this cluster answers at {self.host}:{self.port} within {timeout:g} s; "
                "is it running, and does it know the same secret?"
            ) from None

    async def close(self, timeout: float = 1.0) -> None:
        """End the connection, once what was sent is answered, or `timeout` seconds have passed."""
        if self._waiting:
            await asyncio.wait(list(self._waiting.values()), timeout=timeout)
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    def post(self, op: str, facts: Facts | None = None) -> asyncio.Future[Facts]:
        """Send a request; the future has its result, and need not be looked at.

        Raises (by the future):
            ClusterError: what the agent says went wrong, as its own class.
            EngineError: there is no connection, or it ended before the answer.
        """
        return self._send(op, facts or {}, b"")

    async def ask(self, op: str, facts: Facts | None = None, data: bytes = b"", *, timeout: float = 10.0) -> Facts:
        """Send a request and wait for its result.

        Raises:
            ClusterError: as `post`, or no answer within `timeout` seconds.
        """
        try:
            return await wait_at_most(timeout, self._send(op, facts or {}, data))
        except asyncio.TimeoutError:
            raise EngineError(
                f"the agent at {self.host}:{self.port} did not answer {op!r} within {timeout:g} s"
            ) from None

    def _send(self, op: str, facts: Facts, data: bytes) -> asyncio.Future[Facts]:
        answer: asyncio.Future[Facts] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._writer is None:
            answer.set_exception(EngineError(f"the agent at {self.host}:{self.port} cannot be reached"))
            return answer
        self._sent += 1
        self._waiting[self._sent] = answer
        self._writer.write(frames.frame(frames.REQUEST, self._sent, frames.pack({"op": op, **facts}, data)))
        return answer

    async def _keep_up(self) -> None:
        while not self._closed:
            gone = False
            try:
                await self._speak(*await wait_at_most(SILENCE, asyncio.open_connection(self.host, self.port)))
            except (ConnectionRefusedError, ConnectionResetError, asyncio.IncompleteReadError):
                gone = True
            except (OSError, asyncio.TimeoutError, StorageError) as error:
                log.debug("agent at %s:%d: %s", self.host, self.port, error)
            self._lost(gone)
            await asyncio.sleep(PAUSE)

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with an agent until the connection ends or nothing comes any more.

        A timer ends a silent connection: a deadline of its own for each message would cost a task each.
        """
        loop = asyncio.get_running_loop()
        timer, deadline = None, loop.time() + SILENCE
        try:
            timer = loop.call_at(deadline, writer.transport.abort)
            await self._introduce(reader, writer)
            self._begin(writer)
            while not self._closed:
                timer.cancel()
                deadline = loop.time() + SILENCE
                timer = loop.call_at(deadline, writer.transport.abort)
                self._take(await read_message(reader, frames.LONGEST))
        except (ConnectionError, asyncio.IncompleteReadError):
            if loop.time() >= deadline:
                raise asyncio.TimeoutError from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._end(writer)

    async def _introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = await read_message(reader, frames.LONGEST_STRANGER)
        ours = proof.nonce()
        writer.write(frames.frame(frames.PROOF, 0, ours, proof.prove(self._secret, CALLER, 0, message.body, ours)))
        answer = await read_message(reader, frames.LONGEST_STRANGER)
        if not proof.holds(self._secret, AGENT, 0, message.body, ours, answer.body):
            raise MalformedStream(f"what answers at {self.host}:{self.port} is no agent of this cluster")

    def _begin(self, writer: asyncio.StreamWriter) -> None:
        self._writer, self._sent = writer, 0
        self._introduced()
        self._ready.set()

    def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._writer = None
        self._ready.clear()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(EngineError(f"the connection to the agent at {self.host}:{self.port} ended"))

    def _take(self, message: Message) -> None:
        facts, _ = frames.unpack(message.body)
        if facts["arrived"] >= self._sent:
            self._reported(facts["report"])
        answer = self._waiting.pop(message.number, None)
        if answer is None or answer.done():
            return
        if message.kind == frames.FAILED:
            answer.set_exception(errors.by_name(facts["error"])(facts["message"]))
        else:
            answer.set_result(facts["result"])


@contextlib.asynccontextmanager
async def serving(server: RpcServer, host: str, port: int) -> AsyncIterator[RpcServer]:
    """Serve for as long as the block lasts.

    Raises:
        OSError: the address cannot be listened on.
    """
    await server.listen(host, port)
    try:
        yield server
    finally:
        await server.close()
