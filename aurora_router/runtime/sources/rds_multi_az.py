"""RDS Multi-AZ DB clusters: one writer and two readable standbys, each of which lists all by ``rds_tools``.

Source: AWS Advanced JDBC Wrapper, "RDS Multi-AZ DB Clusters"; Amazon RDS User Guide, "Multi-AZ DB cluster deployments".

It is PostgreSQL's own replication. So an instance reports its role, timeline and position itself, as plain PostgreSQL
does, and a claim without a timeline changes no writer that is accepted. What `rds_tools` adds is the list of instances,
and which of them replication comes from. That is what the observer has heard of, so its rows about others have no
token: they name a writer to a process that knows none yet, and afterwards only the instances' own reports count.

A row has the id of a resource and a full host name; an instance's id here is the first label of the latter, by which
its name follows from the endpoint or from ``aurora_instance_host``, as with Aurora. A single RDS instance may have the
functions as well, for blue/green deployments; it has no source of replication, and is plain PostgreSQL.

While an instance restarts it refuses logins with 28000, for a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.flow.drain_sql import read_column
from aurora_router.flow.source import OtherKind, Source
from aurora_router.flow.topology_query import ROLE
from aurora_router.model.observation import Row, Topology
from aurora_router.runtime.sources.aurora_postgresql import UNDEFINED_FUNCTION
from aurora_router.runtime.sources.identifiers import format_identifier, read_identifier
from aurora_router.runtime.sources.postgresql import COLUMNS, OWN, read_own

if TYPE_CHECKING:
    from aurora_router.flow.runtime import Rows

_CLIENT = "aurora-router"
_SQL = f"""
SELECT own.*, ids.source, ids.id OPERATOR(pg_catalog.=) t.id::pg_catalog.text,
  ids.source OPERATOR(pg_catalog.=) t.id::pg_catalog.text, t.endpoint
FROM ({OWN}) AS own
  CROSS JOIN (SELECT rds_tools.dbi_resource_id()::pg_catalog.text AS id,
    rds_tools.multi_az_db_cluster_source_dbi_resource_id()::pg_catalog.text AS source) AS ids
  LEFT JOIN rds_tools.show_topology('{_CLIENT}') AS t ON true
"""  # noqa: S608 - of constants
_ID_SQL = f"""{ROLE}, (SELECT t.endpoint FROM rds_tools.show_topology('{_CLIENT}') AS t
  WHERE t.id::pg_catalog.text OPERATOR(pg_catalog.=) rds_tools.dbi_resource_id()::pg_catalog.text LIMIT 1)"""  # noqa: S608 - of constants

UNDEFINED_SCHEMA = "3F000"
INVALID_AUTHORIZATION = "28000"


def _read(rows: Rows, asked: str) -> Topology:
    if not rows or rows[0][COLUMNS] is None:
        raise OtherKind("it has no source of replication")
    own = rows[0][:COLUMNS]
    listed = [(_label(endpoint), is_own == "t", is_source == "t") for *_, is_own, is_source, endpoint in rows]
    observer = next((id_ for id_, is_own, _ in listed if is_own), None)
    is_writer = own[0] == "f"
    about_others = [Row(id_, writer=is_source) for id_, is_own, is_source in listed if id_ is not None and not is_own]
    itself = read_own(own, asked if observer is None else observer)
    return Topology(
        (itself, *(row for row in about_others if row.id != itself.id)),
        itself.id,
        is_writer,
        complete=observer is not None,
        malformed=tuple(format_identifier(row[-1]) for row in rows if row[-1] is not None and _label(row[-1]) is None),
        monotone=True,
        drains=read_column(own[7:]),
    )


def _label(endpoint: str | None) -> str | None:
    """The id of an instance, from its full host name; None: it is none."""
    return None if endpoint is None else read_identifier(endpoint.partition(".")[0])


def _read_id(rows: Rows) -> str | None:
    return _label(rows[0][3])


RDS_MULTI_AZ = Source(
    name="multi_az",
    sql=_SQL,
    read=_read,
    absent=frozenset({UNDEFINED_FUNCTION, UNDEFINED_SCHEMA}),
    servers="an RDS Multi-AZ DB cluster",
    id_sql=_ID_SQL,
    read_id=_read_id,
    temporary=frozenset({INVALID_AUTHORIZATION}),
    grant="GRANT USAGE ON SCHEMA rds_tools, and EXECUTE ON ALL FUNCTIONS IN SCHEMA rds_tools",
    install="an instance of an RDS Multi-AZ DB cluster: CREATE EXTENSION rds_tools",
)
