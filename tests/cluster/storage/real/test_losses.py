"""What a whole cluster survives: any two nodes, any zone; what waits with three nodes down; what three still serve."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import psycopg
import pytest

from aurora_router_cluster import ClusterError, LocalCluster
from aurora_router_cluster.lsn import parse_lsn

pytestmark = pytest.mark.cluster

ZONES = ("eu-test-1a", "eu-test-1b", "eu-test-1c")


@pytest.fixture(scope="module", params=[False, True], ids=["one-process", "isolated"])
def shared(request):
    with LocalCluster.start(readers=1, isolated=request.param) as made:
        with connect(made) as connection:
            connection.execute("create table t(i int)")
        yield made


@pytest.fixture
def cluster(shared, restored, eventually):
    """The module's cluster, its table empty."""
    with restored(shared):
        with connect(shared) as connection:
            connection.execute("truncate t")
        with connect(shared, "reader") as reader:
            eventually(lambda: has_table(reader))
            eventually(lambda: reader.execute("select count(*) from t").fetchone() == (0,))
        yield shared


@contextlib.contextmanager
def down(cluster, *nodes):
    for node in nodes:
        cluster.nodes.down(node)
    try:
        yield
    finally:
        for node in nodes:
            cluster.nodes.up(node)


def connect(cluster, target="writer"):
    return psycopg.connect(cluster.plain_conninfo(target), autocommit=True)


def whole(cluster) -> bool:
    """Whether all six copies hold everything."""
    return len({(node.get("scl"), node.get("epoch")) for node in cluster.nodes}) == 1


def has(connection, number: int) -> bool:
    return connection.execute("select count(*) from t where i = %s", (number,)).fetchone() == (1,)


def nodes_of(cluster) -> list[int]:
    """The six nodes' numbers, those of a zone beside each other: 0 to 5 until some are replaced."""
    nodes = sorted((node["zone"], node["node"]) for node in cluster.nodes)
    assert [zone for zone, _ in nodes] == sorted(2 * ZONES)
    return [number for _, number in nodes]


def test_commits_go_on_with_any_zone_down(cluster, eventually):
    nodes = nodes_of(cluster)
    go_on_without(cluster, eventually, [nodes[:2], nodes[2:4], nodes[4:]], 500)


@pytest.mark.slow
def test_commits_go_on_with_any_two_nodes_down(cluster, eventually):
    go_on_without(cluster, eventually, itertools.combinations(nodes_of(cluster), 2), 1000)


def go_on_without(cluster, eventually, pairs, first: int) -> None:
    with connect(cluster) as writer, connect(cluster, "reader") as reader:
        for number, pair in enumerate(pairs, first):
            with down(cluster, *pair):
                writer.execute("insert into t values (%s)", (number,))
                eventually(lambda number=number: has(reader, number))
            eventually(lambda: whole(cluster))


class Waiting(threading.Thread):
    """A commit in a thread of its own."""

    def __init__(self, cluster, number: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.acked = 0.0
        self._connection = connect(cluster)
        self.start()

    def run(self) -> None:
        with self._connection as connection:
            connection.execute("insert into t values (%s)", (self.number,))
            self.acked = time.monotonic()


def test_with_three_down_commits_wait_are_seen_nowhere_and_go_through_after_healing(cluster, eventually):
    healed: list[float] = []
    nodes = nodes_of(cluster)
    with connect(cluster) as watcher, connect(cluster, "reader") as reader:
        for number, three in enumerate(
            [(0, 1, 2), (1, 3, 5), (0, 2, 4), (3, 4, 5)][: 4 if len(pids(cluster)) == 1 else 2], 2000
        ):
            one, two, third = (nodes[each] for each in three)
            with down(cluster, one, two):
                with down(cluster, third):
                    waiting = Waiting(cluster, number)
                    eventually(lambda: under_way(cluster))
                    assert not has(watcher, number)
                    assert not has(reader, number)
                    assert not waiting.acked
                    began = time.monotonic()
                waiting.join(30)
                assert waiting.acked
                healed.append(waiting.acked - began)
                eventually(lambda number=number: has(reader, number))
            eventually(lambda: whole(cluster))
    print("acknowledged after the heal was asked for:", ", ".join(f"{seconds * 1e3:.0f} ms" for seconds in healed))


def pids(cluster) -> set[int]:
    return {node["pid"] for node in cluster.nodes}


def under_way(cluster) -> bool:
    volume = cluster.status().volume
    return parse_lsn(volume["received_lsn"]) > parse_lsn(volume["vdl"])


@pytest.mark.case
def test_with_a_zone_and_one_more_down_reads_go_on_and_writes_wait_for_a_fourth_node(cluster, eventually):
    with connect(cluster) as writer:
        writer.execute("insert into t values (3000)")
    former = cluster.writer
    one, two, third, *_ = nodes_of(cluster)
    with connect(cluster, f"instance:{reader_of(cluster)}") as reader, down(cluster, one, two):
        with down(cluster, third):
            with pytest.raises(ClusterError, match="write quorum"):
                cluster.failover()
            with pytest.raises(ClusterError, match="write quorum"):
                cluster.restart(former)
            with connect(cluster) as writer:  # it was not stopped for what could not be
                assert has(writer, 3000)
            cluster.kill(former, hold=True)
            assert has(reader, 3000)
            added = cluster.add_reader("newborn")
            with connect(cluster, f"instance:{added.name}") as newborn:
                eventually(lambda: has_table(newborn) and has(newborn, 3000))
            with pytest.raises(ClusterError, match="write quorum"):
                cluster.failover(added.name)
            with cluster.history.clone(readers=0) as clone, connect(clone) as copy:
                assert has(copy, 3000)
        eventually(lambda: cluster.writer not in {None, former})
        with connect(cluster) as writer:
            writer.execute("insert into t values (3001)")
    cluster.start_instance(former)
    eventually(lambda: whole(cluster) and all(one.state == "available" for one in cluster.instances))
    with connect(cluster, f"instance:{former}") as back:
        eventually(lambda: has(back, 3001))


def has_table(connection) -> bool:
    return connection.execute("select to_regclass('t') is not null").fetchone() == (True,)


def reader_of(cluster) -> str:
    return cluster.readers[0]


def test_a_lost_zone_is_replaced_under_load_and_nothing_is_lost(cluster, eventually):
    numbers: list[int] = []
    enough = threading.Event()

    def load() -> None:
        with connect(cluster) as connection:
            while not enough.is_set():
                connection.execute("insert into t values (%s)", (-1 - len(numbers),))
                numbers.append(len(numbers))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    eventually(lambda: len(numbers) > 20)
    one, two, *zone = nodes_of(cluster)[:4]
    for node in zone:
        cluster.nodes.down(node)
    done = cluster.nodes.replace_zone("eu-test-1b")
    before = len(numbers)
    eventually(lambda: len(numbers) > before + 20)
    enough.set()
    thread.join(30)
    assert sorted(done) == zone
    eventually(lambda: whole(cluster))
    cluster.kill(cluster.writer)
    with down(cluster, one, two):
        eventually(lambda: cluster.writer is not None and writes(cluster))
        with connect(cluster) as connection:
            assert connection.execute("select count(*) from t where i < 0").fetchone() == (len(numbers),)


def writes(cluster) -> bool:
    with contextlib.suppress(psycopg.Error, ClusterError), connect(cluster) as connection:
        return connection.execute("select pg_is_in_recovery()").fetchone() == (False,)
    return False
