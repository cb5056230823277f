"""A connect by a custom endpoint's name: on its members alone, with balancing, lag bounds and failover within them."""

from __future__ import annotations

import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.model.description import MEMBERS_SECONDS, CustomEndpoint, Description, EndpointType
from aurora_router.simulation import Condition, SimulatedProcess, WatchedProcess
from tests.flow.scene import Scene

pytest.importorskip("botocore")

ANY, READERS = EndpointType.ANY, EndpointType.READER


class EndpointScene(Scene):
    """A cluster of five with the custom endpoint ``olap``, by DNS demo-2 and demo-3, and a process."""

    def __init__(self, process=SimulatedProcess):
        super().__init__(process, readers=4)
        self.cluster.customs["olap"] = ("demo-2", "demo-3")

    def describe(self, endpoint=None):
        """What a source of attributes says."""
        for each in {id(each): each for each in self.process.home._clusters.values()}.values():
            each.observe(Description("demo", {}, {} if endpoint is None else {"olap": endpoint}), self.simulation.now)

    async def connect(self, **options):
        return await self.process.connect(self.cluster.conninfo("custom:olap"), aurora_attributes="rds", **options)

    async def used(self, count=12, **options):
        """The instances of some connects, and how many went to each."""
        ids = [(await self.connect(**options)).instance.id for _ in range(count)]
        return {each: ids.count(each) for each in sorted(set(ids))}


both = pytest.mark.parametrize("process", [SimulatedProcess, WatchedProcess], ids=["unwatched", "watched"])


@both
def test_until_its_members_are_known_dns_decides(process):
    scene = EndpointScene(process)

    async def client():
        assert scene.cluster.customs["olap"] == tuple(await scene.used())
        scene.describe()
        assert scene.cluster.customs["olap"] == tuple(await scene.used()), "the source does not know it"

    scene.run(client())


@both
@pytest.mark.parametrize(
    ("endpoint", "members"),
    [
        (CustomEndpoint(ANY, static=frozenset({"demo-1", "demo-4"})), ["demo-1", "demo-4"]),
        (CustomEndpoint(READERS, excluded=frozenset({"demo-2", "demo-5"})), ["demo-3", "demo-4"]),
        (CustomEndpoint(ANY, excluded=frozenset({"demo-2", "demo-5"})), ["demo-1", "demo-3", "demo-4"]),
    ],
)
def test_connects_are_balanced_over_its_members(process, endpoint, members):
    scene = EndpointScene(process)

    async def client():
        first = await scene.connect()
        scene.describe(endpoint)
        counts = {**dict.fromkeys(members, 0), first.instance.id: 1}
        for id_, count in (await scene.used(12)).items():
            counts[id_] = counts.get(id_, 0) + count
        counted = [counts[each] for each in members]
        assert set(counts) - {first.instance.id} <= set(members)
        assert max(counted) - min(counted) <= 1

    scene.run(client())


@both
def test_a_failed_member_is_replaced_by_another_one(process):
    scene = EndpointScene(process)

    async def client():
        await scene.connect()
        scene.describe(CustomEndpoint(static=frozenset({"demo-4", "demo-5"})))
        scene.cluster.instances["demo-4"].condition = Condition.REFUSING
        assert set(await scene.used()) == {"demo-5"}

    scene.run(client())


@both
def test_where_no_member_is_left_no_other_instance_serves(process):
    scene = EndpointScene(process)

    async def client():
        await scene.connect()
        scene.describe(CustomEndpoint(static=frozenset({"demo-9"})))
        with pytest.raises(NoInstanceAvailable, match="no member of the custom endpoint"):
            await scene.connect(aurora_failover_timeout=2.0)

    scene.run(client())


@both
def test_a_writer_that_is_promoted_inside_is_no_member_of_an_endpoint_for_readers(process):
    scene = EndpointScene(process)

    async def client():
        await scene.connect()
        scene.describe(CustomEndpoint(READERS, excluded=frozenset({"demo-2"})))
        assert set(await scene.used()) == {"demo-3", "demo-4", "demo-5"}
        scene.cluster.failover("demo-3")
        await scene.simulation.sleep(40.0)
        await scene.process.topology(scene.cluster.conninfo())
        assert set(await scene.used()) == {"demo-1", "demo-4", "demo-5"}

    scene.run(client())


@both
def test_the_lag_is_bounded_within_its_members(process):
    scene = EndpointScene(process)

    async def client():
        await scene.connect()
        scene.describe(CustomEndpoint(static=frozenset({"demo-4", "demo-5"})))
        scene.cluster.instances["demo-4"].lag = 5.0
        await scene.process.topology(scene.cluster.conninfo())
        assert set(await scene.used(aurora_max_lag=1.0)) == {"demo-5"}

    scene.run(client())


@both
def test_members_that_were_read_long_ago_are_left_to_dns(process):
    scene = EndpointScene(process)

    async def client():
        held = await scene.connect()
        scene.describe(CustomEndpoint(static=frozenset({"demo-4"})))
        assert set(await scene.used()) == {"demo-4"}
        await scene.simulation.sleep(MEMBERS_SECONDS + 1.0)
        assert set(await scene.used()) == {"demo-2", "demo-3"}
        assert held is not None

    scene.run(client())
