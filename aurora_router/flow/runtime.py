"""The interface between the procedures and the runtime that does their I/O.

A runtime is an adapter: `runtime.blocking` does each step at once and never suspends, `runtime.eventloop` awaits it,
`runtime.simulated` does it on a virtual clock with a seed. All times are in seconds on the
runtime's own monotonic clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aurora_router.errors import ErrorFamily
    from aurora_router.policy.hang_detection import Limits
    from aurora_router.policy.paths import End
    from aurora_router.policy.role_reports import Path
    from aurora_router.policy.verdict import Fault

T = TypeVar("T")
ConnT = TypeVar("ConnT")
"""A connection, of the runtime's own type: the procedures only pass it on."""

Rows = list[tuple[str | None, ...]]
"""The answer to a service query: text format, None for NULL."""

Wanted = Callable[[], bool]
"""Whether something is still worth waiting for."""

GLANCE_SECONDS = 0.1
"""How often `Wanted` is asked during a wait, in seconds: as often as psycopg's blocking dials allow."""


@frozen
class Resolution:
    """What a host name stands for.

    Attributes:
        addresses: numeric addresses, in the order in which to dial them.
        canonical: the name at the end of the chain of CNAMEs; the name itself where there is none.
    """

    addresses: tuple[str, ...]
    canonical: str


@frozen
class Target:
    """Where to dial.

    Attributes:
        name: for messages: the instance's id, or the host that was given.
        host: the name that TLS verifies (libpq's ``host``); None leaves it to libpq (a default, a service file).
        port: TCP port; None leaves it to libpq.
        addresses: what is dialled (libpq's ``hostaddr``), in order; empty: `host` is a socket or left to libpq.
        wanted: whether the dial is still worth waiting for; asked every `GLANCE_SECONDS` while it is under way. If not,
            the dial fails as if it had timed out. None: it is, for all of the time.
    """

    name: str
    host: str | None
    port: int | None
    addresses: tuple[str, ...] = ()
    wanted: Wanted | None = field(default=None, compare=False)


class DialFailed(Exception):
    """A dial, or a service query on a fresh connection, failed.

    Attributes:
        fault: what went wrong, in terms that `policy.verdict` judges.
        cause: the driver's own exception.
        done: how many statements of the message were executed before the one that was refused.
    """

    def __init__(self, fault: Fault, cause: BaseException, done: int = 0) -> None:
        super().__init__(fault.text)
        self.fault = fault
        self.cause = cause
        self.done = done


