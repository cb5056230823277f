"""Topology sources of the MySQL family: Aurora MySQL, and plain MariaDB and MySQL, which report themselves alone.

Sources: Amazon Aurora User Guide, "information_schema.replica_host_status" and "aurora_server_id"; MariaDB and MySQL
reference manuals, "read_only", "Global Transaction ID".

Tokens. There is no monotone number of promotions: neither Aurora MySQL's view nor a GTID has what PostgreSQL calls a
timeline. The position in the binary log is no substitute. A former writer that was cut off goes on writing to its log:
with semi-synchronous replication it does so *before* it waits for an acknowledgement that never comes, so its position
can exceed that of its successor. As a token it would let such a writer win. So rows have no token here, and a new
writer is accepted by rule 5 of `model.reduce` alone: in an outage of the accepted one, by the claimant's own report,
when every other instance has answered, or failed, and none names another.

What MariaDB's GTID does prove is that a reader lacks nothing (rule 9): with ``gtid_strict_mode`` the sequence numbers
of a domain only grow along the log, so a reader that has applied the number which the writer had written has applied
all of it. That counts where both have one domain, which is the `system` of the rows: positions of two domains are not
compared. What a reader wrote itself (``gtid_current_pos`` would count it) proves nothing, so its ``gtid_slave_pos`` is
read. MySQL's GTIDs are sets with a source each, of which one number says nothing: there is no position.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from aurora_router.flow.runtime import ServiceQueries
from aurora_router.flow.source import Source
from aurora_router.model.observation import Row, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.flow.runtime import Rows

_READS = "CONCAT(@@GLOBAL.read_only) NOT IN ('0', 'OFF') OR CONCAT(@@GLOBAL.innodb_read_only) NOT IN ('0', 'OFF')"
"""Whether the server is a reader: Aurora's readers have ``innodb_read_only``, all others ``read_only`` (newer versions
of MariaDB show it as a word)."""
_ROLE = f"IF({_READS}, 't', 'f')"

QUERIES = ServiceQueries(
    ping="SELECT 1",
    role=f"SELECT {_ROLE}, CONNECTION_ID(), NULL",
    role_and_clients=f"SELECT {_ROLE}, CONNECTION_ID(), NULL, NULL",  # no view of counts is common to all servers
    # A server that listens on one address says which one; one that listens on all does not know the session's.
    ends=(
        "SELECT IF(@@GLOBAL.bind_address IN ('*', '0.0.0.0', '::'), NULL, @@GLOBAL.bind_address), @@GLOBAL.port, "
        "(SELECT IF(p.HOST LIKE '%:%', SUBSTRING_INDEX(p.HOST, ':', -1), NULL) "
        "FROM information_schema.PROCESSLIST AS p WHERE p.ID = CONNECTION_ID())"
    ),
)
"""What servers of the family are asked. The port of the client is not asked with the role: it takes a look into the
list of all sessions."""

UNKNOWN_VARIABLE, UNKNOWN_TABLE = "42704", "42P01"

_AURORA_SQL = f"""
SELECT {_ROLE}, CONNECTION_ID(), NULL, @@aurora_server_id, s.server_id, s.session_id = 'MASTER_SESSION_ID',
  TIMESTAMPDIFF(MICROSECOND, s.last_update_timestamp, NOW(6)) / 1000000, s.replica_lag_in_milliseconds, s.cpu,
  UNIX_TIMESTAMP(s.last_update_timestamp)
FROM (SELECT 1 AS one) AS o LEFT JOIN information_schema.replica_host_status AS s ON o.one = 1
"""
_MARIADB_SQL = f"""
SELECT {_ROLE}, CONNECTION_ID(), NULL, @@GLOBAL.gtid_strict_mode,
  IF({_READS}, @@GLOBAL.gtid_slave_pos, @@GLOBAL.gtid_binlog_pos)
