"""Requests of the control plane to what runs on another host, over one TCP connection (`rpc`).

What takes no time is done when its request arrives, in that order; what takes time begins then, goes on beside the
rest, and a caller that wants something done after it waits for its answer. With every answer, whenever something
changed, and at least every `PULSE` seconds the host reports how it is.

Invariant: a report counts only if it was made after all requests sent so far had arrived, so that what the control
plane assumes of a request that it has just sent is never taken back by an older report.

A connection that ends by an act of the peer (end of stream, reset, refused) means that the process there is *gone*; one
on which nothing comes any more means that it is *silent*: its state is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from typing import TYPE_CHECKING, Final

from aurora_router_cluster import errors
from aurora_router_cluster.errors import ClusterError, EngineError
from aurora_router_cluster.rpc import framing
from aurora_router_cluster.rpc.client import Handle
from aurora_router_cluster.rpc.framing import OWN, Reply
from aurora_router_cluster.rpc.proof import Identity
from aurora_router_cluster.rpc.server import Caller, Server
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from aurora_router_cluster.rpc.framing import Facts, Message

    Operation = Callable[[Facts, bytes], "Awaitable[Facts | None] | Facts | None"]

log = logging.getLogger(__name__)

HOST = Identity("agent")
REPORT: Final = OWN
"""A kind of message."""
PULSE: Final = 0.5
"""Seconds between two reports at most."""
MOST_QUEUED: Final = 1 << 20
"""Bytes of reports that a caller may leave unread."""


class HostServer(Server):
    """The host's side.

    Args:
        secret: the cluster's.
        operations: name of a request -> what does it. What is no coroutine function is done before the next request
            is looked at.
        report: how the host is, as plain facts.
    """

    def __init__(self, secret: str, operations: Mapping[str, Operation], report: Callable[[], Facts]) -> None:
        super().__init__(HOST, secret)
        self.operations = operations
        self.report = report

    def make_caller(self) -> HostCaller:
        """See `Server`."""
        return HostCaller(self)

    def start_pulse(self) -> None:
        """Begin to report without being asked."""
        self.start_task(self._pulse())

    def push(self) -> None:
        """Report to all callers now."""
        for caller in list(self.callers):
            if isinstance(caller, HostCaller) and caller.known:
                caller.send_report()

    async def _pulse(self) -> None:
        while True:
            self.push()
            await asyncio.sleep(PULSE)


class HostCaller(Caller):
    """One connection of a control plane's."""

    def __init__(self, server: HostServer) -> None:
        super().__init__(server, "a caller")
        self._host = server
        self._arrived = 0

    def on_introduced(self) -> None:
        """Say how the host is."""
        self.send_report()

    def send_report(self) -> None:
        """Say how the host is now."""
        self.reply(REPORT, 0, {})

    def on_arrival(self, number: int) -> None:
        """Reports made from now on count this request as known."""
        self._arrived = number

    def perform(self, op: str, facts: Facts, data: bytes) -> Reply | Awaitable[Reply]:
        """See `HostServer`."""
        result = self._host.operations[op](facts, data)
        return _finish(result) if inspect.isawaitable(result) else Reply(result or {})

    def describe_failure(self, error: Exception) -> Facts:
        """For `HostLink.read_failure`."""
        if isinstance(error, ClusterError):
            return {"error": type(error).__name__, "message": str(error)}
        log.warning("a request failed", exc_info=error)
        return {"error": "EngineError", "message": f"{type(error).__name__}: {error}"}

    def reply(self, kind: int, number: int, facts: Facts, data: bytes = b"") -> None:
        """Send an answer with a report; a caller that leaves too many unread is cut off."""
        super().reply(kind, number, {**facts, "report": self._host.report(), "arrived": self._arrived}, data)
        if self.queued > MOST_QUEUED:
            self.abort()


async def _finish(work: Awaitable[Facts | None]) -> Reply:
    return Reply(await work or {})


class HostLink(Handle):
    """The control plane's side: a connection that is kept up.

    Args:
        host: the host's address.
        port: its port.
        secret: the cluster's.
        introduced: called with each new connection, before anything else is sent on it.
        reported: called with each report that counts.
        lost: called when a connection or a try to make one ended; True: the host is gone, False: it is silent.
    """

    pauses = (0.2,)
    patience = silence = 2.0
    unavailable = EngineError

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
        super().__init__(HOST, secret)
        self.host, self.port = host, port
        self._introduced, self._reported, self._lost = introduced, reported, lost

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the agent at {self.host}:{self.port}"

    def start(self) -> None:
        """Begin to keep up a connection; needs a running event loop."""
        self.connect(self.host, self.port)

    async def await_connection(self, timeout: float) -> None:
        """Return once there is a connection.

        Raises:
            EngineError: there is none after `timeout` seconds.
        """
        try:
            await wait_at_most(timeout, self.wait_connected())
        except asyncio.TimeoutError:
            raise EngineError(
                f"no agent of this cluster answers at {self.host}:{self.port} within {timeout:g} s; "
                "is it running, and does it know the same secret?"
            ) from None

    async def close(self, timeout: float = 1.0) -> None:
        """End the connection, once what was sent is answered, or `timeout` seconds have passed."""
        if self.connection is not None:
            await self.connection.wait_answered(timeout)
        await self.disconnect()

    def on_connected(self) -> None:
        """Let the owner send what the host has to know."""
        self._introduced()

    def on_disconnected(self, why: Exception) -> None:
        """The host is gone, or silent."""
        self._lost(isinstance(why, ConnectionRefusedError | ConnectionResetError))

    def on_answer(self, facts: Facts) -> None:
        """Read the report that is in it, if that counts."""
        report, arrived = facts.pop("report"), facts.pop("arrived")
        if self.connection is not None and arrived >= self.connection.sent:
            self._reported(report)

    def on_other(self, message: Message) -> None:
        """A report without an answer."""
        self.on_answer(framing.unpack(message.body).facts)

    def read_failure(self, facts: Facts) -> Exception:
        """What went wrong there, as its own class."""
        return errors.by_name(facts["error"])(facts["message"])


@contextlib.asynccontextmanager
async def serving(server: HostServer, host: str, port: int) -> AsyncIterator[HostServer]:
    """Serve for as long as the block lasts.

    Raises:
        OSError: the address cannot be listened on.
    """
    await server.listen(host, port)
    server.start_pulse()
    try:
        yield server
    finally:
        await server.close()
        await server.cancel_tasks()
