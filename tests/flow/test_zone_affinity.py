"""How a simulated process learns how busy readers are, and what its connects make of that."""

from __future__ import annotations

import pytest

from aurora_router.flow.topology_query import ROLE_AND_CLIENTS
from aurora_router.policy.poll_interval import LOAD_SECONDS
from aurora_router.runtime.simulated import answers
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation, WatchedProcess

ZONES = {"aurora_zones": "near", "aurora_zone_map": "demo-2=near,demo-3=far,demo-4=far"}


class Scene:
    """A cluster with three readers, one process, and the questions for client connections."""

    def __init__(self, monkeypatch, seed=1):
        self.simulation = Simulation(seed)
        self.cluster = SimulatedCluster(Network(self.simulation), readers=3)
        self.process = WatchedProcess(self.cluster.network)
        self.asked = []
        original = answers.ANSWERS[ROLE_AND_CLIENTS]

        def counted(connection):
            self.asked.append((self.simulation.now, connection.instance.id))
            return original(connection)

        monkeypatch.setitem(answers.ANSWERS, ROLE_AND_CLIENTS, counted)

    async def connect(self, **options):
        return await self.process.connect(self.cluster.conninfo("reader"), **options)

    async def crowd(self, instance, count):
        """Connections of another process."""
        other = SimulatedProcess(self.cluster.network)
        return [await other.connect(self.cluster.conninfo(f"instance:{instance}")) for _ in range(count)]

    def occupancy(self, instance):
        return self.held.result.cluster.view.instances[instance].occupancy

    held = None


@pytest.fixture
def scene(monkeypatch):
    made = Scene(monkeypatch)
    with made.simulation:
        yield made


def test_the_monitor_asks_each_reader_at_once_and_then_once_a_minute(scene):
    async def client():
        scene.held = await scene.connect(**ZONES)
        await scene.simulation.sleep(3.0)
        first = list(scene.asked)
        await scene.simulation.sleep(10.0 * LOAD_SECONDS)
        return first

    first = scene.simulation.run(client())
    assert sorted(id_ for _, id_ in first) == ["demo-2", "demo-3", "demo-4"]
    for id_ in ("demo-2", "demo-3", "demo-4"):
        assert 9 <= sum(each == id_ for _, each in scene.asked) <= 14
        assert scene.occupancy(id_).connections == (1 if id_ == "demo-2" else 0), "without the session that asked"
        assert scene.occupancy(id_).own == (1 if id_ == "demo-2" else 0)
    assert all(len(each.connections) <= 1 for each in scene.cluster.readers), "no session of the monitor's stays"


def test_without_zones_nothing_is_asked(scene):
    async def client():
        scene.held = await scene.connect()
        await scene.simulation.sleep(3.0 * LOAD_SECONDS)

    scene.simulation.run(client())
    assert scene.asked == []


def test_connects_overflow_once_it_is_known_that_the_zone_is_busy(scene):
    async def client():
        others = await scene.crowd("demo-2", 50)
        first = await scene.connect(**ZONES)
        scene.held = first
        await scene.simulation.sleep(3.0)
        later = [await scene.connect(**ZONES) for _ in range(20)]
        for each in others:
            each.close()
        await scene.simulation.sleep(2.0 * LOAD_SECONDS)
        last = await scene.connect(**ZONES)
        return first, later, last

    first, later, last = scene.simulation.run(client())
    assert first.instance.id == "demo-2", "nothing is known yet"
    further = [each for each in later if each.instance.id != "demo-2"]
    assert len(further) >= 12, "it has 2.9 times the mean"
    assert {each.instance.id for each in further} == {"demo-3", "demo-4"}
    assert all("zone near has" in each.result.why.reason for each in further)
    assert last.instance.id == "demo-2", "it has the fewest now"


def test_a_reader_that_does_not_answer_is_no_failure_of_the_writer(scene):
    async def client():
        scene.cluster.hang("demo-4")
        scene.held = await scene.connect(**ZONES)
        await scene.simulation.sleep(20.0)
        return [type(event).__name__ for _, _, event in scene.process.events]

    assert "WriterSuspected" not in scene.simulation.run(client())
    assert scene.occupancy("demo-4") is None
    assert scene.occupancy("demo-2") is not None


def test_a_process_that_connects_now_and_then_has_figures_too(scene):
    """Its monitor ends between two connects, and asks no more often for that."""

    async def client():
        for _ in range(30):
            scene.held = await scene.connect(**ZONES)
            await scene.simulation.sleep(0.1)
            scene.held.close()
            await scene.simulation.sleep(10.0)

    scene.simulation.run(client())
    assert 3 <= sum(id_ == "demo-3" for _, id_ in scene.asked) <= 8
