"""A bulk load on the real cluster: what readers are sent can be replayed as it comes."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from aurora_router_cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]

BROKEN = re.compile("incorrect resource manager data checksum|invalid magic number|contrecord|unexpected pageaddr")


@pytest.mark.case
def test_replay_does_not_break_under_a_bulk_load(eventually):
    with LocalCluster.start(readers=2) as cluster:
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
            for number in range(5):
                connection.execute(
                    f"create table t{number} as select i, repeat(md5(i::text), i % 20) from generate_series(1, 60000) i"
                )
        for name in cluster.readers:
            eventually(lambda name=name: has_table(cluster, name, "t4"))
        for name in cluster.readers:
            printed = (Path(cluster.instance(name).socket_directory) / "log").read_text(encoding="utf-8")
            assert not BROKEN.findall(printed)
            assert printed.count("started streaming") == 1


def has_table(cluster, name: str, table: str) -> bool:
    with psycopg.connect(cluster.plain_conninfo(f"instance:{name}"), autocommit=True) as connection:
        return connection.execute("select to_regclass(%s) is not null", (table,)).fetchone() == (True,)
