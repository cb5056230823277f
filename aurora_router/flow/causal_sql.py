"""The SQL of causal tokens: what is asked of the writer and of a reader, and how the answers are read.

Each function builds one message of the simple protocol, which is a transaction of its own: every snapshot that its
session takes later is younger than the answer. Names and operators are qualified; answers are numbers and ASCII words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.flow.commit_sql import PLACE, SYSTEM, TABLE, check_uuid, read_witness_table
from aurora_router.model.causal_token import DurablePosition, LogPosition, WitnessRow
from aurora_router.model.observation import end_of_record
from aurora_router.policy.causal import DurableEvidence, Evidence, LogEvidence, WitnessEvidence

if TYPE_CHECKING:
    from aurora_router.flow.runtime import Rows

# The position is read first, the timeline after it: `policy.causal` relies on that. A lateral subquery is evaluated
# after what it refers to, and OFFSET 0 keeps the planner from merging it with the rest.
LOG = f"""SELECT r.standby, {SYSTEM}, p.lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn,
  w.pid IS NOT NULL, w.received_tli,
  CASE WHEN NOT r.standby THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END,
  pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) AS r
  CROSS JOIN LATERAL (SELECT CASE WHEN r.standby THEN pg_catalog.pg_last_wal_replay_lsn()
    ELSE pg_catalog.pg_current_wal_insert_lsn() END AS lsn OFFSET 0) AS p
  LEFT JOIN LATERAL (SELECT s.pid, s.received_tli FROM pg_catalog.pg_stat_get_wal_receiver() AS s
    WHERE s.pid IS NOT NULL AND p.lsn IS NOT NULL OFFSET 0) AS w ON true"""  # noqa: S608 - constants
"""Ask for the position in the log; `read_log` reads the answer, `may_read_timelines` its last column."""

_OWN_ROW = """(SELECT s.durable_lsn FROM pg_catalog.aurora_replica_status() AS s
    WHERE s.server_id OPERATOR(pg_catalog.=) pg_catalog.aurora_db_instance_identifier())"""


def read_log(rows: Rows) -> LogEvidence:
    """Read the evidence from the answer to `LOG`."""
    standby, system, position, receiving, received, walfile, _ = rows[0]
    is_standby = standby == "t"
    written = None if walfile is None else int(walfile[:8], 16)
    return LogEvidence(
        system=system or "",
        is_standby=is_standby,
        lsn=None if position is None else end_of_record(int(position)),
        is_receiving=not is_standby or receiving == "t",
        timeline=written if not is_standby else None if received is None else int(received),
    )


def may_read_timelines(rows: Rows) -> bool:
    """Whether the user may see the timeline on readers, by the answer to `LOG`."""
    return rows[0][6] == "t"


def write_witness(id_: str, *, system: bool) -> str:
    """Commit a witness row, and return where it is; `system`: whether the system identifier is asked for."""
    values = f"{PLACE}, {SYSTEM if system else 'NULL'}"
    return f"INSERT INTO {TABLE} (id) VALUES ('{check_uuid(id_)}'); SELECT {values}"  # noqa: S608 - checked


def read_written(rows: Rows, id_: str) -> WitnessRow:
    """Read the proof from the answer to `write_witness`."""
    return WitnessRow(id_, read_witness_table(rows[0], ""))


def show_durable(*, system: bool) -> str:
    """Ask for what an instance of Aurora shows of itself; `system`: as for `write_witness`."""
    return f"SELECT pg_catalog.pg_is_in_recovery(), {SYSTEM if system else 'NULL'}, {_OWN_ROW}"


def read_durable(rows: Rows) -> DurableEvidence:
    """Read the evidence from the answer to `show_durable`."""
    standby, system, lsn = rows[0]
    return DurableEvidence(system, standby == "t", None if lsn is None else int(lsn))


def ask(proof: LogPosition | WitnessRow | DurablePosition) -> str:
    """Ask a session whether it has replayed what a proof stands for."""
    if isinstance(proof, LogPosition):
        return LOG
    if isinstance(proof, DurablePosition):
        return show_durable(system=proof.system is not None)
    seen = f"SELECT FROM {TABLE} WHERE id OPERATOR(pg_catalog.=) '{check_uuid(proof.id)}'::pg_catalog.uuid AND NOT void"
    system = "NULL" if proof.table.system is None else SYSTEM
    return f"SELECT pg_catalog.pg_is_in_recovery(), EXISTS ({seen}), {PLACE}, {system}"


def read(proof: LogPosition | WitnessRow | DurablePosition, rows: Rows) -> Evidence:
    """Read the evidence from the answer to `ask`."""
    if isinstance(proof, LogPosition):
        return read_log(rows)
    if isinstance(proof, DurablePosition):
        return read_durable(rows)
    return WitnessEvidence(rows[0][0] == "t", rows[0][1] == "t", read_witness_table(rows[0][2:], ""))
