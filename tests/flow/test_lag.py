"""``aurora_max_lag``: a reader that may lag by more is not handed out, however old the figure is."""

from __future__ import annotations

import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.model.instance import Role
from aurora_router.simulation import Condition, SimulatedProcess, WatchedProcess
from tests.flow.scene import Scene


class LagScene(Scene):
    async def connect(self, target="reader", **options):
        given = {"aurora_reader_fallback": "error", "aurora_failover_timeout": 3, **options}
        if target != "reader":
            del given["aurora_reader_fallback"]
        return await self.process.connect(self.cluster.conninfo(target), **given)

    async def asked(self, **options):
        """What a connect asks, and where it leads."""
        before = self.simulation.counts["ask"]
        connection = await self.connect(**options)
        return self.simulation.counts["ask"] - before, connection.instance.id


@pytest.mark.case
@pytest.mark.parametrize("process", [SimulatedProcess, WatchedProcess], ids=["unwatched", "watched"])
@pytest.mark.parametrize("bound", [0.1, 5.0])
@pytest.mark.parametrize("aurora", [True, False], ids=["aurora", "plain"])
def test_the_age_of_a_figure_counts(bound, process, aurora):
    """A reader stops replaying straight after it was looked at: its lag grows by a second a second."""
    scene = LagScene(process, readers=1, aurora=aurora)
    hosts = ",".join(f"{each.address}:5432" for each in scene.cluster.instances.values())

    async def connect():
        if aurora:
            return await scene.connect(aurora_max_lag=bound)
        return await scene.process.connect(
            f"host={','.join(each.split(':')[0] for each in hosts.split(','))} dbname=app aurora_role=reader",
            aurora_max_lag=bound,
            aurora_reader_fallback="error",
            aurora_failover_timeout=1,
        )

    async def client():
        reader = scene.cluster.instances["demo-2"]
        (await connect()).close()
        stopped, refused = scene.simulation.now, 0
        for _ in range(60):
            await scene.simulation.sleep(0.25)
            reader.lag = 0.01 + scene.simulation.now - stopped
            try:
                connection = await connect()
            except NoInstanceAvailable:
                refused += 1
            else:
                assert scene.simulation.now - stopped <= bound + 0.3
                connection.close()
        assert refused
        reader.lag = 0.01
        assert (await connect()).instance is reader, "it has caught up"

    scene.run(client())


def test_an_answer_gets_older_while_another_reader_is_dialled():
    """The topology is read on one reader, and the preferred one hangs: when that is given up, the first one lags."""
    scene = LagScene()
    first, preferred = scene.cluster.instances["demo-2"], scene.cluster.instances["demo-3"]

    async def fall_behind():
        while True:
            await scene.simulation.sleep(0.1)
            first.lag = scene.simulation.now

    async def client():
        preferred.condition = Condition.HANGING
        scene.simulation.spawn(fall_behind())
        zones = {"aurora_zones": "near", "aurora_zone_map": "demo-2=far,demo-3=near"}
        host = scene.cluster.host("instance:demo-2")
        with pytest.raises(NoInstanceAvailable, match="no instance that fits"):
            await scene.process.connect(
                f"host={host} dbname=app aurora_role=reader",
                aurora_reader_fallback="error",
                aurora_failover_timeout=4,
                aurora_connect_timeout=2,
                aurora_max_lag=1.0,
                **zones,
            )

    scene.run(client())


def test_within_the_bound_nothing_is_asked():
    scene = LagScene()

    async def client():
        for _ in range(4):
            await scene.connect(aurora_max_lag=5.0)
        assert await scene.asked(aurora_max_lag=5.0) in [(0, "demo-2"), (0, "demo-3")]
        await scene.simulation.sleep(5.0)
        asked, _ = await scene.asked(aurora_max_lag=5.0)
        assert asked == 1
        asked, _ = await scene.asked(aurora_max_lag=5.0)
        assert asked == 0, "one answer has all readers"
        await scene.simulation.sleep(1.0)
        assert [(await scene.asked(aurora_max_lag=0.02))[0] for _ in range(3)] == [1, 1, 1]

    scene.run(client())


def test_the_monitor_looks_as_often_as_a_bound_needs():
    scene = LagScene(WatchedProcess)

    async def client():
        held = [await scene.connect(aurora_max_lag=4.0) for _ in range(4)]
        for _ in range(8):
            await scene.simulation.sleep(3.1)
            asked, _ = await scene.asked(aurora_max_lag=4.0)
            assert asked == 0
        before = scene.simulation.counts["ask"]
        await scene.simulation.sleep(20.0)
        assert scene.simulation.counts["ask"] - before <= 2 * 20 / (2.0 * 0.75) + 2, "and no more often"
        assert held

    scene.run(client())


def test_a_reader_that_lags_is_not_asked_at_each_connect():
    scene = LagScene(readers=1)

    async def client():
        scene.cluster.instances["demo-2"].lag = 9.0
        for _ in range(3):
            connection = await scene.process.connect(scene.cluster.conninfo("reader"), aurora_max_lag=1.0)
            assert connection.instance.writer
        before = scene.simulation.counts["dial"]
        for _ in range(20):
            assert (await scene.process.connect(scene.cluster.conninfo("reader"), aurora_max_lag=1.0)).instance.writer
        assert scene.simulation.counts["dial"] - before == 20

    scene.run(client())


@pytest.mark.parametrize("how", ["address", "aurora_instance"])
def test_the_bound_holds_where_nothing_is_chosen(how):
    """Through an address, or to the one instance that is named."""
    scene = LagScene()

    async def connect():
        reader = scene.cluster.instances["demo-2"]
        if how == "address":
            return await scene.process.connect(
                f"host={reader.address} dbname=app", aurora_role="reader", aurora_max_lag=0.1, aurora_failover_timeout=1
            )
        return await scene.process.connect(
            scene.cluster.conninfo(), aurora_instance="demo-2", aurora_max_lag=0.1, aurora_failover_timeout=1
        )

    async def client():
        for _ in range(3):
            assert (await connect()).instance.id == "demo-2"
        await scene.simulation.sleep(3.0)
        scene.cluster.instances["demo-2"].lag = 3.0
        with pytest.raises(NoInstanceAvailable, match="aurora_max_lag"):
            await connect()
        scene.cluster.instances["demo-2"].lag = 0.05
        assert (await connect()).instance.id == "demo-2"

    scene.run(client())


def test_what_a_writer_does_not_lag_says_nothing_of_it_as_a_reader():
    scene = LagScene(readers=1)

    async def client():
        await scene.connect(aurora_max_lag=5.0)
        await scene.connect("writer")
        scene.cluster.failover("demo-2")
        scene.cluster.instances["demo-1"].lag = 7.0
        connection = await scene.connect("writer")
        view = connection.result.cluster.view
        assert view.instances["demo-1"].role is Role.READER
        with pytest.raises(NoInstanceAvailable):
            await scene.connect(aurora_max_lag=5.0)

    scene.run(client())
