"""Connects by a user's balance function, on a simulated cluster."""

from __future__ import annotations

from collections import Counter

import pytest

from aurora_router.errors import ExtensionFailed
from aurora_router.policy.options import BALANCE_GROUP
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation


@pytest.fixture
def cluster():
    with Simulation() as simulation:
        yield SimulatedCluster(Network(simulation), readers=3, zones=("a", "b"))


def run(cluster, coroutine):
    return cluster.network.simulation.run(coroutine)


def fewest(candidates):
    return min(candidates, key=lambda each: (each.connections, each.id))


def test_it_chooses(cluster):
    process = SimulatedProcess(cluster.network)
    conninfo = cluster.conninfo("reader")
    served = [run(cluster, process.connect(conninfo, balance=fewest)) for _ in range(9)]
    assert Counter(each.instance.id for each in served) == {"demo-2": 3, "demo-3": 3, "demo-4": 3}


def test_what_it_prefers_and_cannot_be_reached_is_passed_over(cluster):
    process = SimulatedProcess(cluster.network)
    conninfo = cluster.conninfo("reader")
    run(cluster, process.topology(conninfo))
    cluster.crash("demo-3")
    made = run(cluster, process.connect(conninfo, balance=lambda each: "demo-3" if len(each) == 3 else each[0]))
    assert made.instance.id == "demo-2"


def test_it_is_found_by_name(install, cluster):
    install("shelf", "def last(candidates): return candidates[-1]", BALANCE_GROUP, {"last": "shelf:last"})
    process = SimulatedProcess(cluster.network)
    conninfo = cluster.conninfo("reader", aurora_balance="last")
    assert {run(cluster, process.connect(conninfo)).instance.id for _ in range(3)} == {"demo-4"}


def test_a_failure_ends_the_connect_at_once(cluster):
    process = SimulatedProcess(cluster.network)

    def broken(candidates):
        raise LookupError("no such shelf")

    first = run(cluster, process.connect(cluster.conninfo("writer")))
    with pytest.raises(ExtensionFailed, match=r"broken raised LookupError: no such shelf"):
        run(cluster, process.connect(cluster.conninfo("reader"), balance=broken))
    assert cluster.network.simulation.now < 1.0
    assert cluster.open_connections == 1
    assert [first.result.cluster.connections(id_) for id_ in cluster.instances] == [1, 0, 0, 0]


@pytest.mark.timeout(20)
def test_it_may_use_the_cluster_itself(cluster):
    """No lock is held while it is called: a connect within it would wait for itself."""
    process = SimulatedProcess(cluster.network)
    conninfo = cluster.conninfo("reader")
    known = run(cluster, process.connect(conninfo)).result.cluster

    def curious(candidates):
        known.next_turn()
        return "demo-2"

    assert run(cluster, process.connect(conninfo, balance=curious)).instance.id == "demo-2"
