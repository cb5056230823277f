from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.commands.demo_failover import Clients, Commit, Count, FailoverRun
from aurora_router_cluster.commands.failover_svg import draw

SVG = "{http://www.w3.org/2000/svg}"


def act(**changes):
    commits = (
        Commit(99.9, 0, 1, "demo-1"), Commit(99.99, 1, 1, "demo-1"), Commit(100.30, 1, 2, "demo-2"),
        Commit(100.31, 0, 2, "demo-1"), Commit(100.32, 0, 3, "demo-2"),
    )  # fmt: skip
    facts = {"began": 100.0, "noticed": 100.01, "promoted": 100.25, "commits": commits}
    return FailoverRun("kill", "demo-1", "demo-2", **{**facts, **changes})


def test_the_timeline_is_in_the_order_of_time():
    assert [(round(at * 1000), what) for at, what in act().events] == [
        (-10, "last ack of demo-1"),
        (0, "demo-1 killed"),
        (10, "noticed"),
        (250, "demo-2 promoted"),
        (300, "first ack of demo-2"),
    ]


def test_a_commit_that_was_found_on_the_successor_is_no_ack_of_the_former_writer():
    played = act()
    assert played.resolved == 1
    assert played.last_ack == 99.99


def test_without_any_ack_of_the_former_writer_the_gap_begins_with_the_fault():
    assert act(commits=(Commit(100.3, 0, 1, "demo-2"),)).last_ack == 100.0


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (Count(7, 0, 0, 0), "7 commits acknowledged: 0 lost, 0 doubled"),
        (Count(7, 1, 2, 3), "7 commits acknowledged: 1 lost, 2 doubled, 3 unknown"),
    ],
)
def test_the_count_says_what_there_is_to_say(count, text):
    assert str(count) == text


def test_the_picture_has_a_dot_for_each_commit_shown_and_a_line_for_each_moment():
    root = ET.fromstring(draw([act(), act(noticed=100.27)], Count(5, 0, 0, 0)))
    old, new = (root.findall(f"{SVG}path[@class='{kind}']") for kind in ("old", "new"))
    assert [each.get("d").count("M") for each in (*old, *new)] == [1, 1, 3, 3]  # the first commit is out of the picture
    assert len(root.findall(f"{SVG}path[@class='mark']")) == 8
    assert len(root.findall(f"{SVG}path[@class='mark bad']")) == 2
    told = " ".join("".join(each.itertext()) for each in root.iter(f"{SVG}text"))
    assert "no ack for 310 ms" in told
    assert "0 lost, 0 doubled" in told
    right = float(root.get("width"))
    assert all(0 < float(each.get("x")) < right for each in root.iter(f"{SVG}text"))


@pytest.mark.cluster
def test_what_is_not_there_counts_as_lost_and_what_is_there_twice_as_doubled():
    with LocalCluster.start(readers=1) as cluster:
        with Clients(cluster, 2) as clients:
            played = clients.act("kill")
        assert played.former == "demo-1"
        assert played.successor == cluster.writer
        assert played.last_ack < played.first_ack
        assert played.noticed > played.began
        true = clients.count()
        assert true == Count(len(clients.commits), 0, 0, len(clients.unknown))
        clients.commits.append(Commit(0.0, 7, 7, "demo-1"))
        with clients._router.connect(autocommit=True) as connection:
            connection.execute("INSERT INTO demo_ledger SELECT client, number FROM demo_ledger WHERE client = 0")
        counted = clients.count()
        assert counted.lost == 1
        assert counted.doubled == sum(each.client == 0 for each in clients.commits) + sum(
            client == 0 for client, _ in clients.unknown
        )
