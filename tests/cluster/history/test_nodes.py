"""Back and forth over storage nodes that are processes of their own, striped, and not all there."""

from __future__ import annotations

import pytest

from aurora_router_cluster import errors
from aurora_router_cluster.client.cluster import LocalCluster

from .conftest import Told

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def shared():
    with LocalCluster.start(readers=1, isolated=True, segment_size=1 << 20, detect=0.1) as cluster:
        told = Told(cluster)
        told.run("create table t(i int primary key, filler text)")
        told.run("alter table t alter filler set storage plain")
        told.run("alter table t alter filler set default repeat('x', 1500)")
        yield told


@pytest.fixture
def striped(shared, restored):
    """The module's cluster, its table empty."""
    with restored(shared.cluster):
        shared.run("truncate t")
        yield shared


def nodes_of(cluster) -> list[int]:
    """The six nodes' numbers, in ascending order: 0 to 5 until some are replaced."""
    return sorted(node["node"] for node in cluster.nodes)


def test_nodes_that_were_away_are_filled_on_the_branch_that_is_taken_up(striped, eventually):
    nodes = striped.cluster.nodes
    one, two, three, four, *_ = nodes_of(striped.cluster)
    point = striped.write(1, 2, 3)
    for node in (one, two):
        nodes.down(node)
    striped.run("insert into t select generate_series(100, 900)")
    done = striped.history.backtrack(point)
    assert striped.rows() == [1, 2, 3]
    striped.run("insert into t select generate_series(5000, 5300)")
    for node in (one, two):
        nodes.up(node)
    for node in (three, four):  # each of the others is needed now
        nodes.down(node)
    striped.history.forward(branch=done.left)
    assert striped.rows() == [1, 2, 3, *range(100, 901)]
    eventually(lambda: striped.reads("reader") == striped.rows())
    for node in (three, four):
        nodes.up(node)
    striped.history.forward(branch=done.branch)
    assert striped.rows() == [1, 2, 3, *range(5000, 5301)]
    striped.cluster.failover()
    assert striped.rows() == [1, 2, 3, *range(5000, 5301)]


def test_nodes_that_are_put_in_have_the_branches_that_were_kept(striped):
    nodes = striped.cluster.nodes
    numbers = nodes_of(striped.cluster)
    striped.write(1, 2, 3)
    before = striped.rows()
    point = striped.write(-10)
    striped.write(-11)
    done = striped.history.backtrack(point)
    assert striped.rows() == [-10, *before]
    for node in numbers[:4]:
        nodes.replace(node)
    for node in numbers[4:]:
        nodes.down(node)
    striped.history.forward(branch=done.left)
    assert striped.rows() == [-11, -10, *before]
    for node in numbers[4:]:
        nodes.up(node)


def test_without_a_write_quorum_nothing_changes_but_a_clone_can_be_made(striped):
    point = striped.write(1, 2, 3)
    striped.write(-21)
    before = striped.rows()
    epoch = striped.cluster.status().epoch
    lost = nodes_of(striped.cluster)[:3]
    for node in lost:
        striped.cluster.nodes.down(node)
    with pytest.raises(errors.FailoverImpossibleError, match=r"4 of 6.*nothing has changed"):
        striped.history.backtrack(point)
    assert striped.cluster.status().epoch == epoch
    with striped.history.restore(point, readers=0) as restored:
        assert Told(restored).rows() == before[1:]
    for node in lost:
        striped.cluster.nodes.up(node)
    striped.write(-22)
    assert striped.rows() == [-22, *before]
