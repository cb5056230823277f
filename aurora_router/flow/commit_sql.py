"""The SQL that makes a commit outcome provable: what is sent, and how the answers are read.

Each function builds one message of the simple protocol. Only numbers, ids that were checked, and ids that we drew are
put into the text.

No setting of a session changes what an answer means, whether it comes from the role, the database, the conninfo or the
work itself:

- Names are qualified, operators too: ``search_path`` does not matter. There is no backslash in a literal
  (``standard_conforming_strings``) and no text that depends on ``DateStyle``, ``IntervalStyle``, ``TimeZone``,
  ``extra_float_digits``, ``lc_messages`` or ``client_encoding``: values are integers, LSNs, booleans and ASCII words.
- What a message relies on it sets itself, by SET LOCAL, after the last moment at which other code could set it. For
  COMMIT that is after the deferred triggers: they are the work's code, and would run within COMMIT.
- The resolver's own transaction sets its isolation level and READ WRITE, waits for its replicas, and is cut short by
  none of the server's time limits: the client's applies. ``row_security`` is off, so that a policy that would hide the
  witness raises an error. ``ON CONFLICT (id)`` is an error where no unique index makes an insert wait.

What is left to settings is how durable an acknowledged commit is (``synchronous_commit`` of the user's transaction).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aurora_router.model.commit_token import CommitToken, ServerIncarnation, WitnessTable
from aurora_router.policy.outcome import LogEvidence, WitnessEvidence, XactStatus

if TYPE_CHECKING:
    from aurora_router.flow.runtime import Rows

SCHEMA = "aurora_router"
TABLE = f"{SCHEMA}.witness"

INSTALL = f"""
BEGIN;
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {TABLE} (
  id uuid PRIMARY KEY,
  at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),
  void boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE {TABLE} IS 'aurora-router: one row for each transaction whose outcome can be asked for';
CREATE INDEX IF NOT EXISTS witness_at ON {TABLE} USING brin (at);
GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC;
GRANT SELECT, INSERT ON {TABLE} TO PUBLIC;
COMMIT
"""
"""Everyone may insert and read: an id that is unknown to others until its transaction ended does no harm."""

UNINSTALL = f"BEGIN; DROP TABLE IF EXISTS {TABLE}; DROP SCHEMA IF EXISTS {SCHEMA}; COMMIT"

FLUSHING_EMIT = 170000
"""From this server version on, ``pg_logical_emit_message`` can flush what it wrote."""

TRANSACTION_TIMEOUT = 170000
"""The first server version that knows ``transaction_timeout``."""

READ_ONLY = "25006"
"""SQLSTATE of a write that a reader refuses, or a transaction that is read-only."""

DIVISION_BY_ZERO = "22012"
"""SQLSTATE of a COMMIT whose transaction is not what it was taken for, whose check is refused."""

LACKING = frozenset({"42P01", "3F000", "42501", "42883", "42704", "42703", "0A000", "55000"})
"""SQLSTATEs that mean: no such table, schema, function, parameter or column here; not permitted; not supported.

