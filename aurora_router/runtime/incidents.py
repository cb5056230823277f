"""Explaining an error of psycopg's own: what happened to the instance of its connection. Imported with the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from aurora_router.policy.verdict import ENDS_SESSION
from aurora_router.runtime.incident_notes import attach_incident

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster
    from aurora_router.model.instance import Role

READ_ONLY = "25006"
"""A write was refused, by a reader or in a transaction that is read-only."""
TIMED_OUT = frozenset({"25P03", "25P04", "57P05"})
"""The server ended a session by a time-out that was set for it: the instance is fine."""


def as_lost(connection: Any, error: psycopg.Error) -> psycopg.Error:
    """Turn psycopg's error about too many answers into the `psycopg.OperationalError` that a lost connection is.

    A pooler that loses its server answers twice: with what the server said last, and with what it says itself. psycopg
    takes one answer to BEGIN, COMMIT and ROLLBACK, and raises an InternalError without a SQLSTATE for two.
    """
    pgconn = connection.pgconn
    if isinstance(error, psycopg.OperationalError) or error.sqlstate is not None or pgconn.status != pq.ConnStatus.BAD:
        return error
    said = pgconn.get_error_message().strip() or "the server closed it"
    return psycopg.OperationalError(f"the connection was lost: {said}")


def explain(
    connection: Any, cluster: Cluster, error: psycopg.Error, *, instance: str | None, generation: int, role: Role
) -> None:
    """Attach an `Incident` to an error, and let the monitor look at what it may mean.

    The error stays the same object; it gets the attribute ``incident`` and a note (Python 3.10: in its text).

    Args:
        connection: on which the error was raised.
        cluster: the cluster of its instance.
        error: the error.
        instance: the id of its instance; None: it is not known.
        generation: the instance's generation when the connection was made.
        role: the instance's role at that time.
    """
    lost = connection.pgconn.status == pq.ConnStatus.BAD or error.diag.severity_nonlocalized in ENDS_SESSION
    if hasattr(error, "incident") or not (lost or error.sqlstate == READ_ONLY):
        return
    if not lost and _chose_read_only(connection):
        return
    attach_incident(
        cluster,
        error,
        instance=instance,
        generation=generation,
        role=role,
        lost=lost,
        is_evidence=not lost or error.sqlstate not in TIMED_OUT,
        cut=connection.cut_because,
    )


def _chose_read_only(connection: Any) -> bool:
    """Whether the session is read-only by what its user set.

    By the connection's attribute, or by the session's default, which the server reports (PostgreSQL 14 and later).
    """
    return bool(connection.read_only or connection.pgconn.parameter_status(b"default_transaction_read_only") == b"on")
