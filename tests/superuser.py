"""A superuser's sessions with a reference cluster, over the instance's Unix socket, which no network fault ends."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster import LocalCluster


def connect_as_superuser(cluster: LocalCluster, instance: str | None = None) -> psycopg.Connection[Any]:
    """Connect to the database app of an instance, by default the writer, in autocommit mode."""
    found = cluster.instance(instance or cluster.writer)
    return psycopg.connect(host=found.socket_directory, port=found.port, user="postgres", dbname="app", autocommit=True)


def run_as_superuser(cluster: LocalCluster, sql: str) -> None:
    """Run a statement on the writer."""
    with connect_as_superuser(cluster) as conn:
        conn.execute(sql)


@contextmanager
def hold_replay(cluster: LocalCluster) -> Iterator[None]:
    """Let no reader replay anything meanwhile."""
    for name in cluster.readers:
        with connect_as_superuser(cluster, name) as conn:
            conn.execute("SELECT pg_wal_replay_pause()")
            until = time.monotonic() + 45
            while conn.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
                assert time.monotonic() < until, f"{name} does not pause"
                time.sleep(0.01)
    try:
        yield
    finally:
        for name in cluster.readers:
            with connect_as_superuser(cluster, name) as conn:
                conn.execute("SELECT pg_wal_replay_resume()")
