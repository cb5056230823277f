"""Snapshots, clones, restores: new clusters with the data of a point."""

from __future__ import annotations

import contextlib
import json

import pytest

from aurora_router_cluster import errors
from aurora_router_cluster.client.cluster import LocalCluster

from .conftest import Told

pytestmark = pytest.mark.cluster


@contextlib.contextmanager
def new(cluster):
    with cluster:
        yield Told(cluster)


def identity(told) -> str:
    return told.run("select system_identifier from pg_control_system()")[0][0]


def test_a_clone_is_a_cluster_of_its_own(told, eventually):
    told.write(1, 2)
    with new(told.history.clone(readers=1)) as clone:
        assert clone.rows() == [1, 2]
        assert identity(clone) != identity(told)
        assert clone.cluster.domain != told.cluster.domain
        clone.write(3)
        told.write(4)
        assert (clone.rows(), told.rows()) == ([1, 2, 3], [1, 2, 4])
        eventually(lambda: clone.reads("reader") == [1, 2, 3])
        clone.cluster.failover()
        clone.write(5)
        eventually(lambda: clone.reads("reader") == [1, 2, 3, 5])
        point = clone.write(6)
        clone.write(7)
        clone.history.backtrack(point)  # a clone has its own history
        assert clone.rows() == [1, 2, 3, 5, 6]


def test_restore_to_a_time_and_to_a_position(told):
    point = told.write(1, 2)
    moment = told.clock()
    told.write(3)
    for to in (point, moment):
        with new(told.history.restore(to, readers=0)) as restored:
            assert restored.rows() == [1, 2]
    assert told.rows() == [1, 2, 3]


def test_a_snapshot_is_kept_and_restored_also_from_a_branch_that_was_left(told):
    point = told.write(1)
    told.write(2)
    made = told.history.snapshot("before-the-change")
    assert made in told.history.snapshots()
    told.write(3)
    told.history.backtrack(point)
    with pytest.raises(errors.NameTakenError, match="already"):
        told.history.snapshot("before-the-change")
    with new(told.history.restore(snapshot="before-the-change", readers=0)) as restored:
        assert restored.rows() == [1, 2]
    told.history.delete_snapshot("before-the-change")
    assert told.history.snapshots() == []
    with pytest.raises(errors.TargetError, match="no snapshot 'before-the-change'"):
        told.history.restore(snapshot="before-the-change")


def test_restore_wants_one_point(told):
    with pytest.raises(ValueError, match="a point or a snapshot"):
        told.history.restore()
    with pytest.raises(ValueError, match="not both"):
        told.history.restore("0/1", snapshot="x")


def test_a_cluster_without_such_storage_says_so():
    with LocalCluster.start(readers=0, flavour="direct") as cluster:
        for ask in (
            lambda: cluster.history.backtrack("0/1"),
            lambda: cluster.history.snapshot("x"),
            cluster.history.clone,
            cluster.history.branches,
        ):
            with pytest.raises(errors.RequestError, match="flavour 'direct' has no history"):
                ask()


def test_by_the_command_line(told, capsys):
    from aurora_router.cli.main import main

    def cli(*words: str) -> str:
        assert main(["cluster", *words, "--name", told.cluster.key]) == 0
        return capsys.readouterr().out

    point = told.write(1)
    assert "keeps" in cli("snapshot", "s1")
    told.write(2)
    assert json.loads(cli("snapshots", "--json"))[0]["name"] == "s1"
    assert f"is at {point}" in cli("backtrack", point)
    assert told.rows() == [1]
    assert json.loads(cli("branches", "--json"))["branches"][-1]["closed"] is None
    assert "branch" in cli("forward")
    assert told.rows() == [1, 2]
    try:
        assert "s1-restored" in cli("restore", "s1-restored", "--snapshot", "s1", "--readers", "0")
        assert Told(LocalCluster.attach("s1-restored")).rows() == [1]
    finally:
        LocalCluster.attach("s1-restored").down()
    assert "forgotten" in cli("delete-snapshot", "s1")
    assert main(["cluster", "backtrack", "nonsense", "--name", told.cluster.key]) == 1
    assert "no point in a cluster's history" in capsys.readouterr().err
