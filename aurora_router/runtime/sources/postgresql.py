"""Plain PostgreSQL: an instance tells of itself alone. Its timeline is the evidence for a writer's claim.

``pg_control_checkpoint()`` lags a promotion until the next checkpoint, so the timeline is read from the name of the
WAL file that the writer is at (PostgreSQL documentation, "Backup Control Functions").

A standby that has replayed all that it received does not lag, however long ago the last transaction was: the primary is
idle. Without a WAL receiver it may just as well be cut off, so its lag is then the age of the last transaction that it
replayed, which may be more than it lags. (A connection to the primary that is lost without a sign is noticed after
``wal_receiver_timeout``, and only then.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.flow.source import Source
from aurora_router.model.observation import Row, Topology

if TYPE_CHECKING:
    from aurora_router.flow.world import Rows

_SQL = """
SELECT r.standby, pg_catalog.pg_backend_pid(), pg_catalog.inet_client_port(),
  CASE WHEN r.standby THEN NULL
  ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END,
  CASE WHEN r.standby THEN pg_catalog.date_part('epoch',
    pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp()) END,
  CASE WHEN r.standby THEN pg_catalog.pg_last_wal_receive_lsn() OPERATOR(pg_catalog.=)
    pg_catalog.pg_last_wal_replay_lsn()
    AND EXISTS (SELECT FROM pg_catalog.pg_stat_get_wal_receiver() AS w WHERE w.pid IS NOT NULL) END
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) AS r
"""


def _read(rows: Rows, asked: str) -> Topology:
    standby, _, _, walfile, behind, caught_up = rows[0]
    writer = standby == "f"
    lag = 0.0 if writer or caught_up == "t" else None if behind is None else max(0.0, float(behind))
    row = Row(asked, writer=writer, lag=lag, token=int(walfile[:8], 16) if walfile is not None else None)
    return Topology((row,), asked, writer, complete=False, monotone=True)


NOT_SUPPORTED = "0A000"
"""What Aurora answers when asked about a WAL receiver: its readers have none."""

POSTGRESQL = Source(name="postgresql", sql=_SQL, read=_read, absent=frozenset({NOT_SUPPORTED}), complete=False)
