"""Asking a fresh connection what its server knows of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.flow.world import ConnT, DialFailed, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source
    from aurora_router.model.observation import Topology

PERMISSION_DENIED = "42501"
IN_RECOVERY = "SELECT pg_catalog.pg_is_in_recovery()"


async def ask_topology(
    world: World[ConnT],
    connection: ConnT,
    asked: str,
    sources: Sequence[Source],
    seconds: float,
    refusals: list[DialFailed] | None = None,
) -> tuple[Source, Topology] | None:
    """Let the server behind a connection tell its cluster.

    Recognising the kind of server costs no query of its own: each source is asked as if it were the right one, and
    the first whose functions exist answers.

    Args:
        world: the ground.
        connection: fresh and idle; left so.
        asked: the id that the instance was dialled by.
        sources: to be tried in this order.
        seconds: for each query.
        refusals: takes the answers of servers that are of another kind, or do not permit the query.

    Returns:
        The source that answered and its answer; None when none did, or the user may not ask.

    Raises:
        DialFailed: the connection broke, or no answer came in time.
    """
    for source in sources:
        try:
            rows = await world.ask(connection, source.sql, seconds)
        except DialFailed as failed:
            if failed.fault.sqlstate in source.absent or failed.fault.sqlstate == PERMISSION_DENIED:
                if refusals is not None:
                    refusals.append(failed)
                continue
            raise
        return source, source.read(rows, asked)
    return None


async def ask_standby(world: World[ConnT], cluster: Cluster, connection: ConnT, seconds: float) -> bool:
    """Whether the server is a standby: as reported at start-up where that is to be trusted, else by a query."""
    reported = world.in_hot_standby(connection)
    if reported is not None and cluster.reports_role:
        return reported
    rows = await world.ask(connection, IN_RECOVERY, seconds)
    return rows[0][0] == "t"
