"""One instance of a cluster, as last known."""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import NamedTuple

from aurora_router.frozen import frozen


class Role(enum.Enum):
    """What an instance is in its cluster."""

    WRITER = "writer"
    READER = "reader"
    UNKNOWN = "unknown"


class Occupancy(NamedTuple):
    """How many client connections an instance had, as it reported itself.

    Attributes:
        connections: those of all clients, without the session that asked.
        own: those of this process among them, open or being opened.
        at: when it was asked, by the runtime's clock in seconds.
    """

    connections: int
    own: int
    at: float


@frozen
class Instance:
    """One instance, as last known.

    Attributes:
        id: the server's own name for itself (Aurora: ``aurora_db_instance_identifier()``; plain PostgreSQL:
            ``host:port`` as configured).
        role: its role by the best evidence so far.
        generation: grows by one whenever connections made earlier must no longer be used (the role changed, or
            the instance was declared failed). A connection of an older generation is stale.
        host: host name to dial, or None when it follows from the cluster's domain and the id.
        port: TCP port to dial, or None for the cluster's own.
        zone: availability zone, when known.
        lag: replica lag in seconds; None when unknown, 0.0 for the writer.
        lag_at: when the lag was that, by the runtime's clock in seconds; None: not known.
        cpu: CPU use in percent, 0..100; None when unknown.
        heard_at: when it was asked, by the runtime's clock, the last time that it answered about itself; None: never.
        missing_since: when a complete answer first did not list it, by the runtime's clock; None: the last one did.
        updated: the newest `observation.Row.updated` of its rows.
        system: the history that its data is of, see `observation.Row.system`; None: not known.
        updated_at: when `updated` last changed, by the runtime's clock: an instance that runs updates its row.
        offset: the runtime's clock minus the instance's own clock, in seconds, at most: the least difference between
            when a row came and its `updated`, since a row comes after it was written. None: not known.
        occupancy: its client connections; None: it was not asked for them.
    """

    id: str
    role: Role = Role.UNKNOWN
    generation: int = 0
    host: str | None = None
    port: int | None = None
    zone: str | None = None
    lag: float | None = None
    cpu: float | None = None
    lag_at: float | None = None
    heard_at: float | None = None
    missing_since: float | None = None
    updated: float | None = None
    updated_at: float = 0.0
    system: str | None = None
    offset: float | None = None
    occupancy: Occupancy | None = None

    def become(self, role: Role) -> Instance:
        """This instance in another role: a new generation, unless nothing was known before."""
        if role is self.role:
            return self
        step = 0 if self.role is Role.UNKNOWN else 1
        lag = 0.0 if role is Role.WRITER else None  # what a writer does not lag says nothing of it as a reader
        return replace(self, role=role, generation=self.generation + step, lag=lag, lag_at=None, occupancy=None)

    def lag_at_most(self, now: float) -> float | None:
        """The highest replica lag that it can have now, in seconds: the last figure and its age; None: not known."""
        if self.role is Role.WRITER:
            return 0.0
        if self.lag is None or self.lag_at is None:
            return None
        return self.lag + max(0.0, now - self.lag_at)

    def invalidate_connections(self) -> Instance:
        """This instance with every connection made so far declared stale."""
        return replace(self, generation=self.generation + 1)
