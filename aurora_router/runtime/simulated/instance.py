"""A simulated instance, with its faults."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.runtime import Rows
    from aurora_router.model.drain import DrainNote


class ServingCluster(Protocol):
    """The cluster of an instance, as the instance knows it: what it answers is made from that.

    Attributes:
        port: of all instances.
        aurora: whether it has Aurora's functions; False: plain PostgreSQL.
        drains: the notes of drains.
        multi_az: whether it has the functions of an RDS Multi-AZ DB cluster.
    """

    port: int
    aurora: bool
    drains: tuple[DrainNote, ...]
    multi_az: bool

    @property
    def now(self) -> float:
        """The virtual time, in seconds."""
        ...

    @property
    def durable_lsn(self) -> int:
        """The durable LSN of the volume, now."""
        ...

    def rows(self) -> Rows:
        """Return what every instance knows of all."""
        ...

    def write_record(self, by: SimulatedInstance) -> None:
        """Add a record to the log of the volume, which takes it from the writer alone."""
        ...

    def next_pid(self) -> int:
        """Return a process id that no backend has had."""
        ...


class ServedConnection(Protocol):
    """An open connection, as its instance knows it.

    Attributes:
        server_pid: the process id of its backend.
    """

    server_pid: int

    def breaks(self) -> None:
        """End the instance's side of it."""
        ...


class Condition(enum.Enum):
    """How an instance answers a dial."""

    WELL = "accepts"
    REFUSING = "refuses: no process listens"
    HANGING = "takes the packets and never answers"
    UNREACHABLE = "no route to it"
    STARTING = "is starting up (57P03)"
    STOPPING = "is shutting down (57P03)"
    FULL = "has too many connections (53300)"
    REJECTING = "does not accept the password (28P01)"
    BARRED = "refuses logins (28000)"
    UNVERIFIED = "shows a certificate for another name"
    RESETTING = "accepts and closes at once"
    UNKNOWN = "refuses, with a sentence that is not known"
    WITHOUT_TLS = "has no TLS, where it is required"
    EXHAUSTED = "is not dialled: the client has no port left"


@dataclass(eq=False, slots=True)
class SimulatedInstance:
    """One instance; all of its attributes may be changed while the simulation runs.

    Attributes:
        id: its name.
        address: numeric address that it listens on.
        writer: whether it believes that it is the writer (``not pg_is_in_recovery()``).
        zone: availability zone (no SQL source reports it).
        lag: replica lag in seconds.
        cpu: CPU use in percent.
        condition: how it answers a dial.
        silent: accepts dials, and never answers a query.
        latency: of a round trip, in seconds.
        accept_latency: of a dial until the server sends its first bytes, in seconds; what TLS costs.
        login_latency: of the rest of a dial: what authentication and login triggers cost.
        reports_standby: whether it reports ``in_hot_standby`` at start-up (PostgreSQL 14+); False: as a proxy.
        timeline: its timeline.
        system: its system identifier.
        rewrites: changes the rows that it sends of the cluster (see `SimulatedCluster.rows`): a row that lacks, one
            without an id, one too many. None: it sends them as they are.
        forbids: SQLSTATE with which it answers topology queries, None: it answers.
        connections: the open ones, of all processes.
    """

    id: str
    address: str
    writer: bool = False
    zone: str | None = None
    lag: float = 0.01
    cpu: float | None = 10.0
    condition: Condition = Condition.WELL
    silent: bool = False
    latency: float = 0.0005
    accept_latency: float = 0.002
    login_latency: float = 0.0
    reports_standby: bool = True
    timeline: int = 1
    system: str = "7300000000000000001"
    forbids: str | None = None
    rewrites: Callable[[Rows], Rows] | None = None
    connections: set[ServedConnection] = field(default_factory=set)
    _view: tuple[float, Rows] | None = None

    @property
    def frozen_view(self) -> tuple[float, Rows] | None:
        """When the view was frozen, and its rows; None: it is up to date."""
        return self._view

    def drop_connections(self) -> None:
        """Break all connections, as a crash does."""
        for connection in sorted(self.connections, key=lambda each: each.server_pid):
            connection.breaks()
