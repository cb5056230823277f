"""Connects that a cluster's phase holds, redirects or refuses, in the simulated runtime."""

from __future__ import annotations

import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.admission import Hold, Redirect, Refuse
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation, WatchedProcess


class Scene:
    """A cluster, and a process that knows it."""

    def __init__(self, simulation, process=SimulatedProcess):
        self.simulation = simulation
        self.cluster = SimulatedCluster(Network(simulation), readers=2)
        self.process = process(self.cluster.network)

    async def know(self):
        """Connect once, and return what the process knows of the cluster."""
        first = await self.connect()
        first.close()
        return first.result.cluster

    async def connect(self, role="writer", **options):
        return await self.process.connect(self.cluster.conninfo(role, **options))


@pytest.fixture
def scene():
    with Simulation() as simulation:
        yield Scene(simulation)


def host_of(cluster):
    return dict(part.split("=", 1) for part in cluster.conninfo("writer").split())["host"]


def held_until(end, reason="a planned failover"):
    """Holds connects to the writer; readers are not affected."""
    return lambda role, view, now: Hold(end, reason) if role is WantedRole.WRITER and now < end else None


def test_a_planned_failover_fails_no_connect(scene):
    """Held from before the writer stops until after the new one serves: nothing is dialled, and nothing has failed."""

    async def client():
        known = await scene.know()
        began = scene.simulation.now
        known.change_admission(held_until(began + 10.0))
        scene.simulation.at(began + 1.0, lambda: scene.cluster.crash("demo-1"))
        scene.simulation.at(began + 8.0, lambda: scene.cluster.failover("demo-2"))
        reader = await scene.connect("reader")
        assert scene.simulation.now - began < 1.0, "readers pass"
        dials = scene.cluster.instances["demo-1"].connections
        writer = await scene.connect(aurora_refresh=5)
        assert scene.simulation.now - began == pytest.approx(10.0, abs=0.1)
        assert (writer.instance.id, dials) == ("demo-2", set())
        reader.close()

    scene.simulation.run(client())


def test_the_end_of_a_phase_wakes_what_is_held(scene):
    async def client():
        known = await scene.know()
        began = scene.simulation.now
        known.change_admission(held_until(began + 1000.0))
        scene.simulation.at(began + 3.0, lambda: known.change_admission(None))
        assert (await scene.connect()).instance.id == "demo-1"
        assert scene.simulation.now - began == pytest.approx(3.0, abs=0.1)

    scene.simulation.run(client())


def test_a_held_connect_ends_at_its_own_deadline(scene):
    async def client():
        known = await scene.know()
        began = scene.simulation.now
        known.change_admission(held_until(began + 1000.0))
        with pytest.raises(NoInstanceAvailable, match=r"held the connect until its time was over: a planned failover"):
            await scene.connect(aurora_failover_timeout=5)
        assert scene.simulation.now - began == pytest.approx(5.0, abs=0.1)
        assert scene.cluster.open_connections == 0

    scene.simulation.run(client())


def test_a_refused_connect_fails_at_once(scene):
    async def client():
        known = await scene.know()
        began = scene.simulation.now
        known.change_admission(lambda role, view, now: Refuse("it is the blue side, and is over"))
        with pytest.raises(NoInstanceAvailable, match="refuses connects: it is the blue side, and is over"):
            await scene.connect()
        assert scene.simulation.now == began

    scene.simulation.run(client())


def test_a_redirected_connect_is_routed_there_and_no_further(scene):
    green = SimulatedCluster(scene.cluster.network, name="green", readers=1)

    async def client():
        known = await scene.know()
        target = host_of(green)
        known.change_admission(lambda role, view, now: Redirect(target))
        there = await scene.connect()
        assert there.instance.id == "green-1"
        there.result.cluster.change_admission(lambda role, view, now: Redirect("blue.example"))
        assert (await scene.connect()).instance.id == "green-1"

    scene.simulation.run(client())


def test_a_redirect_that_leads_nowhere_lists_what_was_tried(scene):
    async def client():
        known = await scene.know()
        green = SimulatedCluster(scene.cluster.network, name="green", readers=0)
        target = host_of(green)
        green.crash("green-1")
        known.change_admission(lambda role, view, now: Redirect(target))
        began = scene.simulation.now
        with pytest.raises(NoInstanceAvailable) as caught:
            await scene.connect(aurora_failover_timeout=5)
        assert any(target in each.target for each in caught.value.attempts)
        assert scene.simulation.now - began <= 6.0

    scene.simulation.run(client())


def test_the_policy_sees_role_view_and_time(scene):
    seen = []

    async def client():
        known = await scene.know()
        known.change_admission(lambda *given: seen.append(given))
        await scene.connect("reader")
        assert seen == [(WantedRole.READER, known.view, pytest.approx(scene.simulation.now, abs=0.1))]

    scene.simulation.run(client())


def test_a_monitored_cluster_follows_the_change_meanwhile():
    with Simulation() as simulation:
        scene = Scene(simulation, WatchedProcess)

        async def client():
            first = await scene.connect()
            known, began = first.result.cluster, simulation.now
            known.change_admission(held_until(began + 10.0))
            simulation.at(began + 1.0, lambda: scene.cluster.crash("demo-1"))
            simulation.at(began + 4.0, lambda: scene.cluster.failover("demo-2"))
            second = await scene.connect()
            assert second.instance.id == "demo-2"
            assert simulation.now - began == pytest.approx(10.0, abs=0.1)

        simulation.run(client())
