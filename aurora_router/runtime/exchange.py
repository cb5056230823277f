"""One message of the simple protocol on a libpq connection, without I/O: both runtimes drive the same steps."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from aurora_router.flow.runtime import DialFailed, Rows
from aurora_router.flow.session import Reply
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime import libpq
from aurora_router.runtime.faults import first_line, sqlstate_of

if TYPE_CHECKING:
    from collections.abc import Generator

READ = select.POLLIN
BOTH = select.POLLIN | select.POLLOUT

_FINE = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY})


def exchange(pgconn: pq.abc.PGconn, sql: str) -> Generator[int, None, Reply]:
    """Send a message and collect its whole answer; yields what the socket has to be ready for.

    Raises:
        DialFailed: the server refused a statement, or the connection broke.
    """
    results: list[pq.abc.PGresult] = []
    try:
        pgconn.send_query(sql.encode())
    except psycopg.OperationalError as error:
        is_lost = pgconn.status == pq.ConnStatus.BAD  # else a pipeline or a COPY is open, and nothing was sent
        raise DialFailed(
            Fault(FaultKind.RESET if is_lost else FaultKind.CLIENT, None, first_line(error)), error
        ) from error
    try:
        while pgconn.flush():
            yield BOTH
            pgconn.consume_input()
        while True:
            while pgconn.is_busy():
                yield READ
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                return _reply(results)
            results.append(result)
    except psycopg.OperationalError as error:
        if results and results[-1].status not in _FINE:  # it was refused, and then the session was ended
            return _reply(results)
        raise DialFailed(Fault(FaultKind.RESET, error.sqlstate, first_line(error)), error) from error


def _reply(results: list[pq.abc.PGresult]) -> Reply:
    rows: Rows = []
    for done, result in enumerate(results):
        if result.status not in _FINE:
            cause = psycopg.errors.error_from_result(result)
            severity = cause.diag.severity_nonlocalized
            raise DialFailed(Fault(FaultKind.REJECTED, sqlstate_of(cause), first_line(cause), severity), cause, done)
        if result.status == pq.ExecStatus.TUPLES_OK:
            rows = libpq.rows_of(result)
    if not results:
        raise libpq.new_connection_lost("the server sent no result")
    return Reply(rows, tuple((result.command_status or b"").decode() for result in results))
