"""Pools under load while readers join and leave: each reader gets its share, and no statement fails."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest

import aurora_router
from aurora_router.cli.main import main
from aurora_router.pool import ConnectionPool
from aurora_router.runtime.rebalancing import find_rebalancer
from aurora_router_cluster import LocalCluster
from benchmarks.pool_load import KINDS, EngineLoad, make_load
from benchmarks.pools import is_spread, wait_until

pytestmark = pytest.mark.cluster

SIZE = 12
PATIENCE = 90.0
"""How long the sessions of a reader that leaves may go on, in seconds."""


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2, auto=False) as cluster:
        yield cluster


def test_connections_by_the_same_rules_are_one_group(cluster):
    """How long a connect may take is no such rule; a connection that was not chosen among several is in no group."""
    reader, pinned = cluster.conninfo("reader"), cluster.conninfo(f"instance:{cluster.readers[0]}")
    with ExitStack() as stack:

        def group(conninfo, **options):
            connection = stack.enter_context(aurora_router.connect(conninfo, **options))
            assert not aurora_router.is_surplus(connection)
            return find_rebalancer(connection)

        first, unbalanced = group(reader), group(pinned)
        assert group(reader, aurora_failover_timeout=5) is first
        assert group(reader, aurora_balance="random") is not first
        assert group(cluster.conninfo("writer")) is unbalanced, "there is one writer"
        assert group(reader, aurora_rebalance=False) is unbalanced is not first


def test_a_connection_of_psycopgs_own_is_not_surplus(cluster):
    with psycopg.connect(cluster.plain_conninfo("reader")) as connection:
        assert not aurora_router.is_surplus(connection)
    assert aurora_router.is_surplus(connection), "it is closed"


def test_readers_that_join_and_leave(cluster):
    """A reader that joins gets its share, one that leaves loses it while its transactions may go on for a while."""
    with ExitStack() as stack:
        made = {kind: make_load(kind, cluster, SIZE, {"aurora_refresh": 1}) for kind in KINDS}
        loads = {kind: stack.enter_context(load) for kind, load in made.items()}
        fixed = stack.enter_context(EngineLoad(cluster.url("reader", aurora_refresh=1, aurora_rebalance="off"), SIZE))

        def wait_until_spread():
            readers = cluster.readers
            wait_until(lambda: all(is_spread(each, readers) for each in loads.values()), loads)

        wait_until_spread()
        assert [each.made for each in loads.values()] == [SIZE] * len(loads)
        joined = cluster.add_reader().name
        wait_until_spread()
        wait_until(lambda: all(each.served[joined] for each in loads.values()), loads)
        moves = [each.made - SIZE for each in loads.values()]
        assert all(SIZE // 3 <= each <= SIZE // 2 for each in moves), moves
        assert fixed.made == SIZE, "aurora_rebalance=off"
        cluster.remove(joined, drain=PATIENCE)
        wait_until_spread()
        assert [each.errors for each in (*loads.values(), fixed)] == [[]] * (len(loads) + 1)


def test_a_drained_reader_is_left(cluster):
    """Idle connections go at once, others when they are returned; no transaction breaks; undone, it gets its share."""
    url, drained = cluster.conninfo(), cluster.readers[0]
    with ExitStack() as stack:
        made = {kind: make_load(kind, cluster, SIZE, {"aurora_refresh": 1}, workers=2) for kind in KINDS}
        loads = {kind: stack.enter_context(load) for kind, load in made.items()}
        wait_until(lambda: all(is_spread(each, cluster.readers) for each in loads.values()), loads)
        conninfo = cluster.conninfo("reader", aurora_refresh=1, aurora_cluster="apart")
        pool = stack.enter_context(ConnectionPool(conninfo, min_size=4, open=True))
        pool.wait()
        held = [pool.getconn() for _ in range(4)]
        of_drained = [each for each in held if each.placement.instance == drained]
        others = [each for each in held if each not in of_drained]
        assert len(of_drained) == 2
        of_drained[0].execute("begin")
        pool.putconn(of_drained[1])
        assert main(["drain", url, drained, "--for", "300"]) == 0
        stack.callback(main, ["drain", url, "--undo"])
        left = [each for each in cluster.readers if each != drained]
        wait_until(lambda: all(is_spread(each, left) for each in loads.values()), loads, 20.0)
        wait_until(lambda: drained in others[0].placement.view.drains, loads, 20.0)
        assert of_drained[0].execute("select 1").fetchone() == (1,), "its transaction goes on"
        of_drained[0].rollback()
        pool.putconn(of_drained[0])

        def are_closed():
            with pool.connection():  # a pool looks for drains when a connection is returned, and not at every return
                return of_drained[0].closed and of_drained[1].closed

        wait_until(are_closed, loads, 20.0)
        for each in others:
            pool.putconn(each)
        assert main(["drain", url, "--undo"]) == 0
        wait_until(lambda: all(is_spread(each, cluster.readers) for each in loads.values()), loads)
        assert not any(each.errors for each in loads.values())
