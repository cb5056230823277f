from __future__ import annotations

import psycopg
import pytest

from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.errors import ClusterError


class Told:
    """A cluster, and what its writer and its reader say."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.history = cluster.history

    def run(self, sql: str, *parameters, target: str = "writer"):
        with psycopg.connect(self.cluster.plain_conninfo(target), autocommit=True) as connection:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def rows(self, target: str = "writer") -> list[int]:
        return [row[0] for row in self.run("select i from t order by i", target=target)]

    def reads(self, target: str) -> list[int] | None:
        """`rows` of a reader, None while it does not answer, or has not replayed that there is such a table."""
        try:
            return self.rows(target)
        except (psycopg.Error, ClusterError):
            return None

    def write(self, *numbers: int) -> str:
        """Commit a row each; returns the position behind."""
        for number in numbers:
            self.run("insert into t values (%s)", number)
        return self.run("select pg_current_wal_insert_lsn()::text")[0][0]

    def clock(self):
        """The writer's time, later than any commit so far."""
        return self.run("select clock_timestamp()")[0][0]


@pytest.fixture(scope="module")
def _shared():
    with LocalCluster.start(readers=2, detect=0.1) as cluster:
        told = Told(cluster)
        told.run("create table t(i int primary key)")
        yield told


@pytest.fixture
def told(_shared):
    """The module's cluster, its table empty."""
    _shared.run("truncate t")
    return _shared
