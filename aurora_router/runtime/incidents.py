"""Explaining an error of psycopg's own: what happened to the instance of its connection. Imported with the first."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from aurora_router.model.incident import Incident
from aurora_router.model.instance import Role
from aurora_router.policy.incidents import note
from aurora_router.policy.verdict import ENDS_SESSION

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster

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
    now = time.monotonic()
    if lost and error.sqlstate not in TIMED_OUT and instance is not None:
        cluster.suspect_writer(f"a connection to {instance} broke", now)
    elif not lost and role is Role.WRITER and not _chose_read_only(connection):
        cluster.record_refused_write(instance or "", generation, now)
    view = cluster.view
    known = view.instances.get(instance or "")
    incident = Incident(
        cluster=cluster.name,
        instance=instance,
        role_before=None if role is Role.UNKNOWN else role,
        role_now=None if known is None else known.role,
        writer_now=view.writer,
        cut=connection.cut_because,
        lost=lost,
        events=tuple((now - at, event) for at, event in cluster.state.trail),
    )
    incident = replace(incident, text=note(incident))
    error.incident = incident  # type: ignore[attr-defined]
    _add_note(error, incident.text)


def _chose_read_only(connection: Any) -> bool:
    """Whether the session is read-only by its own setting, which the server reports (PostgreSQL 14 and later)."""
    return bool(connection.pgconn.parameter_status(b"default_transaction_read_only") == b"on")


def _add_note(error: psycopg.Error, text: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(text)
    else:
        error.args = (f"{error}\n{text}", *error.args[1:])