"""
_MYSQL_SQL = f"SELECT {_ROLE}, CONNECTION_ID(), NULL"

_ID = r"[0-9a-z_-]{1,63}"
_SHOWN = 40


def _read_aurora(rows: Rows, asked: str) -> Topology:  # noqa: ARG001 - the server knows its own id
    standby, id_ = (rows[0][0], rows[0][3]) if rows else (None, None)
    observer = _identifier(id_)
    reported = [row[4:] for row in rows if any(value is not None for value in row[4:])]
    malformed = tuple(
        "NULL" if row[0] is None else repr(row[0][:_SHOWN]) for row in reported if not _identifier(row[0])
    )
    return Topology(
        tuple(_row(*row, observer=observer) for row in reported if _identifier(row[0])),
        observer,
        None if standby is None else standby == "f",
        malformed=malformed,
    )


def _row(
    id_: str | None,
    writer: str | None,
    age: str | None,
    lag: str | None,
    cpu: str | None,
    updated: str | None,
    *,
    observer: str | None,
) -> Row:
    id_ = _identifier(id_) or ""
    milliseconds, seconds, percent = _number(lag), _number(age), _number(cpu)
    return Row(
        id=id_,
        writer=writer == "1",
        age=None if id_ == observer or seconds is None else max(0.0, seconds),
        lag=None if milliseconds is None or milliseconds < 0.0 else milliseconds / 1000.0,
        cpu=None if percent is None or percent < 0.0 else percent,
        updated=_number(updated),
    )


def _identifier(text: str | None) -> str | None:
    """An instance's id in lower case; None: it is none."""
    if text is None or not text.isascii():
        return None
    return text.lower() if re.fullmatch(_ID, text.lower()) else None


def _number(text: str | None) -> float | None:
    """A finite number; None for NULL and everything else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _read_aurora_id(rows: Rows) -> str | None:
    return _identifier(rows[0][3])


def _read_mariadb(rows: Rows, asked: str) -> Topology:
    standby, _, _, strict, position = rows[0]
    domain, sequence = _read_gtid(position) if strict == "1" else (None, None)
    writer = standby == "f"
    row = Row(asked, writer=writer, lag=0.0 if writer else None, system=domain, lsn=sequence)
    return Topology((row,), asked, writer, complete=False)


def _read_gtid(text: str | None) -> tuple[str | None, int | None]:
    """The domain and the sequence number of a position of MariaDB's; None: it has not one domain."""
    found = re.fullmatch(r"(\d{1,10})-\d{1,10}-(\d{1,20})", text or "")
    return (None, None) if found is None else (f"GTID domain {found[1]}", int(found[2]))


def _read_mysql(rows: Rows, asked: str) -> Topology:
    writer = rows[0][0] == "f"
    row = Row(asked, writer=writer, lag=0.0 if writer else None)
    return Topology((row,), asked, writer, complete=False)


AURORA_MYSQL = Source(
    name="aurora",
    sql=_AURORA_SQL,
    read=_read_aurora,
    absent=frozenset({UNKNOWN_VARIABLE, UNKNOWN_TABLE}),
    servers="Aurora MySQL",
    id_sql=f"SELECT {_ROLE}, CONNECTION_ID(), NULL, @@aurora_server_id",
    read_id=_read_aurora_id,
)
MARIADB = Source(
    name="mariadb",
    sql=_MARIADB_SQL,
    read=_read_mariadb,
    absent=frozenset({UNKNOWN_VARIABLE}),
    complete=False,
    servers="MariaDB",
)
MYSQL = Source(name="mysql", sql=_MYSQL_SQL, read=_read_mysql, complete=False, servers="MySQL")

BUILT_IN: Mapping[str, tuple[str, str]] = {
    "aurora": ("aurora_router_mysql.sources", "AURORA_MYSQL"),
    "mariadb": ("aurora_router_mysql.sources", "MARIADB"),
    "mysql": ("aurora_router_mysql.sources", "MYSQL"),
}
"""Name -> the module and the attribute; ``auto`` tries them in this order."""
