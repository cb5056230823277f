"""What a simulated server answers to the service queries, as text, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from aurora_router.flow.causal_sql import LOG
from aurora_router.flow.runtime import POSTGRESQL as SERVICE_QUERIES
from aurora_router.flow.runtime import DialFailed
from aurora_router.flow.topology_query import ENDS, FEATURE_NOT_SUPPORTED, IN_RECOVERY, ROLE, ROLE_AND_CLIENTS
from aurora_router.model.drain import write_notes
from aurora_router.runtime.faults import fault_of
from aurora_router.runtime.simulated.cluster import LSN_PER_SECOND
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL, UNDEFINED_FUNCTION
from aurora_router.runtime.sources.postgresql import POSTGRESQL
from aurora_router.runtime.sources.rds_multi_az import RDS_MULTI_AZ, UNDEFINED_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.runtime import Rows
    from aurora_router.runtime.simulated.connection import SimulatedConnection
    from aurora_router.runtime.simulated.instance import ServingCluster, SimulatedInstance

    Answer = Callable[[SimulatedConnection], Rows]

_AGE = 0.05
"""Age of an up-to-date row about another instance, in seconds."""
_DOMAIN = "abc123.eu-test-1.rds.aurora.test"
"""In the host names that `rds_tools` lists; only their first labels are read."""


def answer(connection: SimulatedConnection, sql: str) -> Rows:
    """The rows that an instance sends on a connection.

    Raises:
        DialFailed: it refuses the query.
        LookupError: the query is not one of the library's own: there is no database here.
    """
    sql = sql.removeprefix(SERVICE_QUERIES.unhindered)
    if sql not in ANSWERS:
        raise LookupError(f"a simulated server knows the library's service queries alone, not {sql!r}")
    return ANSWERS[sql](connection)


def _recovery(connection: SimulatedConnection) -> Rows:
    return [(_standby(connection),)]


def _standby(connection: SimulatedConnection) -> str:
    return "f" if connection.instance.writer else "t"


def _role(connection: SimulatedConnection) -> Rows:
    return [_session(connection)]


def _role_and_clients(connection: SimulatedConnection) -> Rows:
    return [(*_session(connection), str(len(connection.instance.connections)))]


def _session(connection: SimulatedConnection) -> tuple[str | None, ...]:
    return _standby(connection), str(connection.server_pid), str(connection.client_port)


def _ends(connection: SimulatedConnection) -> Rows:
    return [(connection.instance.address, str(connection.cluster.port), str(connection.client_port))]


def _aurora(connection: SimulatedConnection) -> Rows:
    cluster, instance = connection.cluster, connection.instance
    if not cluster.aurora:
        raise new_refusal(UNDEFINED_FUNCTION, "function pg_catalog.aurora_db_instance_identifier() does not exist")
    _permit(instance, "aurora_replica_status")
    now = cluster.now
    since, rows = instance.frozen_view or (now, cluster.rows())
    if instance.rewrites is not None:
        rows = instance.rewrites(rows)
    reported: Rows = []
    for id_, master, lag, cpu, lsn in rows:
        own = id_ == instance.id
        age = None if own else f"{now - since + _AGE:.6f}"
        lag = f"{instance.lag * 1000:g}" if own else lag  # noqa: PLW2901 - it knows its own, however old its view
        row = id_, master, age, lag, cpu, lsn, f"{since - _AGE:.6f}"
        reported.append((*_session(connection), instance.id, *row, _drains(connection)))
    return reported or [
        (*_session(connection), instance.id, *(None,) * 7, _drains(connection))
    ]  # the query's outer join


def _advance(connection: SimulatedConnection) -> Rows:
    connection.cluster.write_record(connection.instance)
    return [("700",)]


def _identify(connection: SimulatedConnection) -> Rows:
    if not connection.cluster.aurora:
        raise new_refusal(UNDEFINED_FUNCTION, "function pg_catalog.aurora_db_instance_identifier() does not exist")
    return [(*_session(connection), connection.instance.id)]


def _plain(connection: SimulatedConnection) -> Rows:
    instance, session = connection.instance, _session(connection)
    _permit(instance, "pg_current_wal_insert_lsn")
    written = connection.cluster.durable_lsn
    if instance.writer:
        return [
            (
                *session,
                f"{instance.timeline:08X}0000000000000001",
                None,
                str(written),
                instance.system,
                _drains(connection),
            )
        ]
    replayed = written - int(instance.lag * LSN_PER_SECOND)
    lag = f"{instance.lag:.6f}"
    return [(*session, None, lag, str(replayed), instance.system, _drains(connection))]


def _drains(connection: SimulatedConnection) -> str | None:
    """What `flow.drain_sql.NOTES` gives."""
    drains = connection.cluster.drains
    return f"{connection.cluster.now} {write_notes(drains)}" if drains else None


def _multi_az(connection: SimulatedConnection) -> Rows:
    cluster, instance = connection.cluster, connection.instance
    _require_rds_tools(cluster)
    (own,) = _plain(connection)
    _, rows = instance.frozen_view or (cluster.now, cluster.rows())
    if instance.rewrites is not None:
        rows = instance.rewrites(rows)
    source = next((id_ for id_, master, *_ in rows if master == "t"), None)
    if instance.writer:
        source = instance.id
    listed = [(id_, _truth(id_ == instance.id), _truth(id_ == source)) for id_, *_ in rows]
    return [(*own, source, is_own, is_source, f"{id_}.{_DOMAIN}") for id_, is_own, is_source in listed] or [
        (*own, source, None, None, None)
    ]  # the query's outer join


def _truth(value: bool) -> str:  # noqa: FBT001 - as PostgreSQL writes it
    return "t" if value else "f"


def _identify_multi_az(connection: SimulatedConnection) -> Rows:
    _require_rds_tools(connection.cluster)
    return [(*_session(connection), f"{connection.instance.id}.{_DOMAIN}")]


def _require_rds_tools(cluster: ServingCluster) -> None:
    if not cluster.multi_az:
        raise new_refusal(UNDEFINED_SCHEMA, 'schema "rds_tools" does not exist')


def _log_position(connection: SimulatedConnection) -> Rows:
    instance, written = connection.instance, connection.cluster.durable_lsn
    if connection.cluster.aurora:
        raise new_refusal(FEATURE_NOT_SUPPORTED, "function pg_last_wal_replay_lsn is not supported")
    if instance.writer:
        return [("f", instance.system, str(written), "f", None, f"{instance.timeline:08X}0000000000000001", "t")]
    replayed = written - int(instance.lag * LSN_PER_SECOND)
    return [("t", instance.system, str(replayed), "t", str(instance.timeline), None, "t")]


def _permit(instance: SimulatedInstance, function: str) -> None:
    if instance.forbids is not None:
        raise new_refusal(instance.forbids, f"permission denied for function {function}")


def new_refusal(sqlstate: str, text: str) -> DialFailed:
    """A query that the server refuses, as psycopg reports it."""
    error = psycopg.errors.lookup(sqlstate)(text)
    return DialFailed(fault_of(error), error)


ANSWERS: dict[str, Answer] = {
    IN_RECOVERY: _recovery,
    ROLE: _role,
    ROLE_AND_CLIENTS: _role_and_clients,
    ENDS: _ends,
    AURORA_POSTGRESQL.sql: _aurora,
    str(AURORA_POSTGRESQL.id_sql): _identify,
    str(AURORA_POSTGRESQL.advance_sql): _advance,
    RDS_MULTI_AZ.sql: _multi_az,
    str(RDS_MULTI_AZ.id_sql): _identify_multi_az,
    POSTGRESQL.sql: _plain,
    LOG: _log_position,
}
"""Service query -> answer; a source of one's own is added here."""
