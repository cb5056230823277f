"""The storage nodes of a running cluster, controlled from Python and on the command line."""

from __future__ import annotations

import argparse
import json
import os

import psycopg
import pytest

from aurora_router_cluster import LocalCluster, errors
from aurora_router_cluster.commands import nodes
from aurora_router_cluster.commands.cluster import cluster as command

pytestmark = pytest.mark.cluster


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module", params=[False, True], ids=["one-process", "isolated"])
def shared(request):
    with LocalCluster.start(f"nodes{os.getpid()}", readers=1, isolated=request.param) as cluster:
        yield cluster


@pytest.fixture
def running(shared, restored):
    with restored(shared):
        yield shared


def up(cluster) -> list[int]:
    return sorted(node["node"] for node in cluster.nodes if node["up"])


def members_in(cluster, zone: str) -> list[int]:
    return sorted(node["node"] for node in cluster.nodes if node["zone"] == zone)


def test_a_node_goes_down_and_comes_up_and_is_replaced(running, capsys):
    before = {node["node"]: node["pid"] for node in running.nodes}
    members = up(running)
    stays, one = members_in(running, "eu-test-1a")
    zone = members_in(running, "eu-test-1c")
    assert run("node-down", one, "--name", running.name) == 0
    assert capsys.readouterr().out == f"storage node {one} is down\n"
    assert up(running) == sorted({*members} - {one})
    with psycopg.connect(running.plain_conninfo()) as connection:
        connection.execute("create table if not exists t(i int)")
    running.nodes.up(one)
    after = {node["node"]: node["pid"] for node in running.nodes}
    assert up(running) == members
    isolated = len(set(before.values())) == 6
    assert (after[one] != before[one]) == isolated
    assert all((node["address"] is not None) == isolated for node in running.nodes)
    assert run("replace-node", one, "--name", running.name, "--json") == 0
    new = max(members) + 1
    assert json.loads(capsys.readouterr().out) == {"old": one, "new": new}
    assert running.nodes.replace_zone("eu-test-1c") == dict(zip(zone, (new + 1, new + 2), strict=True))
    assert up(running) == sorted([stays, *members_in(running, "eu-test-1b"), new, new + 1, new + 2])
    assert run("scrub", "--name", running.name) == 0
    assert f"node {new}: 0 damaged, 0 bytes refilled, 0 pieces lost" in capsys.readouterr().out


def test_what_is_not_there_is_named(running, capsys):
    members = ", ".join(map(str, up(running)))
    with pytest.raises(errors.RequestError, match=f"there is no storage node 77; there are {members}"):
        running.nodes.down(77)
    with pytest.raises(errors.RequestError, match=f"node 77 is not a member; members are {members}"):
        running.nodes.replace(77)
    assert run("replace-zone", "mars", "--name", running.name) == 1
    assert "unknown zone 'mars'; storage nodes are in eu-test-1a, eu-test-1b, eu-test-1c" in capsys.readouterr().err


def test_the_direct_flavour_has_no_nodes():
    with LocalCluster.start(readers=0, flavour="direct") as cluster:
        assert list(cluster.nodes) == []
        with pytest.raises(errors.RequestError, match="has no storage nodes: its flavour is 'direct'"):
            cluster.nodes.scrub()


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("64MiB", 64 << 20), ("10gib", 10 << 30), ("8KiB", 8192)])
def test_sizes(text, size):
    assert nodes.segment_size(text) == size


def test_three_nodes_are_given_up(running, capsys):
    with psycopg.connect(running.plain_conninfo(), autocommit=True) as connection:
        connection.execute("drop table if exists kept")
        connection.execute("create table kept as select generate_series(1, 1000) as i")
    assert run("repair", "--force", "--name", running.name) == 1
    assert "nothing has to be given up" in capsys.readouterr().err
    before = running.writer
    members = up(running)
    for node in members[3:]:
        running.nodes.down(node)
    assert run("repair", "--name", running.name) == 1
    assert "repair --force forms a new membership" in capsys.readouterr().err
    done = running.nodes.repair(force=True)
    assert done.survivors == tuple(members[:3])
    assert sorted(done.replaced) == members[3:]
    assert done.failover is not None
    assert done.failover.writer != before
    with psycopg.connect(running.plain_conninfo(), autocommit=True) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (1000,)
        connection.execute("insert into kept values (0)")
