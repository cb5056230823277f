"""Pools under load while readers join and leave: each reader gets its share, and no statement fails."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from aurora_router_cluster import LocalCluster
from benchmarks.pool_load import KINDS, make_load

pytestmark = pytest.mark.cluster

SIZE = 12
PATIENCE = 90.0
"""How long it may take until each reader has its share, in seconds, on a machine that is busy: see benchmarks."""


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2, auto=False) as cluster:
        yield cluster


def wait_until(condition, seen):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, seen()
        time.sleep(0.05)


def is_spread(load, readers):
    counts = load.counts()
    assert counts.total() <= load.size, counts
    whole = counts.total() == load.size and counts.keys() == set(readers)
    return whole and max(counts.values()) - min(counts.values()) <= 1


def test_readers_that_join_and_leave(cluster):
    """A reader that joins gets its share, one that leaves loses it while its transactions may go on for a while."""
    with ExitStack() as stack:
        loads = [stack.enter_context(make_load(kind, cluster, SIZE, {"aurora_refresh": 1})) for kind in KINDS]

        def seen():
            return [(type(each).__name__, each.counts(), each.errors[:1]) for each in loads]

        def wait_until_spread():
            readers = cluster.readers
            wait_until(lambda: all(is_spread(each, readers) for each in loads), seen)

        wait_until_spread()
        assert [each.made for each in loads] == [SIZE] * len(loads)
        joined = cluster.add_reader().name
        wait_until_spread()
        wait_until(lambda: all(each.served[joined] for each in loads), seen)
        moves = [each.made - SIZE for each in loads]
        assert all(SIZE // 3 <= each <= SIZE // 2 for each in moves), moves
        cluster.remove(joined, drain=PATIENCE)
        wait_until_spread()
        assert not any(each.errors for each in loads), seen()
