"""The log does not grow without bound, damage is found without being asked for, lost nodes come back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def running():
    with LocalCluster.start(readers=1, base_interval=0, retention=0, base_bytes=12 << 20, scrub_interval=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def kept():
    """Nothing is collected here: all of the log is still needed."""
    with LocalCluster.start(readers=1, isolated=True, base_interval=0, base_bytes=0, scrub_interval=1.0) as cluster:
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
            connection.execute("create table t as select i, repeat('y', 1000) from generate_series(1, 1000) i")
        yield cluster


def volume(cluster) -> dict:
    return cluster.status().volume


def storage(cluster) -> Path:
    return Path(cluster.instances[0].socket_directory).parent / "storage"


def test_the_log_is_forgotten_below_a_base_that_was_taken_by_itself(running, eventually):
    first = volume(running)["first_lsn"]
    with psycopg.connect(running.plain_conninfo(), autocommit=True) as connection:
        connection.execute("create table t(i int, filler text)")
        for turn in range(2):
            fill = "insert into t select i, repeat('x', 1000) from generate_series(%s::int, %s::int) i"
            connection.execute(fill, (turn * 18000 + 1, turn * 18000 + 18000))
            eventually(lambda turn=turn: volume(running)["upkeep"]["bases"] > turn)
    eventually(lambda: volume(running)["first_lsn"] != first)
    eventually(lambda: running.instances[1].lag_ms == 0.0)  # a base ends with a log switch, behind which nothing comes
    added = running.add_reader()
    with psycopg.connect(running.plain_conninfo(f"instance:{added.name}"), autocommit=True) as connection:
        eventually(lambda: connection.execute("select count(*) from t").fetchone() == (36000,))
    running.remove(added.name)
    done = running.failover()
    assert done.writer != done.former
    with psycopg.connect(running.plain_conninfo(), autocommit=True) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (36000,)


def test_a_flipped_byte_is_found_and_refilled_by_itself(kept, eventually):
    eventually(lambda: len({node.get("scl") for node in kept.nodes}) == 1)
    before = volume(kept)["upkeep"]
    frames = max((storage(kept) / "node-2").glob("*.frames"))
    with frames.open("r+b") as file:
        file.seek(-100_000, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x20]))
    eventually(lambda: volume(kept)["upkeep"]["refilled"] > before["refilled"])
    assert volume(kept)["upkeep"]["damaged"] == 1
    eventually(lambda: len({node.get("scl") for node in kept.nodes}) == 1)


def test_a_storage_node_that_was_killed_by_somebody_comes_back_and_is_whole(kept, eventually):
    pid = next(node["pid"] for node in kept.nodes if node["node"] == 4)
    os.kill(pid, signal.SIGKILL)
    with psycopg.connect(kept.plain_conninfo(), autocommit=True) as connection:
        connection.execute("insert into t values (0)")
    eventually(lambda: all(node["up"] for node in kept.nodes))
    assert next(node["pid"] for node in kept.nodes if node["node"] == 4) != pid
    eventually(lambda: len({node.get("scl") for node in kept.nodes}) == 1)
