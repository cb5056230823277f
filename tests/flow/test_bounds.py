"""What a process remembers by name is bounded, however many names it meets."""

from __future__ import annotations

import gc

import pytest

from aurora_router.flow.runtime import DialFailed, Resolution
from aurora_router.model.bounds import MAX_NAMES
from aurora_router.model.observation import Failure, Row, Topology
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View
from aurora_router.policy.cluster_state import TRAIL, ClusterState
from aurora_router.policy.quarantine import Quarantine
from aurora_router.policy.route import route
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime import dns
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.registry import MAX_CLUSTERS, Registry
from aurora_router.simulation import Network, SimulatedCluster, Simulation, WatchedProcess

MANY = 5 * max(MAX_NAMES, MAX_CLUSTERS)


class Conn:
    """A connection, as far as it is counted."""


def sized(owner):
    """The sizes of all tables of an object."""
    return {name: len(each) for name, each in vars(owner).items() if hasattr(each, "__len__")}


def test_a_cluster_forgets_instances_and_addresses():
    cluster = find(Registry(), 0)
    for number in range(MANY):
        id_, now = f"demo-{number}", float(number)
        cluster.observe(Topology((Row("w", writer=True), Row(id_, writer=False)), "w", observer_is_writer=True), now)
        cluster.observe(Failure(id_, 0, gone=False, reason="refused"), now)
        cluster.record_failure(id_, 1.0, 5.0, 1.0)
        cluster.update(ClusterState.record_address, f"10.0.0.{number}:5432", id_)
        connection, reservation = Conn(), cluster.reserve(id_)
        cluster.record_success(id_, 0.1, now)
        cluster.track(id_, connection, reservation=reservation)
        if number % 2:
            cluster.untrack(id_, connection)
    assert max(sized(cluster).values()) <= MAX_NAMES + 1, sized(cluster)
    assert len(cluster.state.health.failed_at) <= MAX_NAMES
    assert len(cluster.state.by_address) <= MAX_NAMES
    assert len(cluster.state.trail) <= TRAIL
    assert len(cluster.state.health.quarantine.terms) <= MAX_NAMES
    assert cluster.state.by_address[f"10.0.0.{MANY - 1}:5432"] == id_, "the last one is known"


def test_open_connections_are_counted_however_many_instances_there_are():
    cluster = find(Registry(), 0)
    kept = [Conn() for _ in range(MANY)]
    for number, connection in enumerate(kept):
        cluster.track(f"demo-{number}", connection)
    assert len(cluster.tracked_connections()) == MANY
    kept.clear()
    del connection
    gc.collect()
    cluster.track("demo", cluster)
    assert len(cluster._connections) == 1


def test_a_view_forgets_former_writers_and_instances_that_left():
    view = View()
    for number in range(MANY):
        rows = (Row(f"demo-{number}", writer=True, token=number), Row("r", writer=False))
        view, _ = reduce(view, Topology(rows, f"demo-{number}", observer_is_writer=True), 1000.0 * number)
    assert view.writer == f"demo-{MANY - 1}"
    assert len(view.retired) <= MAX_NAMES
    assert len(view.former) <= MAX_NAMES + len(view.instances)


def test_a_quarantine_is_bounded_within_a_moment():
    quarantine = Quarantine()
    for number in range(MANY):
        quarantine = quarantine.record_failure(f"demo-{number}", 1.0, 5.0)
    assert len(quarantine.terms) == MAX_NAMES
    assert quarantine.remaining(f"demo-{MANY - 1}", 1.0) > 0.0


def test_a_watch_forgets_what_left():
    """Readers that come and go: no session, suspicion or refusal of a former one is kept."""
    with Simulation(5) as simulation:
        cluster = SimulatedCluster(Network(simulation))
        process = WatchedProcess(cluster.network)

        async def main():
            connection = await process.connect(cluster.conninfo())
            for number in range(30):
                cluster.add(f"extra-{number}")
                await process.topology(cluster.conninfo())
                reader = await process.connect(cluster.conninfo("reader"))
                watch = connection.result.cluster.monitor
                watch.hangs._suspect(f"extra-{number}", [], simulation.now)
                watch._record_timing(f"extra-{number}", Fault(FaultKind.TIMEOUT))
                await simulation.sleep(1.0)
                reader.close()
                cluster.remove(f"extra-{number}")
                await process.topology(cluster.conninfo())
                await simulation.sleep(1.0)
            assert max(sized(watch).values()) <= 8
            assert max(sized(watch.hangs).values()) <= 8
            assert max(sized(watch.hangs.paths).values()) <= 8

        simulation.run(main())


def find(registry, number, port=5432):
    request = read_connect_args(
        f"host=demo-{number}.cluster-abc123.eu-west-1.rds.amazonaws.com port={port}", {}
    ).request
    return registry.find(request, route(request))


def test_a_registry_forgets_clusters_that_nothing_needs():
    registry, connection = Registry(), Conn()
    used = find(registry, 0)
    used.used_at = -1.0
    used.track("demo-0-1", connection)
    waiting, waiter = find(registry, 1), lambda: None
    waiting.used_at = -1.0
    waiting.add_waiter(waiter)
    watched = find(registry, 2)
    watched.used_at, watched.monitor = -1.0, object()
    for number in range(3, MANY):
        find(registry, number).used_at = float(number)
    assert len(registry._clusters) == MAX_CLUSTERS
    assert [find(registry, number) for number in range(3)] == [used, waiting, watched]
    recent = find(registry, MANY - 1)
    assert recent.used_at == MANY - 1, "the least recently used went first"


def test_clusters_in_use_are_kept_beyond_the_bound():
    registry = Registry()
    kept = [(find(registry, number), Conn()) for number in range(1)]
    for number in range(1, MAX_CLUSTERS + 50):
        kept.append((find(registry, number), Conn()))
        kept[-1][0].track("w", kept[-1][1])
    assert len(registry._clusters) == MAX_CLUSTERS + 49, "the one without a connection alone went"


def test_resolved_names_are_bounded(monkeypatch):
    names = dns.Names(("127.0.0.1", 53), 1.0)
    monkeypatch.setattr(names, "_from_dns", lambda host: (Resolution((f"10.0.0.{host[1:]}",), host), 60.0))
    for number in range(3 * dns.MAX_REMEMBERED):
        names.resolve(f"h{number}")
        names.record_address(f"h{number}", "::1")
    assert max(sized(names).values()) <= dns.MAX_REMEMBERED


def test_failures_to_resolve_are_bounded(monkeypatch):
    def refused(host):
        raise dns._NotFound("no")

    names = dns.Names(("127.0.0.1", 53), 1.0)
    monkeypatch.setattr(names, "_from_dns", refused)
    for number in range(2 * dns.MAX_REMEMBERED):
        with pytest.raises(DialFailed):
            names.resolve(f"h{number}")
    assert len(names._memory) <= dns.MAX_REMEMBERED


def test_ways_of_resolving_are_bounded():
    dns.forget()
    for port in range(3 * dns.MAX_SERVERS):
        dns.names_for(("127.0.0.1", port), 1.0)
    assert len(dns._shared) == dns.MAX_SERVERS
    dns.forget()
