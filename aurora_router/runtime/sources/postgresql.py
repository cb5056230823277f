"""Plain PostgreSQL: an instance reports itself alone. Its timeline is the evidence for a writer's claim.

``pg_control_checkpoint()`` lags a promotion until the next checkpoint, so the timeline is read from the name of the
WAL file that the writer is at (PostgreSQL documentation, "Backup Control Functions").

A standby lags by the age of the last transaction that it replayed at most. With an idle primary that is more than it
lags; then its position in the log, compared with the writer's, shows that it lacks nothing (`model.reduce`, rule 9).
That it has replayed all that it received would not: a cascaded standby receives all that its upstream has, and that may
have lost the primary long ago. Which server the upstream is, and how fresh, only privileged users may read.

Timelines and positions are of one history, which the system identifier names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.flow.drain_sql import NOTES, read_column
from aurora_router.flow.source import Source
from aurora_router.flow.topology_query import FEATURE_NOT_SUPPORTED
from aurora_router.model.observation import Row, Topology, end_of_record

if TYPE_CHECKING:
    from aurora_router.flow.runtime import Rows

OWN = f"""
SELECT r.standby, pg_catalog.pg_backend_pid(), pg_catalog.inet_client_port(),
  CASE WHEN r.standby THEN NULL
  ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END,
  CASE WHEN r.standby THEN pg_catalog.date_part('epoch',
    pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp()
  )::pg_catalog.numeric END,
  CASE WHEN r.standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END
    OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn,
  (SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c),
  {NOTES}
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) AS r
"""  # noqa: S608 - constants
"""What an instance reports of itself: `COLUMNS`, the first three are those of `flow.topology_query.ROLE`."""
COLUMNS = 8
"""How many there are; the last one is what it knows of drains."""


def _read(rows: Rows, asked: str) -> Topology:
    row = read_own(rows[0], asked)
    return Topology((row,), asked, row.writer, complete=False, monotone=True, drains=read_column(rows[0][7:]))


def read_own(columns: tuple[str | None, ...], id_: str) -> Row:
    """What an instance reports of itself, from the columns of `OWN`."""
    standby, _, _, walfile, behind, position, system = columns[:7]
    writer = standby == "f"
    return Row(
        id_,
        writer=writer,
        lag=0.0 if writer else None if behind is None else max(0.0, float(behind)),
        token=int(walfile[:8], 16) if walfile is not None else None,
        system=system,
        lsn=None if position is None else end_of_record(int(position)),
    )


# Aurora does not support asking what was replayed: its readers have no log of their own.
POSTGRESQL = Source(name="postgresql", sql=OWN, read=_read, absent=frozenset({FEATURE_NOT_SUPPORTED}), complete=False)
