"""1,000 connects at once over five readers, in the simulated runtime: each strategy keeps what it promises."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation

pytestmark = pytest.mark.bulk

PROMISES = {
    "random": 5 * math.sqrt(1000 * 4) / 5,
    "round_robin": 0,
    "least_connections": 1,
    "two_choices": 10,
    "fastest": 1,
}
"""By how much any reader may be off its share of 200; for `two_choices` and `least_connections` between any two."""


def connected(seed, balance, times=1000, before=lambda cluster: None, **options):
    with Simulation(seed) as simulation:
        cluster = SimulatedCluster(Network(simulation), readers=5)
        process = SimulatedProcess(cluster.network)
        host = cluster.conninfo("reader", aurora_balance=balance)
        simulation.run(process.topology(host))
        if balance == "fastest":
            for _ in range(5):  # one probe each: what is not measured gets no herd
                simulation.run(process.connect(host)).close()
        before(cluster)
        tasks = simulation.run_all(process.connect(host, **options) for _ in range(times))
        return Counter(task.result().instance.id for task in tasks), cluster


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("balance", PROMISES)
def test_a_thousand_at_once(balance, seed):
    counts, cluster = connected(seed, balance)
    assert set(counts) == {each.id for each in cluster.readers}
    assert cluster.open_connections == 1000
    assert all(abs(count - 200) <= PROMISES[balance] for count in counts.values())
    if balance != "random":
        assert max(counts.values()) - min(counts.values()) <= PROMISES[balance]


@pytest.mark.parametrize("seed", range(3))
def test_weighted_is_in_proportion(seed):
    weights = "demo-2=5,demo-3=3,demo-4=0,demo-5=1"
    counts, _ = connected(seed, "weighted", aurora_weights=weights)
    for id_, share in {"demo-2": 500, "demo-3": 300, "demo-4": 0, "demo-5": 100, "demo-6": 100}.items():
        assert abs(counts[id_] - share) <= 5


@pytest.mark.parametrize("balance", ["least_connections", "two_choices", "round_robin"])
def test_what_a_dead_reader_leaves_is_spread(balance):
    """All of the first round see it alive; for what fails, another one is chosen."""
    counts, _ = connected(1, balance, before=lambda cluster: cluster.crash("demo-4"))
    assert "demo-4" not in counts
    assert max(counts.values()) - min(counts.values()) <= (10 if balance == "two_choices" else 2)


def test_the_slow_reader_is_left_aside_by_fastest():
    def slow(cluster):
        cluster.instances["demo-3"].accept_latency = 0.2

    with Simulation(5) as simulation:
        cluster = SimulatedCluster(Network(simulation), readers=3)
        slow(cluster)
        process = SimulatedProcess(cluster.network)
        host = cluster.conninfo("reader", aurora_balance="fastest")
        for _ in range(4):
            simulation.run(process.connect(host))
        tasks = simulation.run_all(process.connect(host) for _ in range(100))
        counts = Counter(task.result().instance.id for task in tasks)
    assert counts["demo-3"] == 0
    assert abs(counts["demo-2"] - counts["demo-4"]) <= 2
