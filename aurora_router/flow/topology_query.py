"""Queries of a server on a fresh connection: the topology, its role, its id."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from aurora_router.errors import ExtensionFailed
from aurora_router.flow.runtime import POSTGRESQL, ConnT, DialFailed, Runtime
from aurora_router.flow.source import OtherKind
from aurora_router.model.bounds import forget_oldest
from aurora_router.model.instance import Occupancy
from aurora_router.model.observation import LoadReport
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.role_reports import RoleCheck
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Rows, Wanted
    from aurora_router.flow.source import Source
    from aurora_router.model.observation import Row, Topology

PERMISSION_DENIED = "42501"
QUERY_CANCELED, FEATURE_NOT_SUPPORTED = "57014", "0A000"
ADVANCE_SECONDS, ADVANCE_LIMIT = 1.0, 0.5
"""How often this process adds a record to the log of one instance, at most, and how long it waits for that; in seconds.
An instance that the storage has fenced may not answer at all."""
TRIES = 4
"""How often a query is sent that a time limit cuts short; the limit counts for the SET before it, too."""
IN_RECOVERY = POSTGRESQL.ping
ROLE = POSTGRESQL.role
"""The role of the server, and what shows whether the session leads straight to it; see `policy.role_reports`."""
ROLE_AND_CLIENTS = POSTGRESQL.role_and_clients
ENDS = POSTGRESQL.ends
"""How the server sees both ends of the connection; see `policy.paths`."""


TopologyAnswer = tuple["Source", "Topology", "RoleCheck | None"]
"""Which source answered, what it said, and how the role was learned, if that was asked."""
Refusal = tuple["Source", DialFailed]
"""A source, and how a server refused its query."""


async def query_topology(
    runtime: Runtime[ConnT],
    connection: ConnT,
    asked: str,
    sources: Sequence[Source],
    seconds: float,
    refusals: list[Refusal] | None = None,
    wanted: Wanted | None = None,
    *,
    by_id: bool = False,
) -> TopologyAnswer | None:
    """Ask the server behind a connection for the topology of its cluster.

    Recognising the kind of server costs no query of its own: each source is asked as if it were the right one, and
    the first whose functions exist answers.

    Args:
        runtime: does the I/O.
        connection: fresh and idle; left so.
        asked: the id that the instance was dialled by.
        sources: to be tried in this order.
        seconds: for each query.
        refusals: collects which sources a server refused, because it is of another kind or does not permit the query.
        wanted: whether the answer is still worth waiting for.
        by_id: see `Topology.by_id`.

    Returns:
        The source that answered, its answer, and what that shows of the session (None: there were no rows); None when
        none answered, or the user may not ask.

    Raises:
        DialFailed: the connection broke, or no answer came in time.
        ExtensionFailed: a source could not read the answer.
    """
    for source in sources:
        before, asked_at = runtime.in_hot_standby(connection), runtime.now()
        try:
            rows = await ask(runtime, connection, source.sql, seconds, wanted)
        except DialFailed as failed:
            if failed.fault.sqlstate in source.absent or failed.fault.sqlstate == PERMISSION_DENIED:
                if refusals is not None:
                    refusals.append((source, failed.with_traceback(None)))  # whose frames would keep the connection
                continue
            raise
        try:
            topology = _with_lag_times(source.read(rows, asked), asked_at)
            check = _read_role_check(runtime, connection, rows, before=before) if rows else None
        except OtherKind:
            continue
        except Exception as error:
            raise ExtensionFailed(
                f"the topology source {source.name} could not read the answer of {asked} "
                f"({type(error).__name__}: {error}): correct its sql or its function read"
            ) from error
        return source, replace(topology, asked_at=asked_at, by_id=by_id), check
    return None


async def ask(
    runtime: Runtime[ConnT], connection: ConnT, sql: str, seconds: float, wanted: Wanted | None = None
) -> Rows:
    """Send a service query, without the settings of the session that kept it from an answer: they are for users.

    Its statement_timeout may cut the query short; where its transactions are serializable a standby refuses it; where
    they are deferrable and read-only, too, it would wait until no other serializable transaction is open.

    The messages of several statements are one transaction, and the time limit counts for each of them.
    """
    if runtime.may_wait_for_snapshot(connection):
        sql = runtime.queries.unhindered + sql
    for _ in range(TRIES - 1):
        try:
            return await runtime.ask(connection, sql, seconds, wanted)
        except DialFailed as failed:
            is_unhindered = sql.startswith(runtime.queries.unhindered)
            worth_another = {QUERY_CANCELED} if is_unhindered else {QUERY_CANCELED, FEATURE_NOT_SUPPORTED}
            if failed.fault.sqlstate not in worth_another:
                raise
        if not is_unhindered:
            sql = runtime.queries.unhindered + sql
    return await runtime.ask(connection, sql, seconds, wanted)


def _with_lag_times(topology: Topology, asked_at: float) -> Topology:
    """The answer with the time of each lag: an instance's own is as new as the question, others' have an age."""

    def date(row: Row) -> float | None:
        if row.id == topology.observer:
            return asked_at
        return None if row.age is None else asked_at - row.age

    return replace(topology, rows=tuple(replace(row, lag_at=date(row)) for row in topology.rows))


async def check_role(
    runtime: Runtime[ConnT],
    cluster: Cluster,
    connection: ConnT,
    seconds: float,
    wanted: Wanted | None = None,
) -> RoleCheck:
    """Ask the server for its role; the answer also shows whether the reports on that path are to be believed.

    Raises:
        DialFailed: the connection broke, or no answer came in time.
    """
    return (await _query_role(runtime, cluster, connection, runtime.queries.role, seconds, wanted))[0]


async def count_clients(
    runtime: Runtime[ConnT], cluster: Cluster, connection: ConnT, instance: str, seconds: float
) -> RoleCheck:
    """Ask an instance for its role, and in the same query for its client connections, which change the view.

    Raises:
        DialFailed: the connection broke, or no answer came in time.
    """
    asked_at, own = runtime.now(), cluster.connections(instance)
    check, rows = await _query_role(runtime, cluster, connection, runtime.queries.role_and_clients, seconds, None)
    clients = rows[0][3]
    if clients is not None:
        occupancy = Occupancy(max(0, int(clients) - 1), own, asked_at)
        cluster.observe(LoadReport(instance, occupancy), runtime.now())
    return check


async def identify(
    runtime: Runtime[ConnT],
    cluster: Cluster,
    connection: ConnT,
    source: Source,
    seconds: float,
    wanted: Wanted | None = None,
) -> tuple[str | None, bool]:
    """Return the id of the server behind a connection, or None if it reports none, and whether it is a standby.

    Raises:
        DialFailed: the connection broke, or no answer came in time.
    """
    assert source.id_sql is not None, "the caller asks sources that have ids"
    check, rows = await _query_role(runtime, cluster, connection, source.id_sql, seconds, wanted)
    return source.read_id(rows), check.standby


async def _query_role(
    runtime: Runtime[ConnT], cluster: Cluster, connection: ConnT, sql: str, seconds: float, wanted: Wanted | None
) -> tuple[RoleCheck, Rows]:
    before = runtime.in_hot_standby(connection)
    rows = await ask(runtime, connection, sql, seconds, wanted)
    check = _read_role_check(runtime, connection, rows, before=before)
    cluster.update(ClusterState.record_role_check, runtime.path(connection), check, runtime.now())
    return check, rows


def _read_role_check(runtime: Runtime[ConnT], connection: ConnT, rows: Rows, *, before: bool | None) -> RoleCheck:
    standby, pid, port = rows[0][:3]
    return RoleCheck(
        standby=standby == "t",
        reported=(before, runtime.in_hot_standby(connection)),
        same_backend=pid == str(runtime.backend_pid(connection)),
        same_port=port is not None and port == str(runtime.local_port(connection)),
    )


async def advance_log(
    runtime: Runtime[ConnT],
    cluster: Cluster,
    connection: ConnT,
    instance: str | None,
    wanted: Wanted | None = None,
) -> bool:
    """Add a record to the log of an instance that is believed to be the writer only if its log grows.

    A former writer that was promoted again and one that is fenced say the same. The log of the first one grows, but by
    itself only if a client writes; that of the second one cannot (rule 5 of `model.reduce`). The next answer shows it.

    Returns:
        Whether the connection can be used on: False if no answer came.
    """
    sql, now = None if cluster.source is None else cluster.source.advance_sql, runtime.now()
    if sql is None or instance is None or not cluster.view.lacks_growth(instance):
        return True
    if now - cluster.log_advanced_at.get(instance, -math.inf) < ADVANCE_SECONDS:
        return True
    cluster.log_advanced_at[instance] = now
    forget_oldest(cluster.log_advanced_at)
    try:
        await ask(runtime, connection, sql, ADVANCE_LIMIT, wanted)
    except DialFailed as failed:
        return failed.fault.kind is FaultKind.REJECTED
    return True


def find_impostor(dialled: str, topology: Topology) -> str | None:
    """Explain why the server at an instance's address is not that instance; None: it is, or reports no id."""
    observer = topology.observer
    if observer is None or observer.lower() == dialled.lower():
        return None
    return f"{dialled} is not there any more: {observer} answers in its place"
