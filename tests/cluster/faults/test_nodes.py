"""Faults of storage nodes and zones, done to real clusters."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psycopg
import pytest

from aurora_router_cluster import errors
from aurora_router_cluster.faults import disks
from aurora_router_cluster.storage.disk.frames import Draft
from aurora_router_cluster.storage.disk.logfile import FrameLog

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=[False, True], ids=["one process", "isolated"])
def isolated(request):
    return request.param


@pytest.fixture
def is_healed():
    return whole


@pytest.fixture
def cluster(faulty_cluster):
    return faulty_cluster


def connect(cluster):
    return psycopg.connect(cluster.plain_conninfo(), autocommit=True)


def writes(cluster):
    with connect(cluster) as writer:
        writer.execute("insert into ledger values (1)")
    return True


def nodes(cluster):
    return {node["node"]: node for node in cluster.status().volume["nodes"]}


def whole(cluster):
    """All instances answer, and all six copies are complete."""
    found = nodes(cluster).values()
    return (
        all(one.state == "available" for one in cluster.instances)
        and all(node["up"] and not node.get("holes") for node in found)
        and len({node["scl"] for node in found}) == 1
    )


def test_two_nodes_down_cut_off_or_slow_are_not_noticed(cluster, eventually):
    with cluster.faults.node_down(0), cluster.faults.partition("node:3"):
        assert not nodes(cluster)[0]["up"]
        assert writes(cluster)
        assert nodes(cluster)[3]["scl"] != nodes(cluster)[1]["scl"]
    eventually(lambda: whole(cluster))
    with cluster.faults.slow("node:1", latency=0.3), cluster.faults.slow("node:2", bandwidth=1):
        assert writes(cluster)
        cluster.failover()
        assert writes(cluster)
    eventually(lambda: whole(cluster))


def test_three_nodes_cut_off_let_commits_wait_until_they_are_back(cluster):
    with connect(cluster) as writer:
        with contextlib.ExitStack() as cut:
            for number in (0, 2, 4):
                cut.enter_context(cluster.faults.partition(f"node:{number}"))
            writer.pgconn.send_query(b"insert into public.ledger values (3)")
            with connect(cluster) as other:
                assert other.execute("select count(*) from ledger where i = 3").fetchone() == (0,)
            writer.pgconn.consume_input()
            assert writer.pgconn.is_busy()
        while writer.pgconn.get_result() is not None:  # comes back once it is acknowledged
            pass
    with connect(cluster) as other:
        assert other.execute("select count(*) from ledger where i = 3").fetchone() == (1,)


def test_a_zone_down(cluster, eventually):
    old = cluster.instance(cluster.writer)
    with cluster.faults.zone_down(old.zone):
        assert [node["up"] for node in nodes(cluster).values() if node["zone"] == old.zone] == [False, False]
        eventually(lambda: cluster.writer not in {None, old.name})
        assert writes(cluster)
        assert cluster.instance(old.name).pid is None
    assert cluster.instance(old.name).state == "available"


@pytest.mark.case
def test_what_of_a_zone_can_come_back_does_and_the_rest_is_healed_again(cluster, isolated, eventually):
    """Nodes and instances after one that could not start stayed down, and no fault was left to be healed."""
    if not isolated:
        pytest.skip("a node of the supervisor's own process keeps its files open")
    fault = cluster.faults.zone_down("eu-test-1a")
    first = min(node["node"] for node in nodes(cluster).values() if node["zone"] == "eu-test-1a")
    directory = Path(cluster.instance("demo-1").socket_directory).parent / "storage" / f"node-{first}"
    moved = directory.with_name("moved")
    directory.rename(moved)
    directory.write_text("in the way")
    with pytest.raises(errors.EngineError, match=f"node {first} .* did not start"):
        fault.heal()
    eventually(lambda: [node["node"] for node in nodes(cluster).values() if not node["up"]] == [first])
    assert cluster.instance("demo-1").state == "available"
    assert [each.kind for each in cluster.faults.list()] == ["zone-down"]
    directory.unlink()
    moved.rename(directory)
    fault.heal()
    assert cluster.faults.list() == []
    eventually(lambda: whole(cluster))


def test_a_zone_cut_off_cuts_its_nodes_off(cluster, eventually):
    old = cluster.instance(cluster.writer)
    with cluster.faults.partition(old.zone):
        eventually(lambda: cluster.writer not in {None, old.name})
        assert writes(cluster)
        behind = {node["scl"] for node in nodes(cluster).values() if node["zone"] == old.zone}
        ahead = {node["scl"] for node in nodes(cluster).values() if node["zone"] != old.zone}
        assert not behind & ahead


def test_a_flipped_byte_is_found_and_refilled_when_healed(cluster, eventually):
    writes(cluster)
    fault = cluster.faults.corrupt(5)
    assert fault.fault.text == f"{fault.id} corrupt node:5"
    assert [fault.kind for fault in cluster.faults.list()] == ["corrupt"]
    fault.heal()
    eventually(lambda: whole(cluster))
    assert [scrub.lost for scrub in cluster.nodes.scrub()] == [0] * 6


def test_a_flipped_byte_that_a_scrub_healed_is_no_fault_any_more(cluster, eventually):
    writes(cluster)
    fault = cluster.faults.corrupt(3)
    assert [scrub.damaged for scrub in cluster.nodes.scrub()] == [0, 0, 0, 1, 0, 0]
    assert cluster.faults.list() == []
    assert cluster.status().faults == ()
    fault.heal()
    assert [scrub.damaged for scrub in cluster.nodes.scrub()] == [0] * 6
    eventually(lambda: whole(cluster))


def test_a_torn_tail_is_cut_off(cluster, eventually):
    writes(cluster)
    torn = cluster.faults.torn_tail(2)
    assert not torn.fault.in_force
    assert nodes(cluster)[2]["up"]
    writes(cluster)
    eventually(lambda: whole(cluster))


def test_what_is_refused(cluster):
    with pytest.raises(errors.RequestError, match="there is no storage node 17; there are 0, 1"):
        cluster.faults.node_down(17)
    with pytest.raises(errors.RequestError, match="'node:x' is no storage node"):
        cluster.faults.inject("slow", "node:x", latency=0.1)
    with pytest.raises(errors.RequestError, match="unknown zone 'nowhere'"):
        cluster.faults.zone_down("nowhere")
    assert cluster.faults.list() == []


def test_a_torn_tail_is_what_the_log_takes_for_one(tmp_path):
    log = FrameLog.open(tmp_path, sync=False)
    log.append(Draft(1, 1, 0, b"good"))
    end = log.end
    log.close()
    torn = disks.tear(tmp_path)
    again = FrameLog.open(tmp_path, sync=False)
    assert (again.torn, again.end) == (torn, end)
    again.close()


def test_a_flipped_byte_is_found_by_a_scrub(tmp_path):
    log = FrameLog.open(tmp_path, sync=False)
    log.append(*(Draft(1, 1, number, bytes(1000)) for number in range(8)))
    with pytest.raises(errors.RequestError, match=r"offset=100000: .* has"):
        disks.flip_byte(tmp_path, 100_000)
    place = disks.flip_byte(tmp_path, None)
    (damage,) = log.scrub()
    assert damage.position & 0xFFFFFFFF <= place < (damage.position & 0xFFFFFFFF) + damage.length
    log.close()
