"""A session of the monitor's, handed over to a connect that is about to open the same one.

Theory. At the end of a failover the monitor has a session with the new writer before any client: it asked on it. A
client that waits in ``connect`` would now dial that server with the same parameters: a handshake, and a process started
by a server that has much to do at that moment. So the monitor lays its session down here, and the first dial whose
parameters are the same takes it; all others dial.

Invariants: what lies here was used for service queries alone (it is idle, nothing is prepared, no setting changed) and
has no other owner any more; it is taken once at most; what was not taken within `SECONDS` is closed; the child of a
fork takes nothing, since the sockets are its parent's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from psycopg import pq

from aurora_router import native
from aurora_router.forks import IMPORTING
from aurora_router.runtime import sockets

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = frozenset[tuple[str, str]]

_PROCESS_KEY = os.urandom(16)

SECONDS = 1.0
"""How long a session lies here at most: a client that waits takes it within milliseconds."""


def key_of(params: Mapping[str, Any]) -> Key:
    """What two dials have to have in common so that one may take the other's session.

    That is all but their patience, and which way they took to TLS.
    """
    return frozenset(
        (name, _seal(str(value)) if name == "password" else str(value))
        for name, value in params.items()
        if name not in {"connect_timeout", "sslnegotiation"}
    )


def _seal(secret: str) -> str:
    """A text that is equal for equal secrets, and does not reveal them."""
    with IMPORTING:
        from hashlib import blake2b  # noqa: PLC0415 - sessions are laid down after a failover alone

    return blake2b(secret.encode(), key=_PROCESS_KEY, digest_size=16).hexdigest()


class SessionCache:
    """Where sessions are laid down. Safe for threads.

    Attributes:
        laid: the sessions, by what two dials must have in common.
    """

    def __init__(self) -> None:
        self._lock = native.new_rlock()
        self.laid: dict[Key, pq.abc.PGconn] = {}
        self._inherited: list[Any] = []

    def lay(self, key: Key, pgconn: pq.abc.PGconn) -> None:
        """Lay a session down; one that lay there for the same parameters is closed."""
        with self._lock:
            before = self.laid.pop(key, None)
            self.laid[key] = pgconn
        if before is not None:
            before.finish()

    def take(self, params: Mapping[str, Any]) -> pq.abc.PGconn | None:
        """Take the session that was dialled with the same parameters, if there is one and it is alive."""
        with self._lock:
            pgconn = self.laid.pop(key_of(params), None)
        if pgconn is None or _is_fresh(pgconn):
            return pgconn
        pgconn.finish()
        return None

    def clear(self, key: Key, pgconn: pq.abc.PGconn) -> None:
        """Close a session that was laid down, if it was not taken."""
        with self._lock:
            if self.laid.get(key) is pgconn and self.laid.pop(key, None) is pgconn:
                pgconn.finish()

    def reset(self) -> None:
        """In the child of a fork: keep what lies here from the garbage collector, and take nothing."""
        self._lock = native.new_rlock()
        self._inherited.append(self.laid)
        self.laid = {}


def _is_fresh(pgconn: pq.abc.PGconn) -> bool:
    idle = pgconn.status == pq.ConnStatus.OK and pgconn.transaction_status == pq.TransactionStatus.IDLE
    return idle and not sockets.end_of(pgconn.socket)()


SESSIONS = SessionCache()
"""The sessions of this process."""

os.register_at_fork(after_in_child=SESSIONS.reset)
