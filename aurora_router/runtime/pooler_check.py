"""Why a connection through a pooler may not be used any more: the server is asked, it may be another one by now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import pq

from aurora_router.flow.runtime import DialFailed
from aurora_router.flow.topology_query import IN_RECOVERY
from aurora_router.model.instance import Role
from aurora_router.runtime import libpq_runtimes

if TYPE_CHECKING:
    from aurora_router.flow.runtime import Rows

ANSWER_SECONDS = 5.0
"""How long the answer may take: as long as a dial by default, since a pooler may have to dial."""

_BETWEEN_STATEMENTS = frozenset({pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS})


def find_reason(connection: Any) -> str | None:
    """Why a connection may not be used any more, by one query; None: it may be, or cannot be asked now."""
    if not _is_between_statements(connection.pgconn):
        return None
    try:
        return _compare(connection, libpq_runtimes.query(connection.pgconn, IN_RECOVERY, ANSWER_SECONDS))
    except DialFailed as failed:
        return _describe_loss(connection, failed)


async def find_reason_async(connection: Any) -> str | None:
    """The same for an `AsyncConnection`."""
    if not _is_between_statements(connection.pgconn):
        return None
    try:
        return _compare(connection, await libpq_runtimes.query_async(connection.pgconn, IN_RECOVERY, ANSWER_SECONDS))
    except DialFailed as failed:
        return _describe_loss(connection, failed)


def _is_between_statements(pgconn: pq.abc.PGconn) -> bool:
    between = pgconn.transaction_status in _BETWEEN_STATEMENTS
    return between and pgconn.pipeline_status == pq.PipelineStatus.OFF


def _compare(connection: Any, rows: Rows) -> str | None:
    placement, standby = connection.placement, rows[0][0] == "t"
    if standby is (placement.role is not Role.WRITER):
        return None
    now = "a reader" if standby else "a writer"
    return f"the connection to {placement.instance} is stale: the server behind the pooler is {now} now"


def _describe_loss(connection: Any, failed: DialFailed) -> str:
    return f"the connection to {connection.placement.instance} was lost: {failed.fault.text}"
