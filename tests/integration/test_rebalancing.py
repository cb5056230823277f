"""Pools under load while a reader joins: it gets its share, and no statement fails."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from aurora_router_cluster import LocalCluster
from benchmarks.pool_load import KINDS, make_load

pytestmark = pytest.mark.cluster

SIZE = 12
SECONDS = 30.0
"""How long it may take until each reader has its share."""


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2, auto=False) as cluster:
        yield cluster


def wait_until(condition, seen):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, seen()
        time.sleep(0.05)


def is_spread(load, readers):
    counts = load.counts()
    assert counts.total() <= load.size, counts
    return counts.keys() == set(readers) and max(counts.values()) - min(counts.values()) <= 1 < min(counts.values())


def test_each_reader_gets_its_share(cluster):
    with ExitStack() as stack:
        loads = [stack.enter_context(make_load(kind, cluster, SIZE, {"aurora_refresh": 1})) for kind in KINDS]

        def all_spread():
            readers = cluster.readers
            return all(is_spread(each, readers) for each in loads)

        def seen():
            return [(type(each).__name__, each.counts(), each.errors[:1]) for each in loads]

        wait_until(all_spread, seen)
        made = [each.made for each in loads]
        assert made == [SIZE] * len(loads)
        joined = cluster.add_reader().name
        try:
            wait_until(all_spread, seen)
            wait_until(lambda: all(each.served[joined] for each in loads), seen)
            moves = [each.made - SIZE for each in loads]
            assert all(SIZE // 3 <= each <= SIZE // 2 for each in moves), moves
            assert not any(each.errors for each in loads), seen()
        finally:
            cluster.remove(joined)
