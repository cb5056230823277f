"""Aurora's names in a statement, as MariaDB understands them: pure functions over the text of one statement.

MariaDB has neither ``@@aurora_server_id`` nor ``information_schema.replica_host_status``, and its readers have
``read_only`` where Aurora's have ``innodb_read_only``. So these names are replaced where they stand as names: not in a
string, a comment or a quoted identifier. Everything else stays as it is, byte for byte.

Two differences to Aurora remain. A column that is named by nothing but ``@@aurora_server_id`` is called as the value; a
prepared statement keeps the rows of the moment when it was prepared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VERSION = "3.10.0"
"""What ``@@aurora_version`` says: a version of Aurora MySQL 3."""
_HINT = re.compile(rb"(?i)aurora|innodb_read_only|replica_host_status")
_CLAUSE = rb"where|order|limit|group|having|on|using|left|right|inner|outer|cross|join|natural|straight_join|union|for"
_TOKEN = re.compile(
    rb"""(?isx)
      (?P<skip> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | /\*.*?\*/ | --[ \t][^\n]* | \#[^\n]* )
    | (?P<table> `?information_schema`?\s*\.\s*`?replica_host_status`? (?![\w$`])
        (?P<alias> \s+ (?: as \s+ )? (?! (?:"""
    + _CLAUSE
    + rb""") \b ) [`\w$]+ )? )
    | (?P<id> @@(?:(?:global|session|local)\s*\.\s*)? `?aurora_server_id`? \b )
    | (?P<version> @@(?:(?:global|session|local)\s*\.\s*)? `?aurora_version`? \b | \baurora_version\s*\(\s*\) )
    | (?P<reads> @@(?:global\s*\.\s*)? `?innodb_read_only`? \b )
    | (?P<quoted> `(?:[^`]|``)*` )
    """
)
_SHOW = re.compile(
    rb"(?is)\s*show\s+(?:global\s+|session\s+)?variables\s+like\s+'(aurora_version|aurora_server_id|innodb_read_only)'"
    rb"\s*;?\s*"
)


@dataclass(frozen=True, slots=True)
class Member:
    """One row of ``replica_host_status``.

    Attributes:
        name: the instance.
        writes: whether it is the writer.
        session_id: what it is called otherwise while it is a reader.
        lag: replica lag in seconds; None: unknown.
        age: seconds since that was measured.
    """

    name: str
    writes: bool
    session_id: str
    lag: float | None
    age: float


def rewrite(statement: bytes, name: str, members: Callable[[], Sequence[Member]]) -> bytes:
    """Return the statement as the instance `name` has to execute it; `members` returns the cluster as of now."""
    if _HINT.search(statement) is None:
        return statement
    shown = _SHOW.fullmatch(statement)
    if shown is not None:
        return _show_variable(shown[1].lower(), name)

    def replace(found: re.Match[bytes]) -> bytes:
        kind = found.lastgroup
        if kind == "id":
            return b"'" + name.encode() + b"'"
        if kind == "version":
            return b"'" + VERSION.encode() + b"'"
        if kind == "reads":
            return b"@@global.read_only"
        if found["table"] is not None:
            return _make_table(members()) + (found["alias"] or b" AS replica_host_status")
        return found[0]

    return _TOKEN.sub(replace, statement)


def _show_variable(variable: bytes, name: str) -> bytes:
    if variable == b"innodb_read_only":
        value = b"IF(@@global.read_only, 'ON', 'OFF')"
    else:
        value = b"'" + (VERSION if variable == b"aurora_version" else name).encode() + b"'"
    return b"SELECT '" + variable + b"' AS Variable_name, " + value + b" AS Value"


def _make_table(members: Sequence[Member]) -> bytes:
    """The rows of ``information_schema.replica_host_status`` as a table of their own."""
    rows = []
    for each in members:
        session = "MASTER_SESSION_ID" if each.writes else each.session_id
        lag = "NULL" if each.lag is None else f"{0.0 if each.writes else each.lag * 1000.0:.3f}"
        rows.append(
            f"SELECT '{each.name}' AS SERVER_ID, '{session}' AS SESSION_ID, {lag} AS REPLICA_LAG_IN_MILLISECONDS, "
            f"CAST(NULL AS DOUBLE) AS CPU, NOW(6) - INTERVAL {int(each.age * 1e6)} MICROSECOND AS LAST_UPDATE_TIMESTAMP"
        )
    if not rows:  # the columns without a row
        rows.append(
            "SELECT NULL AS SERVER_ID, NULL AS SESSION_ID, NULL AS REPLICA_LAG_IN_MILLISECONDS, NULL AS CPU, "
            "NULL AS LAST_UPDATE_TIMESTAMP FROM (SELECT 1 AS one) AS none WHERE one = 2"
        )
    return ("(" + " UNION ALL ".join(rows) + ")").encode()
