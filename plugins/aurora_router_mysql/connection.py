"""`Connection`: PyMySQL's own class, put on the right instance when it connects.

Nothing is proxied: cursors, converters, exceptions and speed are PyMySQL's. What is overridden is `connect` (also of
``ping(reconnect=True)``), `close`, and the methods that send statements, for the note that an error gets.

A dial is made by PyMySQL itself, on a copy of the connection (`dial`); the session of the one that fits is handed over.
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalOperand=false
# pyright: reportArgumentType=false
# The stubs that pyright brings with it are of an older PyMySQL.

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pymysql
from pymysql.err import Error

from aurora_router import native, observe
from aurora_router.errors import AuroraRouterError
from aurora_router.forks import IMPORTING, UNREADABLE
from aurora_router_mysql.arguments import duplicate, part_options, read_connect_args

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from aurora_router.flow.attempt import ConnectResult
    from aurora_router.flow.runtime import Target
    from aurora_router.placement import Placement
    from aurora_router.policy.hang_detection import Limits
    from aurora_router.runtime.parsed_args import ConnectArgs
    from aurora_router.runtime.sockets import SocketId
    from aurora_router_mysql.dial import Dial

_STOCK: Any = pymysql.connections.Connection
_IN_READ_ONLY_TRANSACTION = 0x2000
"""Bit of the server's status: the transaction is read-only by the session's own choice."""


class Connection(pymysql.connections.Connection):
    """A connection of PyMySQL's on the right instance of a cluster.

    Takes what `pymysql.connections.Connection` takes, and every ``aurora_…`` option by keyword. `host` may be a
    comma-separated list of the hosts of all instances, each with its own port after a colon where they differ.

    Attributes:
        placement: where the connection is, and why; None: it was not connected yet, or was given a socket.

    Raises:
        NoInstanceAvailable: nothing that fits could be reached in time.
        NameNotResolved: the host name has no address.
        InvalidOption: an option is unknown, malformed, contradicts another, or has no effect with MySQL.
        MalformedHost: a host name that no resolver could take.
        pymysql.err.OperationalError: as PyMySQL raises it: wrong password, no such database …
    """

    placement: Placement = cast("Placement", None)  # of every one that is connected, as its type says

    waiting_since: float | None = None
    limits: Limits | None = None
    was_writer = direct = False
    cut_because: str | None = None
    """Why this library shut the socket down; None: it did not."""
    socket_id: SocketId | None = None
    process = 0
    """The process that opened the connection; 0 for one that was not routed."""
    guard: Any = nullcontext()
    """Held while the socket is closed, or used from another thread; never while anything is waited for."""
    target: Target | None = None
    """Where the connection leads."""

    def __init__(self, *, defer_connect: bool = False, **keywords: Any) -> None:
        ours, rest = part_options(keywords)
        super().__init__(**rest, defer_connect=True)
        self._args: ConnectArgs = read_connect_args(ours, rest, duplicate(self))
        if not defer_connect:
            self.connect()

    def connect(self, sock: Any = None) -> None:
        """Connect to the instance that the host name, the options and the cluster's topology call for.

        With `sock`, a socket that is connected already, PyMySQL's handshake alone is done there.
        """
        if sock is not None:
            super().connect(sock)
            return
        with IMPORTING:
            import aurora_router_mysql.connecting as late  # noqa: PLC0415 - see `Connection`

        self._leave()
        self._closed, args = False, self._args
        try:
            runtime = late.BlockingRuntime(self._dial, args.names)
            result = late.run(late.route_connection(runtime, late.REGISTRY.find, args.request, args.sources))
        except (Error, AuroraRouterError) as error:
            raise _shorten_traceback(error) from error.__cause__
        self._take_over(result)

    def _dial(self, target: Target, seconds: float) -> Dial:
        """Open a session of its own at a target; see `dial`."""
        with IMPORTING:
            import aurora_router_mysql.connecting as late  # noqa: PLC0415

        dialled = late.Dial(self, target, _OWN)
        dialled.open(seconds)
        return dialled

    def _take_over(self, result: ConnectResult[Dial]) -> None:
        """Take over the session that fits, count it for its instance, and have the monitor look after it."""
        with IMPORTING:
            import aurora_router_mysql.connecting as late  # noqa: PLC0415

        args, dialled, route = self._args, result.connection, result.route
        dialled.hand_over(self, _OWN)
        options = args.request.options
        self.target = dialled.target
        self.cut_because = self.waiting_since = self.socket_id = None
        self.was_writer = self.direct = False
        self.process = os.getpid()
        self.placement = late.Placement(
            result.instance, result.generation, result.role, result.pooled, result.cluster, result.why
        )
        self.limits = late.Limits(options.hang_grace, options.ping_timeout) if options.monitor else late.UNLIMITED
        if result.instance is None:
            return
        self.guard = native.new_rlock()
        replace(result, connection=self).track()
        if options.monitor and route is not None:
            self.was_writer = result.role is late.Role.WRITER
            self.direct = route.direct
            self.socket_id = late.identify_connected(self._sock.fileno())
            if result.cluster.is_news_for_monitor(args.request, route, args.params):
                with IMPORTING:
                    from aurora_router.runtime.monitor import MONITOR  # noqa: PLC0415
                    from aurora_router_mysql.monitoring import MySqlMonitorRuntime  # noqa: PLC0415

                MONITOR.attend(result.cluster, args, route, MySqlMonitorRuntime)

    # ------------------------------------------------------------ what the monitor asks

    @property
    def generation(self) -> int:
        """The instance's generation when the connection was made."""
        return self.placement.generation if self.placement is not None else 0

    def descriptor(self) -> int | None:
        """The file descriptor of the socket; None: it was lost or closed."""
        sock = self._sock
        return None if sock is None else int(sock.fileno())

    # ------------------------------------------------------------ its end

    def close(self) -> None:
        """Close the connection, as PyMySQL does."""
        if self.process not in {0, os.getpid()} and self._sock is not None:
            with IMPORTING:
                from aurora_router.runtime.sockets import sever  # noqa: PLC0415 - a fork is rare

            sever(self._sock.fileno())  # the session is the parent's: nothing is sent to it
            self.guard = native.new_rlock()  # the thread that held it may not exist here
        try:
            super().close()
        finally:
            self._leave()

    def _force_close(self) -> None:
        with self.guard:
            super()._force_close()

    def _leave(self) -> None:
        """Stop counting the connection for its instance."""
        placement = self.placement
        if placement is not None and placement.instance is not None:
            placement._cluster.untrack(placement.instance, self)

    # ------------------------------------------------------------ statements

    def query(self, sql: Any, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyMySQL's signature
        """Send a statement, as PyMySQL does; an error that means a lost instance says so (``error.incident``)."""
        try:
            return _STOCK.query(self, sql, unbuffered)
        except Error as error:
            self._explain(error)
            raise

    def begin(self) -> None:
        """Begin a transaction, as PyMySQL does."""
        self._run_explaining(_STOCK.begin)

    def commit(self) -> None:
        """Commit, as PyMySQL does."""
        self._run_explaining(_STOCK.commit)

    def rollback(self) -> None:
        """Roll back, as PyMySQL does."""
        self._run_explaining(_STOCK.rollback)

    def _run_explaining(self, method: Callable[[Self], None]) -> None:
        try:
            method(self)
        except Error as error:
            self._explain(error)
            raise

    def _explain(self, error: Error) -> None:
        """Attach to an error what happened to the instance, where that is why the statement failed."""
        placement = self.placement
        if placement is None or hasattr(error, "incident"):
            return
        try:
            with IMPORTING:
                from aurora_router.runtime.incident_notes import attach_incident  # noqa: PLC0415 - few statements fail
                from aurora_router_mysql import faults  # noqa: PLC0415

            number, lost = faults.number_of(error), self._sock is None and not self._closed
            refused = number in faults.READ_ONLY_ERRORS
            if number == faults.OPTION_PREVENTS_STATEMENT:
                refused = "read-only" in str(error) or "read_only" in str(error)
            if not (lost or refused):
                return
            chosen = number == faults.READ_ONLY_TRANSACTION and self.server_status & _IN_READ_ONLY_TRANSACTION
            attach_incident(
                placement._cluster,
                error,
                instance=placement.instance,
                generation=placement.generation,
                role=placement.role,
                lost=lost,
                is_evidence=number not in faults.ENDED_BY_TIMEOUT if lost else not chosen,
                cut=self.cut_because,
            )
        except UNREADABLE:
            observe.logger.debug("an error could not be explained", exc_info=True)


_OWN = frozenset(
    {
        *("_args", "placement", "guard", "limits", "waiting_since", "was_writer", "direct", "cut_because"),
        *("socket_id", "process", "target"),
    }
)
"""What is a connection's own, and no part of its session."""


def _shorten_traceback(error: Any) -> Any:
    """Remove the traceback of the inner parts from an error that leaves the library; it is logged at DEBUG."""
    try:
        with IMPORTING:
            from aurora_router.runtime.tracebacks import shorten_traceback  # noqa: PLC0415 - few connects fail
    except UNREADABLE:
        return error
    return shorten_traceback(error)


def connect(**keywords: Any) -> Connection:
    """Connect to the right instance of a cluster; short for `Connection`, as `pymysql.connect` is."""
    return Connection(**keywords)
