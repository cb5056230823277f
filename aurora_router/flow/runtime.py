"""What a procedure may ask of the runtime around it.

A runtime is an adapter: `runtime.blocking` does each of these things at once and never suspends, `runtime.eventloop`
awaits them for real, `runtime.simulated` does them on a virtual clock with a seed. All times are in seconds on the
runtime's own monotonic clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from aurora_router.model.instance import Role

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aurora_router.flow.cluster import Cluster, Reservation
    from aurora_router.policy.balance import Selection
    from aurora_router.policy.hang_detection import Limits
    from aurora_router.policy.paths import End
    from aurora_router.policy.role_reports import Path
    from aurora_router.policy.route import Route
    from aurora_router.policy.verdict import Fault

ConnT = TypeVar("ConnT")
"""A connection, whatever the runtime's are: the procedures only hand them around."""

Rows = list[tuple[str | None, ...]]
"""The answer to a service query: text format, None for NULL."""


Wanted = Callable[[], bool]
"""Whether something is still worth waiting for."""

GLANCE_SECONDS = 0.1
"""How often something that is waited for is asked whether it is wanted: what psycopg's blocking dials allow."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a host name stands for.

    Attributes:
        addresses: numeric addresses, in the order in which to dial them.
        canonical: the name at the end of the chain of CNAMEs; the name itself where there is none.
    """

    addresses: tuple[str, ...]
    canonical: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where to dial.

    Attributes:
        name: how people call it: the instance's id, or the host that was given.
        host: the name that TLS verifies (libpq's ``host``); None leaves it to libpq (a default, a service file).
        port: TCP port; None leaves it to libpq.
        addresses: what is dialled (libpq's ``hostaddr``), in order; empty: `host` is a socket or left to libpq.
        wanted: whether it is still worth waiting for; asked every `GLANCE_SECONDS` while a dial is under way, which
            fails then as if its time was over. None: it is, for all of the time.
    """

    name: str
    host: str | None
    port: int | None
    addresses: tuple[str, ...] = ()
    wanted: Wanted | None = field(default=None, compare=False)


class DialFailed(Exception):
    """A dial, or a service query on a fresh connection, came to nothing.

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


class Runtime(Protocol[ConnT]):
    """The ground that a procedure stands on. One per kind of connection that is to be made."""

    def now(self) -> float:
        """The runtime's monotonic clock, in seconds."""
        ...

    def random(self) -> float:
        """A random number in [0, 1)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...

    async def resolve(self, host: str, *, fresh: bool = False) -> Resolution:
        """What a host name stands for; `fresh`: asked anew, whatever is remembered (names that rotate).

        Raises:
            DialFailed: it has no address, or no name server answered in time.
        """
        ...

    def last_resolved(self, host: str) -> Resolution | None:
        """What a host name stood for when it was resolved last, however long ago; None: it never was."""
        ...

    async def dial(self, target: Target, seconds: float) -> ConnT:
        """Open a connection, within `seconds` for all addresses together.

        Raises:
            DialFailed: whatever went wrong.
        """
        ...

    async def ask(self, connection: ConnT, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """One service query by the simple protocol; the connection is left as it was.

        It fails as if its time was over when the answer is not `wanted` any more; None: it is, for all of the time.

        Raises:
            DialFailed: the server refused the query, or the connection broke, or no answer came in time.
        """
        ...

    async def discard(self, connection: ConnT) -> None:
        """Close a connection that turned out not to be wanted."""
        ...

    def in_hot_standby(self, connection: ConnT) -> bool | None:
        """What the server reported of itself when the connection began (PostgreSQL 14+); None when nothing."""
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

    async def changed(self, cluster: Cluster, seen: int, seconds: float) -> None:
        """Wait until `cluster.news` is another number than `seen`, or `seconds` have passed."""
        ...


class Activity(enum.Enum):
    """What a user's connection does at a moment."""

    IDLE = "nothing"
    OPEN = "nothing, within a transaction"
    WAITING = "waits for the server"
    LISTENING = "waits for notifications"
    BROKEN = "it was lost, and its owner did not close it yet"


class Held(Protocol):
    """A user's connection, as far as a watch is concerned.

    Attributes:
        direct: whether it was dialled by one of Aurora's own names; see `policy.paths`.
        waiting_since: since when it was seen waiting in every sample; None: it was not. The watch's own notice.
        limits: how soon its user wants a hang to be noticed.
        cut_because: why the watch cut it, set before it does, for the error that its user gets; None: it did not.
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
    """A runtime in which several procedures go on at once, and which can look at users' connections."""

    def spawn(self, procedure: Coroutine[Any, Any, None]) -> None:
        """Let a procedure go on by itself, until it ends or the runtime does."""
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

    def has_unread(self, held: Any) -> bool:
        """Whether data, or the end, of a user's connection arrived that its user has not read yet."""
        ...

    def ends(self, connection: ConnT) -> tuple[End | None, End | None]:
        """This end and the other end of a connection of the watch's own; None: a local socket."""
        ...

    def database(self, connection: Any) -> str:
        """The database of a connection, a user's or the watch's; empty when it was closed."""
        ...

    async def offer(self, connection: ConnT) -> bool:
        """Offer a connection of the watch's own to the next user who dials with the same parameters.

        It has to be idle and used for service queries alone. True: it is not the watch's any more.
        """
        ...

    def cut(self, held: Any) -> bool:
        """Shut the socket of a user's connection down, so that whoever waits on it wakes up; False: it was gone."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectResult(Generic[ConnT]):
    """A connection on the right instance.

    Attributes:
        connection: the connection itself, idle, with nothing prepared and no setting changed.
        cluster: the cluster's state that it counts for.
        instance: id of its instance; None when the server could not tell.
        generation: the instance's generation when the connection was made.
        why: the selection or the route that led there; both tell their reasons.
        role: the instance's role when the connection was made.
        route: how the request was routed.
        pooled: whether a pooler is in between, so that the server behind may change at any moment.
        seat: where the connection is counted until `hold` or `waive` is called; one of them has to be.
    """

    connection: ConnT
    cluster: Cluster
    instance: str | None
    generation: int
    why: Selection | Route
    role: Role = Role.UNKNOWN
    route: Route | None = None
    pooled: bool = False
    seat: Reservation | None = None

    def hold(self) -> None:
        """Count the connection for its instance in the place of its seat, in one step: nobody sees one too few."""
        if self.instance is None:
            return
        seat = self.seat
        own = seat is not None and seat.cluster is self.cluster
        self.cluster.hold(self.instance, self.connection, seat=seat if own else None)
        if not own:
            self.waive()

    def waive(self) -> None:
        """Do not count the connection."""
        if self.seat is not None:
            self.seat.cluster.release(self.seat)
