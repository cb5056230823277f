"""RDS Multi-AZ DB clusters: recognised by themselves, one answer lists all, each instance speaks for itself."""

from __future__ import annotations

import psycopg
import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.model.event import ClaimRefused, ConfigurationAdvice, MonitorLockedOut
from aurora_router.model.instance import Role
from aurora_router.runtime.simulated.instance import Condition
from aurora_router.simulation import SimulatedProcess, WatchedProcess
from tests.flow.scene import Scene


class MultiAzScene(Scene):
    def __init__(self, process=SimulatedProcess, **made):
        super().__init__(process, **{"multi_az": True, **made})

    async def connect(self, target="writer", **options):
        return await self.process.connect(self.cluster.conninfo(target, **options))

    async def asks(self, target="writer", **options):
        """How many queries a connect sends."""
        before = self.simulation.counts["ask"]
        await self.connect(target, **options)
        return self.simulation.counts["ask"] - before

    def heard(self, kind):
        return [event for _, _, event in self.process.events if isinstance(event, kind)]


def test_the_first_connect_learns_all_instances():
    scene = MultiAzScene()

    async def client():
        conn = await scene.connect("reader")
        return conn.instance.id, conn.result.cluster

    reader, cluster = scene.run(client())
    assert reader in {"demo-2", "demo-3"}
    assert cluster.source.name == "multi_az"
    assert {id_: each.role for id_, each in cluster.view.instances.items()} == {
        "demo-1": Role.WRITER, "demo-2": Role.READER, "demo-3": Role.READER,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("made", "first", "then"),
    [
        ({"multi_az": False, "aurora": True}, 1, 0),
        ({"multi_az": True}, 2, 0),
        ({"multi_az": False, "aurora": False}, 3, 1),  # of one server alone, whose report nothing has proven
    ],
    ids=["aurora", "multi-az", "plain"],
)
def test_recognising_it_costs_a_cold_connect_one_query_and_a_warm_one_none(made, first, then):
    scene = MultiAzScene(WatchedProcess, **made)

    async def client():
        cold = await scene.asks()
        await scene.simulation.sleep(0.5)  # the monitor checks what readers report when they are connected to
        return cold, [await scene.asks() for _ in range(3)]

    cold, warm = scene.run(client())
    assert cold == first
    assert warm == [then] * 3


def test_a_stale_list_changes_no_writer():
    """A standby goes on naming the former writer as its source, and that one runs: the timeline decides."""
    scene = MultiAzScene()
    cluster = scene.cluster

    async def client():
        first = await scene.connect()
        cluster.freeze_view("demo-3")
        cluster.failover("demo-2", zombie=True)
        second = await scene.process.topology(cluster.conninfo("instance:demo-2"))
        third = await scene.process.topology(cluster.conninfo("instance:demo-3"))
        again = await scene.connect()
        return first.instance.id, second.writer, third.writer, third.token, again.instance.id

    first, second, third, token, again = scene.run(client())
    assert (first, second, third, again) == ("demo-1", "demo-2", "demo-2", "demo-2")
    assert token == 2


def test_a_zombie_on_a_lower_timeline_is_refused_also_when_the_writer_is_silent():
    scene = MultiAzScene(WatchedProcess)
    cluster = scene.cluster

    async def client():
        await scene.connect()
        cluster.failover("demo-2", zombie=True)
        view = await scene.process.topology(cluster.conninfo("instance:demo-2"))
        assert view.writer == "demo-2"
        cluster.hang("demo-2")
        with pytest.raises(NoInstanceAvailable):
            await scene.connect(aurora_failover_timeout=5)

    scene.run(client())
    assert any(each.claimed == "demo-1" for each in scene.heard(ClaimRefused))


def test_a_failover_is_followed():
    scene = MultiAzScene(WatchedProcess)

    async def client():
        await scene.connect()
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-3")
        began = scene.simulation.now
        conn = await scene.connect()
        return conn.instance.id, scene.simulation.now - began

    instance, seconds = scene.run(client())
    assert instance == "demo-3"
    assert seconds < 0.5


@pytest.mark.parametrize("process", [SimulatedProcess, WatchedProcess], ids=["unwatched", "watched"])
def test_logins_that_are_refused_while_an_instance_restarts_are_tried_again(process):
    scene = MultiAzScene(process)
    writer = scene.cluster.instances["demo-1"]

    async def client():
        await scene.connect()
        writer.drop_connections()
        writer.condition = Condition.BARRED
        scene.simulation.at(scene.simulation.now + 3.0, lambda: scene.cluster.heal("demo-1"))
        began = scene.simulation.now
        conn = await scene.connect()
        return conn.instance.id, scene.simulation.now - began

    instance, seconds = scene.run(client())
    assert instance == "demo-1"
    assert 3.0 <= seconds < 4.5
    assert not (process is WatchedProcess and scene.heard(MonitorLockedOut))


@pytest.mark.parametrize("made", [{"multi_az": False}, {"multi_az": False, "aurora": False}], ids=["aurora", "plain"])
def test_elsewhere_they_are_final(made):
    scene = MultiAzScene(**made)

    async def client():
        await scene.connect()
        scene.cluster.instances["demo-1"].condition = Condition.BARRED
        with pytest.raises(psycopg.OperationalError, match="PAM authentication failed"):
            await scene.connect()
        return scene.simulation.now

    assert scene.run(client()) < 1.0


def test_a_user_without_rights_is_advised_of_the_grants():
    scene = MultiAzScene(WatchedProcess)
    for each in scene.cluster.instances.values():
        each.forbids = "42501"

    async def client():
        return (await scene.connect()).instance.id

    scene.run(client())
    (advice,) = [each for each in scene.heard(ConfigurationAdvice) if "may not ask" in str(each)]
    assert "GRANT USAGE ON SCHEMA rds_tools" in str(advice)


def test_a_cluster_endpoint_before_plain_postgresql_is_advised_of_the_extension():
    scene = MultiAzScene(WatchedProcess, multi_az=False, aurora=False)

    async def client():
        for _ in range(2):
            await scene.connect()

    scene.run(client())
    (advice,) = [each for each in scene.heard(ConfigurationAdvice) if "CREATE EXTENSION" in str(each)]
    assert "if it is an instance of an RDS Multi-AZ DB cluster: CREATE EXTENSION rds_tools" in str(advice)


def test_named_as_the_only_source_it_refuses_other_servers():
    from aurora_router.errors import InvalidOption

    scene = MultiAzScene(multi_az=False, aurora=False)

    async def client():
        with pytest.raises(InvalidOption, match=r"aurora_source=multi_az, but .* is not an RDS Multi-AZ DB cluster"):
            await scene.connect(aurora_source="multi-az")

    scene.run(client())


def test_a_single_instance_that_has_the_functions_is_plain_postgresql():
    scene = MultiAzScene(readers=0)
    scene.cluster.instances["demo-1"].rewrites = lambda rows: []
    scene.cluster.instances["demo-1"].writer = False  # so that nothing in the answer names a source

    async def client():
        return (await scene.connect(aurora_role="any")).result.cluster.source.name

    assert scene.run(client()) == "postgresql"
