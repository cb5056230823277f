"""A drained reader on a virtual clock: the monitor learns of it, connects avoid it, and it is used again afterwards."""

from __future__ import annotations

import pytest

from aurora_router.model.drain import DrainNote
from aurora_router.model.event import DrainEnded, DrainStarted
from aurora_router.simulation import Network, SimulatedCluster, Simulation, WatchedProcess

REFRESH = 10.0


@pytest.mark.parametrize("aurora", [True, False])
@pytest.mark.parametrize("ends", ["undone", "over"])
def test_connects_avoid_a_drained_reader_until_that_ends(aurora, ends):
    with Simulation(1) as simulation:
        cluster = SimulatedCluster(Network(simulation), readers=2, aurora=aurora)
        process = WatchedProcess(cluster.network)
        hosts = ",".join(f"{id_}.{cluster.domain}" for id_ in cluster.instances)
        target = cluster.conninfo("reader", aurora_refresh=REFRESH)
        if not aurora:
            target = f"host={hosts} port={cluster.port} aurora_role=reader aurora_refresh={REFRESH:g}"

        async def connect(times):
            made = [await process.connect(target) for _ in range(times)]
            found = {each.instance.id.partition(".")[0] for each in made}
            for each in made:
                each.close()
            return found

        async def client():
            kept = await process.connect(target)
            assert await connect(10) == {"demo-2", "demo-3"}
            drained = next(id_ for id_ in kept.result.cluster.view.instances if id_.startswith("demo-3"))
            cluster.drains = (DrainNote(drained, simulation.now, simulation.now + 60.0, "patch"),)
            await process.runtime.sleep(2 * REFRESH)
            assert await connect(10) == {"demo-2"}
            if ends == "undone":
                cluster.drains = ()
                await process.runtime.sleep(2 * REFRESH)
            else:
                await process.runtime.sleep(60.0)
            assert await connect(10) == {"demo-2", "demo-3"}
            await process.runtime.sleep(2 * REFRESH)
            kept.close()

        simulation.run(client())
        told = [type(event) for _, _, event in process.events if isinstance(event, (DrainStarted, DrainEnded))]
        assert told == [DrainStarted, DrainEnded]


def test_a_process_that_starts_avoids_it_at_its_first_connect():
    with Simulation(1) as simulation:
        cluster = SimulatedCluster(Network(simulation), readers=2)
        cluster.drains = (DrainNote("demo-3", 0.0, 60.0),)
        for _ in range(10):
            process = WatchedProcess(cluster.network)
            made = simulation.run(process.connect(cluster.conninfo("reader")))
            assert made.instance.id == "demo-2"
            made.close()
