"""Aurora PostgreSQL: every instance tells of all of them by ``aurora_replica_status()``.

Sources: Amazon Aurora User Guide, "aurora_replica_status" and "aurora_db_instance_identifier".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.flow.source import Source
from aurora_router.model.observation import Row, Topology

if TYPE_CHECKING:
    from aurora_router.flow.world import Rows

_SQL = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_backend_pid(), pg_catalog.inet_client_port(),
  pg_catalog.aurora_db_instance_identifier(), s.server_id,
  s.session_id OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID',
  pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.last_update_timestamp),
  s.replica_lag_in_msec, s.cpu, s.durable_lsn
FROM pg_catalog.aurora_replica_status() AS s
"""

UNDEFINED_FUNCTION = "42883"


def _read(rows: Rows, asked: str) -> Topology:
    observer = rows[0][3] if rows else asked
    own_word = rows[0][0] == "f" if rows else None
    return Topology(tuple(_row(*row[4:], observer=observer) for row in rows), observer, own_word)


def _row(
    id_: str | None,
    writer: str | None,
    age: str | None,
    lag: str | None,
    cpu: str | None,
    durable_lsn: str | None,
    *,
    observer: str | None,
) -> Row:
    own = id_ == observer or age is None
    return Row(
        id=id_ or "",
        writer=writer == "t",
        age=None if own or age is None else max(0.0, float(age)),
        lag=None if lag is None else float(lag) / 1000.0,
        cpu=None if cpu is None else float(cpu),
        token=None if durable_lsn is None else int(durable_lsn),
    )


AURORA_POSTGRESQL = Source(name="aurora", sql=_SQL, read=_read, absent=frozenset({UNDEFINED_FUNCTION}))
