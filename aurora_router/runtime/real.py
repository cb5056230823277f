"""What the runtimes of threads and of event loops have in common: the real clock, libpq, nothing that waits."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from aurora_router.runtime import libpq, sockets

if TYPE_CHECKING:
    from psycopg import pq

    from aurora_router.policy.role_reports import Path

_RANDOM = random.SystemRandom()
"""Not the module's own: that one is its users' to seed, and a background thread must not draw from it."""


class HasPgconn(Protocol):
    """A connection that stands on libpq."""

    @property
    def pgconn(self) -> pq.abc.PGconn:
        """The libpq connection under it."""
        ...


ConnT = TypeVar("ConnT", bound=HasPgconn)


class RealRuntime(Generic[ConnT]):
    """The part of a `Runtime` that asks no server and waits for nothing."""

    __slots__ = ()

    now = staticmethod(time.monotonic)
    """The monotonic clock, in seconds."""

    def random(self) -> float:
        """A random number in [0, 1)."""
        return _RANDOM.random()

    def in_hot_standby(self, connection: ConnT) -> bool | None:
        """What the server reported of itself when the connection began."""
        return libpq.reported_standby(connection.pgconn)

    def address(self, connection: ConnT) -> str | None:
        """The numeric address at the other end."""
        return libpq.peer_address(connection.pgconn)

    def path(self, connection: ConnT) -> Path:
        """The numeric address and the port at the other end."""
        return libpq.path_of(connection.pgconn)

    def backend_pid(self, connection: ConnT) -> int:
        """The backend's process id, as reported at start-up."""
        return connection.pgconn.backend_pid

    def local_port(self, connection: ConnT) -> int | None:
        """The port at this end."""
        return sockets.local_port(connection.pgconn.socket)