Amazon Aurora answers 0A000 or 55000 ("wal_level must be set to 'logical'") to functions about the log. Any other error
may be over in a moment: a statement timeout, no memory, a deadlock.
"""

NO_TABLE = frozenset({"42P01", "3F000"})
"""Those that mean only that the table is missing."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STARTED = """(pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())
    OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8"""
"""When the postmaster started, in microseconds since 1970."""
_COMMON = f"""pg_catalog.pg_current_xact_id(), pg_catalog.pg_backend_pid(),
  (pg_catalog.date_part('epoch', pg_catalog.now()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
  {_STARTED}"""
SYSTEM = "(SELECT system_identifier FROM pg_catalog.pg_control_system())"
"""The system identifier; the permission may be revoked."""
PLACE = f"""(SELECT oid FROM pg_catalog.pg_database
    WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),
  '{TABLE}'::pg_catalog.regclass::pg_catalog.oid"""  # noqa: S608 - constants
"""The object ids of the database and of the witness table."""
_LIFE = f"""{SYSTEM},
  pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8),
  pg_catalog.pg_last_wal_replay_lsn()"""
_AUDIBLE = "SET LOCAL client_min_messages TO warning"
"""Lets the warning through that a wait for the replicas was cut short."""
_FINAL = f"SET CONSTRAINTS ALL IMMEDIATE; {_AUDIBLE}; COMMIT"
"""Runs what was deferred, under the settings of the work; nothing of the work runs after that."""


def prune(seconds: float) -> str:
    """Delete witness rows that are older than `seconds`."""
    age = "pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => "
    return f"DELETE FROM {TABLE} WHERE at OPERATOR(pg_catalog.<) ({age}{seconds:f}))"  # noqa: S608 - a number


PROBE = f"""
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  WHERE n.nspname OPERATOR(pg_catalog.=) '{SCHEMA}' AND c.relname OPERATOR(pg_catalog.=) 'witness'
    AND c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relpersistence OPERATOR(pg_catalog.=) 'p' AND NOT c.relrowsecurity
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))
"""  # noqa: S608 - constants
"""Whether the witness table is there, survives a crash, and may be used without a policy in between."""


# ---------------------------------------------------------------- the first message of a transaction


def begin(modes: str) -> str:
    """Begin a transaction of these modes; in one message with what follows it."""
    return f"BEGIN {modes}".rstrip()


def log_mark(server_version: int) -> str:
    """Write the xid to the log, and return the position and the server incarnation.

    Each record carries the xid that is assigned by then, also that of a message which is not transactional; only such
    a one is flushed at once (PostgreSQL documentation, "Replication Management Functions").
    """
    message = "false, 'aurora_router', '', true" if server_version >= FLUSHING_EMIT else "true, 'aurora_router', ''"
    return f"""SELECT {_COMMON},
  pg_catalog.pg_logical_emit_message({message}) OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn,
  pg_catalog.current_setting('restart_after_crash'),
  {_LIFE}"""


def log_token(rows: Rows, server_version: int) -> CommitToken:
    """Read the token from the answer to `log_mark`."""
    xid, pid, began, started, lsn, restarts, *incarnation = map(_require, rows[0][:8])
    flush_proven = server_version >= FLUSHING_EMIT or restarts == "off"
    return CommitToken(
        int(xid),
        int(pid),
        int(began),
        int(started),
        _incarnation(incarnation, started, rows[0][8]),
        lsn=int(lsn),
        flush_proven=flush_proven,
    )


def witness_mark(id_: str, *, system: bool) -> str:
    """Leave a witness row as the transaction's first write; `system`: whether the system identifier is asked for."""
    columns = f"{_COMMON}, {PLACE}, {SYSTEM if system else 'NULL'}"
    return f"INSERT INTO {TABLE} (id) VALUES ('{check_uuid(id_)}'); SELECT {columns}"  # noqa: S608 - checked


def witness_token(rows: Rows, id_: str, database: str) -> CommitToken:
    """Read the token from the answer to `witness_mark`, in a database of that name."""
    xid, pid, began, started = map(_require, rows[0][:4])
    witness_table = read_witness_table(rows[0][4:], database)
    return CommitToken(int(xid), int(pid), int(began), int(started), witness=id_, witness_table=witness_table)


# ---------------------------------------------------------------- its last message


def commit(token: CommitToken | None) -> str:
    """Commit, if the transaction is still the one of the token: else the division fails, and COMMIT is not run.

    A server that stops waiting for the replicas reports it only by a warning, and the work may have hidden warnings.
    """
    if token is None:
        return _FINAL
    return f"SELECT 1 OPERATOR(pg_catalog./) CASE WHEN {_own(token)} THEN 1 ELSE 0 END; {_FINAL}"


def commit_read_only() -> str:
    """Commit a transaction that wrote nothing, so that no replica is waited for; else the division fails.

    The work may have said SET TRANSACTION READ WRITE. Whatever writes takes a transaction id.
    """
    unwritten = "pg_catalog.pg_current_xact_id_if_assigned() IS NULL"
    return f"SELECT 1 OPERATOR(pg_catalog./) CASE WHEN {unwritten} THEN 1 ELSE 0 END; COMMIT"


# ---------------------------------------------------------------- on its own connection, after a failure


def is_own(token: CommitToken) -> str:
    """Ask whether the transaction that is open is the one of the token."""
    return f"SELECT {_own(token)}"


def ask_own(token: CommitToken) -> str:
    """Ask for the status of the token's xid, and whether the backend is the one that ran the transaction.

    While that backend lives, its server has not recovered, so the xid is the transaction's.
    """
    return f"""SELECT pg_catalog.pg_xact_status('{token.xid:d}'::pg_catalog.xid8),
  pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {token.pid:d}
  AND {_STARTED} OPERATOR(pg_catalog.=) {token.started:d}"""


def roll_back(token: CommitToken) -> str:
    """Leave a transaction that failed, and ask as `ask_own` does.

    In one message, so that a pooler has one server answer both.
    """
    return f"ROLLBACK; {ask_own(token)}"


def own_status(rows: Rows) -> XactStatus | None:
    """Read the answer to `ask_own`; None: another backend gave it, or the status is not known any more."""
    status, is_own_backend = rows[0]
    return XactStatus(status) if status is not None and is_own_backend == "t" else None


# ---------------------------------------------------------------- asking for the outcome


