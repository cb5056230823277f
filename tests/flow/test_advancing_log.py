"""A former writer is promoted again before anything was heard of it, on a cluster to which no client writes.

It says what a fenced instance would say that never noticed its successor. Its log grows if a record is added to it;
that of a fenced instance does not.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from aurora_router.errors import WriterUnavailable
from aurora_router.flow.topology_query import ADVANCE_SECONDS
from aurora_router.model.observation import ROW_AGE_SECONDS
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation, WatchedProcess

PROCESSES = {"monitor": WatchedProcess, "no monitor": SimulatedProcess}


class Scene:
    """An idle cluster, whose records are counted, and a process that has accepted demo-2 after demo-1 was lost."""

    def __init__(self, simulation, kind):
        self.cluster = SimulatedCluster(Network(simulation), readers=2)
        self.cluster.grown = lambda _: 0
        self.process, self.simulation = kind(self.cluster.network), simulation
        self.records = []
        write = self.cluster.write_record
        self.cluster.write_record = lambda by: (self.records.append((simulation.now, by.id)), write(by))

    async def connect(self, **options):
        return await self.process.connect(self.cluster.conninfo(**options))

    async def fail_over(self):
        """Let demo-1 fail, and demo-2 be accepted."""
        kept = await self.connect()
        self.cluster.hang("demo-1")
        self.cluster.failover("demo-2", zombie=True)
        kept.breaks()
        made = await self.connect()
        assert made.instance.id == "demo-2"


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES)
def scene(request):
    with Simulation(1) as simulation:
        yield Scene(simulation, request.param)


def test_it_is_believed_once_the_storage_has_taken_a_record_of_it(scene):
    async def client():
        await scene.fail_over()
        await scene.simulation.sleep(0.5)
        for id_ in ("demo-2", "demo-3"):  # none is left that could name it
            scene.cluster.crash(id_)
        scene.cluster.thaw_view("demo-1")
        scene.cluster.heal("demo-1")
        scene.cluster.failover("demo-1")
        began = scene.simulation.now
        made = await scene.connect()
        assert made.instance.id == "demo-1"
        assert made.result.cluster.view.writer == "demo-1"
        made.close()
        return scene.simulation.now - began

    took = scene.simulation.run(client())
    written = [at for at, id_ in scene.records if id_ == "demo-1"][1:]  # the first is the promotion's
    assert len(written) == 1
    assert took < 2 * ROW_AGE_SECONDS


def test_a_fenced_instance_is_not_believed_and_not_pestered(scene):
    async def client():
        await scene.fail_over()
        await scene.simulation.sleep(0.5)
        scene.cluster.instances["demo-1"].rewrites = lambda rows: [
            (id_, master, lag, cpu, str(int(lsn) + 1000)) for id_, master, lag, cpu, lsn in rows
        ]  # it had made durable more than demo-2 has shown
        scene.cluster.crash("demo-2")
        scene.cluster.heal("demo-1")
        with pytest.raises(WriterUnavailable):
            await scene.connect(aurora_failover_timeout=20.0)
        return scene.process.home.clusters()[0].view.writer

    assert scene.simulation.run(client()) != "demo-1"
    asked = [at for at, id_ in scene.records if id_ == "demo-1"]
    assert asked, "it was tried"
    assert all(later - at >= ADVANCE_SECONDS for at, later in pairwise(asked))
