"""Simulated DNS: memory, TTL, rotation, aliases, failures."""

from __future__ import annotations

import pytest

from aurora_router.flow.runtime import DialFailed
from aurora_router.policy.verdict import FaultKind
from aurora_router.simulation import NameServer, Network, SimulatedCluster, SimulatedRuntime, Simulation


class Ground:
    def __init__(self, **made):
        self.simulation = Simulation()
        self.network = Network(self.simulation)
        self.cluster = SimulatedCluster(self.network, **made)
        self.runtime = SimulatedRuntime(self.network)

    def resolve(self, host, **how):
        return self.simulation.run(self.runtime.resolve(host, **how))

    def asked(self):
        return self.simulation.counts["resolve"]


def test_an_answer_is_remembered_for_its_ttl():
    ground = Ground()
    writer = ground.cluster.host("writer")
    found = ground.resolve(writer)
    assert found.addresses == (ground.cluster.instances["demo-1"].address,)
    ground.cluster.failover("demo-2")
    assert ground.resolve(writer) == found
    ground.simulation.run_until(6)
    assert ground.resolve(writer).addresses == (ground.cluster.instances["demo-2"].address,)
    assert ground.asked() == 2


def test_the_reader_name_rotates_when_asked_afresh():
    ground = Ground(readers=3)
    found = [ground.resolve(ground.cluster.host("reader"), fresh=True).addresses[0] for _ in range(6)]
    assert found[:3] == found[3:]
    assert len(set(found)) == 3


def test_a_reader_name_without_readers_is_the_writers():
    ground = Ground(readers=0)
    assert ground.resolve(ground.cluster.host("reader")).addresses == ground.resolve(ground.cluster.host()).addresses


def test_an_address_is_itself():
    ground = Ground()
    assert ground.resolve("10.0.0.9").addresses == ("10.0.0.9",)
    assert ground.asked() == 0


def test_aliases_are_followed():
    ground = Ground()
    ground.network.dns.alias("a.example.com", "b.example.com")
    ground.network.dns.alias("b.example.com", ground.cluster.host("reader"))
    assert ground.resolve("A.example.com").canonical == ground.cluster.host("reader")


def test_an_alias_of_itself_ends():
    ground = Ground()
    ground.network.dns.alias("a.example.com", "a.example.com")
    with pytest.raises(DialFailed, match="does not exist"):
        ground.resolve("a.example.com")


@pytest.mark.parametrize(("state", "seconds"), [(NameServer.SILENT, 1.0), (NameServer.FAILING, 0.001)])
def test_a_failure_takes_its_time_and_is_remembered_for_a_second(state, seconds):
    ground = Ground()
    ground.network.dns.state = state
    for _ in range(2):
        with pytest.raises(DialFailed) as caught:
            ground.resolve(ground.cluster.host())
        assert caught.value.fault.kind is FaultKind.NAME
    assert ground.asked() == 1
    assert ground.simulation.now == pytest.approx(seconds)
    ground.network.dns.state = NameServer.WELL
    ground.simulation.run_until(ground.simulation.now + 1.1)
    assert ground.resolve(ground.cluster.host()).addresses


def test_the_cluster_name_follows_late():
    ground = Ground(dns_delay=40)
    ground.simulation.run_until(1)
    ground.cluster.failover("demo-3")
    for time, expected in ((2, "demo-1"), (40, "demo-1"), (42, "demo-3")):
        ground.simulation.run_until(time)
        address = ground.cluster.instances[expected].address
        assert ground.resolve(ground.cluster.host(), fresh=True).addresses == (address,)


def test_pinned_answers_stay_until_taken_back():
    ground = Ground()
    ground.network.dns.pin(ground.cluster.host(), "10.9.9.9")
    assert ground.resolve(ground.cluster.host()).addresses == ("10.9.9.9",)
    ground.network.dns.pin(ground.cluster.host())
    assert ground.resolve(ground.cluster.host(), fresh=True).addresses != ("10.9.9.9",)
