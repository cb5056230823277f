"""Connects through relays and poolers that report a role of their own: the role is the server's word all the same."""

from __future__ import annotations

import pytest

from aurora_router.model.observation import Row, Topology
from aurora_router.policy.role_reports import PROOF_SECONDS
from aurora_router.simulation import Network, SimulatedProcess, WatchedProcess
from tests.flow.scene import Scene


class Between(Network):
    """A network with something between the clients and some of the servers.

    Attributes:
        at: address -> what is there: ``relay`` reports a constant ``off``; ``pooler`` what it saw first, and process
            ids of its own.
    """

    def __init__(self, simulation):
        super().__init__(simulation)
        self.at = {}
        self._remembered = {}

    async def dial(self, address, port, *rest):
        connection = await super().dial(address, port, *rest)
        kind = self.at.get(address)
        if kind is not None:
            connection.client_port += 1
            word = self._remembered.setdefault(address, connection.in_hot_standby) if kind == "pooler" else False
            connection.reported = lambda: setattr(connection, "in_hot_standby", word)
            connection.report_role()
        if kind == "pooler":
            connection.backend_pid = 1_700_000_000 + connection.server_pid
        return connection


class RelayScene(Scene):
    def __init__(self, process=SimulatedProcess, readers=2):
        super().__init__(process, network=Between, readers=readers)

    def put(self, kind, *ids):
        for id_ in ids or self.cluster.instances:
            self.network.at[self.cluster.instances[id_].address] = kind

    async def connect(self, target="writer", **options):
        connection = await self.process.connect(self.cluster.conninfo(target), **options)
        self.asked, self._before = self.simulation.counts["ask"] - self._before, self.simulation.counts["ask"]
        return connection

    _before = 0


@pytest.mark.case
@pytest.mark.parametrize("process", [SimulatedProcess, WatchedProcess], ids=["unwatched", "watched"])
@pytest.mark.parametrize("ids", [(), ("demo-1",), ("demo-1", "demo-3")], ids=["all", "the writer's", "some"])
@pytest.mark.parametrize("kind", ["relay", "pooler"])
def test_a_demoted_writer_is_never_the_writer(kind, ids, process):
    """Also where the others' reports are honest, and where nothing was heard of the failover."""
    scene = RelayScene(process)
    scene.put(kind, *ids)

    async def client():
        for target in ("writer", "writer", "reader", "reader", "reader", "writer"):
            connection = await scene.connect(target)
            assert connection.instance.writer is (target == "writer")
            connection.close()
        await scene.simulation.sleep(3.0)
        for to in ("demo-2", "demo-1", "demo-3"):
            scene.cluster.failover(to)
            for target in ("writer", "reader", "writer", "reader"):
                connection = await scene.connect(target)
                assert connection.instance.writer is (target == "writer")
                connection.close()

    scene.run(client())


def test_direct_paths_are_asked_once_in_a_while():
    scene = RelayScene()

    async def client():
        asked = []
        for target in ("writer", "writer", "reader", "reader", "reader", "reader", "writer", "writer"):
            await scene.connect(target)
            asked.append(scene.asked)
        assert asked == [1, 1, 1, 1, 0, 0, 0, 0]
        await scene.simulation.sleep(PROOF_SECONDS)
        await scene.connect("writer", aurora_refresh=1000)
        assert scene.asked == 1
        await scene.connect("writer", aurora_refresh=1000)
        assert scene.asked == 0

    scene.run(client())


def test_the_monitor_sees_to_it_that_connects_to_the_writer_need_not_ask():
    scene = RelayScene(WatchedProcess)

    async def client():
        await scene.connect()
        await scene.connect()
        assert scene.asked == 1
        await scene.simulation.sleep(1.0)
        assert not [each for each in scene.cluster.readers if each.connections], "the monitor's session is closed"
        await scene.connect()
        before = scene.simulation.counts["ask"]
        await scene.connect()
        assert scene.simulation.counts["ask"] == before

    scene.run(client())


def test_a_pooler_that_takes_the_place_of_the_server_is_noticed():
    scene = RelayScene()

    async def client():
        for target in ("writer", "reader", "writer", "writer"):
            await scene.connect(target)
        assert scene.asked == 0
        scene.put("pooler", "demo-1")
        await scene.connect()
        assert scene.asked == 1
        scene.network.at.clear()
        await scene.connect()
        assert scene.asked == 1, "what was not direct once is asked for good"

    scene.run(client())


def test_a_cluster_without_a_standby_is_asked_at_each_connect():
    scene = RelayScene(readers=0)

    async def client():
        for _ in range(4):
            await scene.connect()
            assert scene.asked == 1

    scene.run(client())


def test_a_writer_that_is_replaced_while_it_is_asked_for_its_role_is_not_handed_out():
    """Its answer is that of a former writer that does not know it; the news came while it was under way."""
    scene = RelayScene()
    scene.put("relay")
    simulation, cluster = scene.simulation, scene.cluster

    async def client():
        await scene.connect()
        again = await scene.connect()  # by its own name, which is known from now on
        known, writer = again.result.cluster, again.instance
        asked_at = simulation.now + writer.accept_latency + writer.latency / 2
        rows = (Row("demo-1", writer=False, token=10**9), Row("demo-2", writer=True, token=10**9))

        def news():
            cluster.failover("demo-2", zombie=True)
            known.observe(Topology(rows, "demo-2", observer_is_writer=True), simulation.now)

        simulation.at(asked_at, news)
        return (await scene.connect()).instance.id

    assert scene.run(client()) == "demo-2"
