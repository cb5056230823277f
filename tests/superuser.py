"""A superuser's sessions with a reference cluster, over the instance's Unix socket, which no network fault ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from aurora_router_cluster import LocalCluster


def connect_as_superuser(cluster: LocalCluster, instance: str | None = None) -> psycopg.Connection[Any]:
    """Connect to the database app of an instance, by default the writer, in autocommit mode."""
    found = cluster.instance(instance or cluster.writer)
    return psycopg.connect(host=found.socket_directory, port=found.port, user="postgres", dbname="app", autocommit=True)


def run_as_superuser(cluster: LocalCluster, sql: str) -> None:
    """Run a statement on the writer."""
    with connect_as_superuser(cluster) as conn:
        conn.execute(sql)