def ask_log(token: CommitToken, server_version: int) -> str:
    """Ask by the log position; the emitted message is the barrier, and its xid is above all that were assigned."""
    xid = f"'{token.xid:d}'::pg_catalog.xid8"
    return f"""{_resolve(server_version)};
SELECT CASE WHEN {xid} OPERATOR(pg_catalog.<) pg_catalog.pg_current_xact_id()
    THEN coalesce(pg_catalog.pg_xact_status({xid}), 'forgotten') ELSE 'future' END,
  pg_catalog.pg_last_xact_replay_timestamp() IS NOT NULL,
  (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())
    OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
  pg_catalog.pg_logical_emit_message(true, 'aurora_router', 'barrier'), {_LIFE};
COMMIT"""


def log_evidence(rows: Rows) -> LogEvidence:
    """Read the evidence from the answer to `ask_log`."""
    status, promoted, started, _, *incarnation = map(_require, rows[0][:6])
    return LogEvidence(_incarnation(incarnation, started, rows[0][6]), promoted == "t", XactStatus(status))


def ask_witness(token: CommitToken, server_version: int, id_: str, lock_timeout: float) -> str:
    """Insert the witness once more, void. The second row is the barrier: a conflict alone would write nothing.

    Args:
        token: of the transaction.
        server_version: of the server that is asked.
        id_: of the barrier's row.
        lock_timeout: how long to wait for a living transaction, in seconds.
    """
    witness = check_uuid(token.witness or "")
    began = f"pg_catalog.to_timestamp({token.began:d} OPERATOR(pg_catalog./) 1000000.0)"
    system = "NULL" if token.witness_table is None or token.witness_table.system is None else SYSTEM
    return f"""{_resolve(server_version)}; SET LOCAL lock_timeout TO {max(1, round(lock_timeout * 1000))};
INSERT INTO {TABLE} (id, void) VALUES ('{witness}', true) ON CONFLICT (id) DO NOTHING;
INSERT INTO {TABLE} (id, void) VALUES ('{check_uuid(id_)}', true);
SELECT void,
  pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) {began})::pg_catalog.int8,
  {PLACE}, {system}
FROM {TABLE} WHERE id OPERATOR(pg_catalog.=) '{witness}'::pg_catalog.uuid;
COMMIT"""  # noqa: S608 - checked ids and numbers


def witness_evidence(rows: Rows, database: str) -> WitnessEvidence:
    """Read the evidence from the answer to `ask_witness`, in a database of that name."""
    void, age = map(_require, rows[0][:2])
    return WitnessEvidence(void=void == "t", age=float(age), witness_table=read_witness_table(rows[0][2:], database))


def terminate(token: CommitToken) -> str:
    """End our own backend if it waits for a statement that will never come.

    It is certainly ours: the xid, the backend and the server's start all agree. One that is committing is left
    alone: it would stop waiting for its replicas, and show what they do not have.
    """
    return f"""SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid OPERATOR(pg_catalog.=) {token.pid:d}
  AND a.backend_xid OPERATOR(pg_catalog.=) '{token.xid % 2**32:d}'::pg_catalog.xid
  AND a.state OPERATOR(pg_catalog.=) ANY (ARRAY['idle in transaction', 'idle in transaction (aborted)'])
  AND {_STARTED} OPERATOR(pg_catalog.=) {token.started:d}"""  # noqa: S608 - numbers


def _own(token: CommitToken) -> str:
    own = f"OPERATOR(pg_catalog.=) '{token.xid:d}'::pg_catalog.xid8"
    return f"coalesce(pg_catalog.pg_current_xact_id_if_assigned() {own}, false)"


def _resolve(server_version: int) -> str:
    """Begin a resolver's transaction, with everything set that its answer rests on."""
    limits = ["statement_timeout", "lock_timeout"]
    if server_version >= TRANSACTION_TIMEOUT:
        limits.insert(0, "transaction_timeout")
    unlimited = "; ".join(f"SET LOCAL {limit} TO 0" for limit in limits)
    return (
        f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {unlimited}; {_AUDIBLE}; "
        "SET LOCAL synchronous_commit TO on; SET LOCAL row_security TO off"
    )


def read_witness_table(parts: tuple[str | None, ...], name: str) -> WitnessTable:
    """Read the identity of the witness table from what `PLACE` and `SYSTEM` returned, in a database of that name."""
    database, table, system = parts
    return WitnessTable(system, int(_require(database)), int(_require(table)), name)


def _incarnation(parts: list[str], started: str, recovered: str | None) -> ServerIncarnation:
    system, timeline = parts
    return ServerIncarnation(system, int(timeline, 16), int(started), None if recovered is None else _lsn(recovered))


def _lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _require(value: str | None) -> str:
    if value is None:
        raise ValueError("the server answered NULL where there is always a value")
    return value


def check_uuid(id_: str) -> str:
    """Return the id of a witness, to be put into a statement.

    Raises:
        ValueError: it is not a UUID.
    """
    if _UUID.fullmatch(id_) is None:
        raise ValueError(f"not the id of a witness: {id_!r}")
    return id_
