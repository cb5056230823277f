"""Aurora PostgreSQL: every instance reports all of them by ``aurora_replica_status()``.

Sources: Amazon Aurora User Guide, "aurora_replica_status" and "aurora_db_instance_identifier".

What the function returns is judged row by row: a row that names no instance is left out and listed in
`Topology.malformed`; a number that cannot be right counts as unknown. Ids are lower case, as their names in DNS. The
outer join keeps the instance's report about itself where the function returns no row at all.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from aurora_router.flow.drain_sql import NOTES, read_column
from aurora_router.flow.source import Source
from aurora_router.flow.topology_query import ROLE
from aurora_router.model.observation import Row, Topology
from aurora_router.runtime.sources.identifiers import format_identifier, read_identifier

if TYPE_CHECKING:
    from aurora_router.flow.runtime import Rows

_SQL = f"""
SELECT o.standby, o.pid, o.port, o.id, s.server_id,
  s.session_id OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID',
  CASE WHEN pg_catalog.isfinite(s.last_update_timestamp) THEN pg_catalog.date_part('epoch',
    pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.last_update_timestamp)::pg_catalog.numeric END,
  s.replica_lag_in_msec::pg_catalog.numeric, s.cpu::pg_catalog.numeric, s.durable_lsn,
  CASE WHEN pg_catalog.isfinite(s.last_update_timestamp) THEN
    pg_catalog.date_part('epoch', s.last_update_timestamp)::pg_catalog.numeric END, o.drains
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.pg_backend_pid() AS pid,
    pg_catalog.inet_client_port() AS port, pg_catalog.aurora_db_instance_identifier() AS id,
    {NOTES} AS drains) AS o
  LEFT JOIN pg_catalog.aurora_replica_status() AS s ON true
"""  # noqa: S608 - constants
# Numbers are sent as numeric: how many digits of a float are sent, `extra_float_digits` of the user's session decides.

_ID_SQL = f"{ROLE}, pg_catalog.aurora_db_instance_identifier()"

UNDEFINED_FUNCTION = "42883"

_LONGEST = 40
"""Digits of a position in the log: what has more is none."""


def _read(rows: Rows, asked: str) -> Topology:  # noqa: ARG001 - the server knows its own id
    standby, id_ = (rows[0][0], rows[0][3]) if rows else (None, None)
    observer = read_identifier(id_)
    reported = [row[4:11] for row in rows if any(value is not None for value in row[4:11])]
    malformed = tuple(format_identifier(row[0]) for row in reported if read_identifier(row[0]) is None)
    return Topology(
        tuple(_row(*row, observer=observer) for row in reported if read_identifier(row[0]) is not None),
        observer,
        None if standby is None else standby == "f",
        malformed=malformed,
        drains=read_column(rows[0][11:]) if rows else None,
    )


def _row(
    id_: str | None,
    writer: str | None,
    age: str | None,
    lag: str | None,
    cpu: str | None,
    durable_lsn: str | None,
    updated: str | None,
    *,
    observer: str | None,
) -> Row:
    id_ = read_identifier(id_) or ""
    milliseconds, seconds = _amount(lag), _number(age)
    return Row(
        id=id_,
        writer=writer == "t",
        age=None if id_ == observer or seconds is None else max(0.0, seconds),
        lag=None if milliseconds is None else milliseconds / 1000.0,
        cpu=_amount(cpu),
        token=_lsn(durable_lsn),
        updated=_number(updated),
    )


def _number(text: str | None) -> float | None:
    """A finite number; None for NULL and everything else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _amount(text: str | None) -> float | None:
    """A number that is not negative."""
    number = _number(text)
    return None if number is None or number < 0.0 else number


def _lsn(text: str | None) -> int | None:
    """A position in the log: a positive number."""
    return int(text) if text is not None and re.fullmatch("0*[1-9][0-9]*", text) and len(text) < _LONGEST else None


def _read_id(rows: Rows) -> str | None:
    return read_identifier(rows[0][3])


AURORA_POSTGRESQL = Source(
    name="aurora",
    sql=_SQL,
    read=_read,
    absent=frozenset({UNDEFINED_FUNCTION}),
    servers="Aurora PostgreSQL",
    id_sql=_ID_SQL,
    read_id=_read_id,
    advance_sql="SELECT pg_catalog.txid_current()",  # its commit is a record, also where nothing was written
    grant=(
        "GRANT EXECUTE ON FUNCTION aurora_replica_status(), aurora_db_instance_identifier() TO PUBLIC, or to the user"
    ),
)
