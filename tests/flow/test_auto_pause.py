"""Instances that pause, on a virtual clock: a connect waits for them, none is condemned, and nothing wakes them."""

from __future__ import annotations

import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.model.event import InstanceFailed, WriterChanged, WriterSuspected
from aurora_router.simulation import Condition, Network, SimulatedCluster, Simulation, WatchedProcess

RESUMES = 12.0
PAUSE = 300.0
WAIT = f" aurora_auto_pause={PAUSE:g}"


class Scene:
    """A simulation with one cluster, whose instances can sleep, and one watched process."""

    def __init__(self, readers=1):
        self.simulation = Simulation(1)
        self.cluster = SimulatedCluster(Network(self.simulation), readers=readers)
        self.process = WatchedProcess(self.cluster.network)
        self.usual = {id_: each.accept_latency for id_, each in self.cluster.instances.items()}
        self.woken = []

    def fall_asleep(self, *ids):
        for id_ in ids:
            self.cluster.instances[id_].accept_latency = RESUMES

    def wake_at(self, at, *ids):
        for id_ in ids:
            self.simulation.at(at, lambda id_=id_: setattr(self.cluster.instances[id_], "accept_latency", 0.002))

    def run(self, procedure):
        try:
            return self.simulation.run(procedure)
        finally:
            self.simulation.close()

    def of(self, *kinds):
        return [event for _, _, event in self.process.events if isinstance(event, kinds)]


@pytest.fixture
def scene():
    return Scene()


@pytest.mark.parametrize("target", ["writer", "reader"])
def test_a_process_that_starts_waits_for_a_cluster_that_has_paused(scene, target):
    async def client():
        scene.fall_asleep("demo-1", "demo-2")
        scene.wake_at(RESUMES, "demo-1", "demo-2")
        made = await scene.process.connect(scene.cluster.conninfo(target) + WAIT)
        assert RESUMES <= scene.simulation.now <= RESUMES + 1.0
        made.close()

    scene.run(client())
    assert not scene.of(InstanceFailed, WriterSuspected)


def test_without_the_option_it_is_a_hang():
    scene = Scene()

    async def client():
        scene.fall_asleep("demo-1", "demo-2")
        with pytest.raises(NoInstanceAvailable):
            await scene.process.connect(scene.cluster.conninfo())

    scene.run(client())


def test_a_connect_after_a_long_pause_waits_and_nothing_fails_over(scene):
    async def client():
        (await scene.process.connect(scene.cluster.conninfo() + WAIT)).close()
        await scene.process.runtime.sleep(2 * PAUSE)
        scene.fall_asleep("demo-1", "demo-2")
        began = scene.simulation.now
        scene.wake_at(began + RESUMES, "demo-1", "demo-2")
        made = await scene.process.connect(scene.cluster.conninfo() + WAIT)
        assert made.instance.id == "demo-1"
        assert RESUMES <= scene.simulation.now - began <= RESUMES + 1.0
        made.close()

    scene.run(client())
    assert not scene.of(InstanceFailed, WriterSuspected)
    assert len(scene.of(WriterChanged)) == 1, "the first one"


def test_an_instance_that_was_in_use_a_moment_ago_hangs(scene):
    """Its silence is noticed as usual, also where the connection was closed since."""

    async def client():
        made = await scene.process.connect(scene.cluster.conninfo() + WAIT)
        await scene.process.runtime.sleep(2 * PAUSE)
        made.close()
        await scene.process.runtime.sleep(PAUSE / 2)
        scene.cluster.instances["demo-1"].condition = Condition.HANGING
        began = scene.simulation.now
        scene.simulation.at(began + 8.0, lambda: scene.cluster.failover("demo-2"))
        found = await scene.process.connect(scene.cluster.conninfo() + WAIT)
        assert found.instance.id == "demo-2"
        assert scene.simulation.now - began < 12.0
        found.close()

    scene.run(client())
    assert {each.id for each in scene.of(InstanceFailed)} == {"demo-1"}


@pytest.mark.parametrize(("option", "asked"), [("", True), (WAIT, False)])
def test_the_monitor_asks_no_instance_that_this_process_does_not_use(scene, option, asked):
    """A connection to a reader keeps that one awake; the writer may sleep, and is not asked for the topology."""
    sessions = []

    async def client():
        made = await scene.process.connect(scene.cluster.conninfo("reader") + option)
        assert made.instance.id == "demo-2"
        await scene.process.runtime.sleep(60.0)
        for _ in range(4 * 300):
            sessions.append(len(scene.cluster.instances["demo-1"].connections))
            await scene.process.runtime.sleep(0.25)
        refreshed = made.result.cluster.view.refreshed_at
        assert scene.simulation.now - refreshed < 60.0, "the view is fresh all the same"
        made.close()

    scene.run(client())
    assert any(sessions) is asked


def test_a_failover_is_found_though_readers_may_have_paused(scene):
    """Where the writer is lost all are asked, also those that this process never used."""

    async def client():
        made = await scene.process.connect(scene.cluster.conninfo() + WAIT)
        await scene.process.runtime.sleep(PAUSE)
        scene.cluster.crash("demo-1")
        began = scene.simulation.now
        scene.simulation.at(began + 3.0, lambda: scene.cluster.failover("demo-2"))
        found = await scene.process.connect(scene.cluster.conninfo() + WAIT)
        assert found.instance.id == "demo-2"
        assert scene.simulation.now - began < 5.0
        found.close()
        made.close()

    scene.run(client())


def test_the_time_of_the_connect_limits_the_wait(scene):
    async def client():
        scene.fall_asleep("demo-1", "demo-2")
        with pytest.raises(NoInstanceAvailable):
            await scene.process.connect(scene.cluster.conninfo() + WAIT + " aurora_failover_timeout=8")
        assert scene.simulation.now <= 10.0

    scene.run(client())