class Notifier(Protocol):
    """Notifies the procedures that wait for its changes; a `Cluster` is one.

    Attributes:
        news: how many changes there were.
    """

    news: int

    def add_waiter(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once, from any thread, at the next change, if its owner still holds it then."""
        ...

    def drop_waiter(self, waiter: Callable[[], None]) -> None:
        """Forget a waiter that no longer waits."""
        ...


@frozen
class ServiceQueries:
    """What a procedure asks a server about itself, in the SQL of one family of servers.

    Attributes:
        ping: one value, whatever it is: a sign of life.
        role: whether the server is a standby (``t`` or ``f``), the number of the session's process or thread there,
            the client's port as the server sees it (NULL: unknown).
        ends: the server's own address and port, and the client's port, as the server sees them; see `policy.paths`.
        role_and_clients: the same as `role`, and how many sessions clients have, this one included (NULL: unknown).
        unhindered: what is put in front of a query that settings of the user's session keep from an answer: a time
            limit, an isolation that a standby does not have, or a wait for others; empty: nothing helps.
    """

    ping: str
    role: str
    ends: str
    role_and_clients: str
    unhindered: str = ""


_ROLE = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_backend_pid(), pg_catalog.inet_client_port()"

POSTGRESQL = ServiceQueries(
    ping="SELECT pg_catalog.pg_is_in_recovery()",
    role=_ROLE,
    # only the counts of sessions are looked at
    role_and_clients=_ROLE + ", (SELECT pg_catalog.sum(d.numbackends) FROM pg_catalog.pg_stat_database AS d)",  # noqa: S608
    ends=(
        "SELECT pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(), "
        "pg_catalog.inet_client_port()"
    ),
    unhindered="SET TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE; SET LOCAL statement_timeout TO 0; ",
)
"""Of PostgreSQL, Aurora's and others'."""


class Runtime(Protocol[ConnT]):
    """Does the I/O of a procedure. One per kind of connection that is to be made."""

    @property
    def queries(self) -> ServiceQueries:
        """What servers are asked, in their SQL."""
        ...

    @property
    def errors(self) -> ErrorFamily:
        """The classes of what a procedure raises: those of the driver whose connections these are."""
        ...

    def now(self) -> float:
        """The runtime's monotonic clock, in seconds."""
        ...

    def random(self) -> float:
        """A random number in [0, 1)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...

    async def call(self, function: Callable[[], T], seconds: float) -> T:
        """Call a function that may block, where that delays nothing else.

        Raises:
            TimeoutError: it has not returned within `seconds`, where another thread runs it.
            Exception: what it raised.
        """
        ...

    @property
    def thread(self) -> int | None:
        """The thread in which the procedure runs; None: there are none."""
        ...

    def can_wait_for(self, thread: int | None) -> bool:
        """Whether a procedure of that thread goes on while this one waits.

        One that a signal handler interrupted does not while a connect of the handler blocks their thread.
        """
        ...

    async def resolve(self, host: str, *, fresh: bool = False) -> Resolution:
        """Resolve a host name; `fresh`: ask the name server even if the answer is cached (names that rotate).

        Raises:
            DialFailed: it has no address, or no name server answered in time.
        """
        ...

    def last_resolution(self, host: str) -> Resolution | None:
        """Return the last answer for a host name, however old; None: there is none."""
        ...

    async def dial(self, target: Target, seconds: float) -> ConnT:
        """Open a connection, within `seconds` for all addresses together.

        Raises:
            DialFailed: with the fault and the driver's error.
        """
        ...

    async def ask(self, connection: ConnT, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """Send one service query by the simple protocol; the connection is left as it was.

        If the answer is not `wanted` any more, it fails as if it had timed out. None: it is, for all of the time.

        Raises:
            DialFailed: the server refused the query, or the connection broke, or no answer came in time.
        """
        ...

    async def discard(self, connection: ConnT) -> None:
        """Close a connection that is not handed out."""
        ...

    def in_hot_standby(self, connection: ConnT) -> bool | None:
        """Return ``in_hot_standby`` as reported when the connection began (PostgreSQL 14+); None: not reported."""
        ...

    def may_wait_for_snapshot(self, connection: ConnT) -> bool:
        """Whether a setting of the session may let a query wait for others' transactions: it is read-only by default.

        Where it is serializable and deferrable by default as well, it waits until no other serializable transaction is
        open, without an error; those two the server does not report. PostgreSQL 14+.
        """
        ...

    def address(self, connection: ConnT) -> str | None:
        """The numeric address at the other end; None for a local socket."""
        ...

    def path(self, connection: ConnT) -> Path:
        """The numeric address (None for a local socket) and the port at the other end."""
        ...

    def backend_pid(self, connection: ConnT) -> int:
        """The backend's process id, as reported at start-up; behind a pooler it is a number of the pooler's own."""
        ...

    def local_port(self, connection: ConnT) -> int | None:
        """The port at this end; None for a local socket."""
        ...

    async def wait_for_news(self, notifier: Notifier, seen: int, seconds: float) -> None:
        """Wait until `notifier.news` is another number than `seen`, or `seconds` have passed."""
        ...


class Activity(enum.Enum):
    """What a user's connection does at a moment."""

    IDLE = "nothing"
    OPEN = "nothing, within a transaction"
    WAITING = "waits for the server"
    LISTENING = "waits for notifications"
    BROKEN = "it was lost, and its owner did not close it yet"
    CLOSED = "its owner closes it now, or just did"


class TrackedConnection(Protocol):
    """A user's connection, as the monitor sees it.

    Attributes:
        direct: whether it was dialled by one of Aurora's own names; see `policy.paths`.
        waiting_since: since when it was waiting in every sample; None: it was not. Written by the monitor.
        limits: how soon its user wants a hang to be noticed.
        cut_because: why the monitor cut it, set before the cut, for the error that its user gets; None: it did not.
    """

    direct: bool
    waiting_since: float | None
    limits: Limits
    cut_because: str | None

    @property
    def generation(self) -> int:
        """The instance's generation when the connection was made."""
        ...

    @property
    def was_writer(self) -> bool:
        """Whether the instance was the writer when the connection was made."""
        ...


class MonitorRuntime(Runtime[ConnT], Protocol[ConnT]):
    """A runtime that runs several procedures at once, and can inspect users' connections."""

    def spawn(self, procedure: Coroutine[Any, Any, None]) -> None:
        """Start a procedure, which runs until it ends or the runtime does."""
        ...

    def activity(self, held: Any) -> Activity:
        """What a user's connection does now."""
        ...

    def target(self, held: Any, name: str) -> Target | None:
        """Where a user's connection leads; None when it was closed."""
        ...

    def heard_at(self, held: Any) -> float | None:
        """When the last data arrived here on a user's connection, by the runtime's clock; None: that is not known."""
        ...

    def dial_heard_at(self, target: Target) -> float | None:
        """When a server last sent anything on a dial of the monitor's, also one that failed later; None: never.

        Only bytes of the server count: the kernel of a process that hangs accepts connections, too.
        """
        ...

    def dial_silence(self, target: Target) -> float | None:
        """How long each of the monitor's last dials of a target waited for the first byte, at least; None: not known.

        In seconds. A packet that got lost delays one dial; a server that is always silent at first delays all.
        """
        ...

    def has_unread(self, held: Any) -> bool:
        """Whether data, or the end, of a user's connection arrived that its user has not read yet."""
        ...

    def ends(self, connection: ConnT) -> tuple[End | None, End | None]:
        """Return this end and the other end of one of the monitor's connections; None: a local socket."""
        ...

    def database(self, connection: Any) -> str:
        """Return the database of a connection, a user's or the monitor's; empty if it is closed."""
        ...

    async def offer(self, connection: ConnT) -> bool:
        """Offer one of the monitor's connections to the next connect with the same parameters.

        It has to be idle, and used only for service queries. Returns whether it was taken over.
        """
        ...

    def cut(self, held: Any) -> bool:
        """Shut down the socket of a user's connection, which wakes a thread that waits on it; False: it was gone."""
        ...
