"""The statements about drains: how a topology query reads the notes, and how an operator's command writes them.

The notes are the comment of a role that exists for them alone. Comments of roles are in a shared catalog: each database
of the cluster sees them, they are replicated like all else, and every user may read them. A table would belong to one
database, need a grant for each user, and where it is missing a query of it would be an error in the server's log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.model.drain import DrainNote, read_report, write_notes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router.flow.runtime import Rows

ROLE = "aurora_router_drain"
"""The role whose comment the notes are; it cannot log in, and has no rights."""

# As numeric: how many digits of a float are sent, `extra_float_digits` of the session decides.
_CLOCK = "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::pg_catalog.numeric"
NOTES = f"""CASE WHEN pg_catalog.to_regrole('{ROLE}') IS NOT NULL THEN pg_catalog.format('%s %s',
    {_CLOCK},
    pg_catalog.shobj_description(pg_catalog.to_regrole('{ROLE}')::pg_catalog.oid, 'pg_authid')) END"""
"""An expression: the server's clock and the notes; NULL: nothing was ever drained.

The catalog of comments is read only where the role exists: a user that may not read it notices nothing before.
"""
READ = f"SELECT {NOTES}"
CLOCK = f"SELECT {_CLOCK}"
"""The server's clock, in seconds."""
EXISTS = f"SELECT pg_catalog.to_regrole('{ROLE}') IS NOT NULL"
"""Whether the role is there."""
LOCK = f"SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('{ROLE}'))"
"""Held by a command from its look at the notes until it has written them."""
SESSIONS = """
SELECT COALESCE(NULLIF(a.application_name, ''), '(no application_name)'), pg_catalog.count(*)
FROM pg_catalog.pg_stat_activity AS a JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.usesysid
WHERE a.datid IS NOT NULL AND NOT r.rolsuper
  AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
GROUP BY 1 ORDER BY 2 DESC, 1
"""
"""The sessions with an instance, by application, but for superusers', such as those of Aurora's own `rdsadmin`.

Every user may see so much of them.
"""


def read_column(columns: tuple[str | None, ...]) -> tuple[tuple[DrainNote, float], ...] | None:
    """Read `NOTES` as the rest of a row has it; None: the row has no such column, so nothing is known of drains."""
    return read_report(columns[0]) if columns else None


def read_rows(rows: Rows) -> tuple[tuple[DrainNote, float], ...]:
    """Read the answer to `READ`."""
    return read_report(rows[0][0])


def write(notes: Iterable[DrainNote], *, exists: bool) -> str:
    """Write all notes again, with the role where it is missing; without notes the role is dropped.

    Args:
        notes: all that are to be there.
        exists: whether the role is there.
    """
    text = write_notes(notes)
    if text == "[]":
        return f"DROP ROLE IF EXISTS {ROLE}"
    create = "" if exists else f"CREATE ROLE {ROLE} NOLOGIN; "
    quoted = text.replace("\\", "\\\\").replace("'", "''")
    return f"{create}COMMENT ON ROLE {ROLE} IS E'{quoted}'"
