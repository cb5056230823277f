"""Pools under load while readers join and leave: each reader gets its share, and no statement fails."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

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
        assert not any(each.errors for each in (*loads.values(), fixed))
