"""The largest cluster there is, and a volume of many protection groups."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.postgres import processes
from aurora_router_cluster.storage.volume_status import SHOWN_GROUPS

pytestmark = pytest.mark.cluster

MOST = 24 << 30  # bytes


def connect(cluster, target="writer"):
    return psycopg.connect(cluster.plain_conninfo(target), autocommit=True)


def memory(cluster) -> dict[str, int]:
    """Proportional set sizes in bytes of the processes, and the size of the files, which may be on tmpfs."""
    status = cluster.status()
    nodes = [node["pid"] for node in status.volume["nodes"]]
    postmasters = [one.pid for one in status.instances if one.pid is not None]
    servers = [pid for postmaster in postmasters for pid in (postmaster, *processes.children(postmaster))]
    run = Path(status.instances[0].socket_directory).parent
    files = sum(path.stat().st_blocks * 512 for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        "supervisor": resident([status.supervisor]), "storage nodes": resident(nodes), "instances": resident(servers),
        "files": files,
    }  # fmt: skip


def resident(pids) -> int:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it ended meanwhile
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifteen_readers_over_six_nodes_of_their_own_start_serve_and_fail_over(eventually):
    with LocalCluster.start(readers=15, isolated=True) as cluster:
        assert len(cluster.readers) == 15
        assert len({node["pid"] for node in cluster.nodes}) == 6
        with connect(cluster) as connection:
            connection.execute("create table t as select generate_series(1, 10000) as i")
        for name in cluster.readers:
            with connect(cluster, f"instance:{name}") as reader:
                eventually(lambda reader=reader: rows(reader) == 10000)
        used = memory(cluster)
        print({part: f"{size / 2**20:.0f} MiB" for part, size in used.items()})
        assert sum(used.values()) < MOST
        former = cluster.writer
        cluster.kill(former)
        eventually(lambda: cluster.writer not in {None, former})
        with connect(cluster) as connection:
            connection.execute("insert into t values (0)")
        eventually(lambda: sum(one.state == "available" for one in cluster.instances) == 16, timeout=120)
        for name in cluster.readers:
            with connect(cluster, f"instance:{name}") as reader:
                eventually(lambda reader=reader: rows(reader) == 10001)


def rows(connection) -> int:
    if connection.execute("select to_regclass('t')").fetchone() == (None,):
        return 0
    return connection.execute("select count(*) from t").fetchone()[0]


@pytest.mark.slow
def test_a_striped_volume_grows_by_eight_groups_and_fails_over(eventually):
    with LocalCluster.start(readers=1, segment_size=4 << 20) as cluster:
        with connect(cluster) as connection:
            connection.execute("create table t(i int, filler text)")
            first, turns = cluster.status().volume["groups"], 0
            while cluster.status().volume["groups"] < first + 8:
                connection.execute("insert into t select i, repeat('x', 500) from generate_series(1, 4000) i")
                turns += 1
                assert turns < 30
        cluster.nodes.down(3)
        cluster.kill(cluster.writer)
        eventually(lambda: cluster.status().epoch == 2)
        cluster.nodes.up(3)
        with connect(cluster) as connection:
            assert rows(connection) == turns * 4000
            connection.execute("insert into t values (0, 'after')")
        volume = cluster.status().volume
        assert volume["groups"] >= first + 8
        assert len(volume["pgcl"]) == min(volume["groups"], SHOWN_GROUPS)
        eventually(lambda: len({node.get("scl") for node in cluster.nodes}) == 1)
