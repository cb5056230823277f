"""Readers that have just joined are found when one is wanted; a former writer is a reader by its own report alone."""

from __future__ import annotations

import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.simulation import Condition, SimulatedProcess, WatchedProcess
from tests.flow.scene import Scene

both = pytest.mark.parametrize("process", [SimulatedProcess, WatchedProcess], ids=["unwatched", "watched"])


@both
@pytest.mark.parametrize("role", ["reader", "prefer-reader"])
def test_a_reader_that_joined_is_used_as_soon_as_one_is_wanted(process, role):
    scene = Scene(process, readers=0)

    async def client():
        connect, conninfo = scene.process.connect, scene.cluster.conninfo()
        assert (await connect(conninfo, aurora_role=role)).instance.id == "demo-1"
        scene.cluster.add("demo-2")
        await scene.simulation.sleep(1.1)
        assert (await connect(conninfo, aurora_role=role)).instance.id == "demo-2"

    scene.run(client())


@pytest.mark.parametrize("back", [10.0, 12.0, 15.0])
def test_a_reader_of_a_list_that_is_back_is_found_within_two_dials(back):
    """All hosts of a list hung; those that are silent still are dialled after the one that has answered others."""
    scene = Scene(SimulatedProcess, readers=2, aurora=False)
    hosts = ",".join(scene.cluster.host(f"instance:{each}") for each in scene.cluster.instances)
    took = []

    async def connect(pause):
        await scene.simulation.sleep(pause)
        made = await scene.process.connect(f"host={hosts} target_session_attrs=standby", aurora_failover_timeout=60)
        assert made.instance.id.startswith("demo-3")
        took.append(scene.simulation.now - began - back)
        made.close()

    async def client():
        (await scene.process.connect(f"host={hosts} target_session_attrs=read-write")).close()
        for id_ in scene.cluster.instances:
            scene.cluster.hang(id_)
        nonlocal began
        began = scene.simulation.now
        scene.simulation.at(began + back, lambda: scene.cluster.heal("demo-3"))
        for each in [scene.simulation.spawn(connect(0.1 * number)) for number in range(5)]:
            await each.wait()

    began = 0.0
    scene.run(client())
    assert max(took) <= 10.5, took


@both
def test_looking_for_readers_costs_a_query_a_second_at_most(process):
    scene = Scene(process, readers=0)

    async def client():
        for _ in range(3):
            await scene.process.connect(scene.cluster.conninfo("reader"))
        before = scene.simulation.counts["ask"]
        for _ in range(100):
            await scene.process.connect(scene.cluster.conninfo("reader"))
            await scene.simulation.sleep(0.1)
        looked = scene.simulation.counts["ask"] - before - 100  # a cluster without a reader is asked for its role
        assert looked <= 11

    scene.run(client())


def test_the_monitor_looks_where_no_reader_is_an_error():
    scene = Scene(WatchedProcess, readers=0)

    async def client():
        writer = await scene.process.connect(scene.cluster.conninfo())
        joined = scene.simulation.now + 5.0
        scene.simulation.at(joined, lambda: scene.cluster.add("demo-2"))
        reader = await scene.process.connect(scene.cluster.conninfo("reader"), aurora_reader_fallback="error")
        assert reader.instance.id == "demo-2"
        assert scene.simulation.now - joined < 7.0
        assert not writer.closed

    scene.run(client())


@both
@pytest.mark.parametrize("role", ["reader", "prefer-reader", "any"])
def test_a_former_writer_that_does_not_know_it_is_no_reader(process, role):
    """It is the only reader that is known, and takes itself for the writer still."""
    scene = Scene(process, readers=1)

    async def client():
        connect, conninfo = scene.process.connect, scene.cluster.conninfo()
        await connect(conninfo)
        await connect(conninfo, aurora_role="reader")
        await scene.simulation.sleep(1.0)
        scene.cluster.failover("demo-2", zombie=True)
        await scene.simulation.sleep(1.0)
        assert (await connect(scene.cluster.conninfo("instance:demo-2"), aurora_role="writer")).instance.id == "demo-2"
        for _ in range(6):
            assert (await connect(conninfo, aurora_role=role)).instance.id == "demo-2"
        name = scene.cluster.conninfo("custom:some")
        scene.cluster.customs["some"] = ("demo-2",)
        assert (await connect(name, aurora_role="writer")).instance.id == "demo-2"
        scene.cluster.customs["some"] = ("demo-1",)
        if role != "any":
            with pytest.raises(NoInstanceAvailable):
                await connect(name, aurora_role=role, aurora_failover_timeout=1)

    scene.run(client())


def test_an_instance_that_was_silent_is_not_dialled_again_as_a_reader():
    """It stood in for a reader as the writer; while it is dialled, another instance is found to be the writer."""
    scene = Scene(SimulatedProcess, readers=1)
    connect, conninfo = scene.process.connect, scene.cluster.conninfo()

    async def client():
        await connect(conninfo)
        scene.cluster.hang("demo-1")
        scene.cluster.instances["demo-2"].condition = Condition.STARTING
        began = scene.simulation.now
        reader = scene.simulation.spawn(connect(conninfo, aurora_role="reader"))
        await scene.simulation.sleep(1.0)
        scene.cluster.failover("demo-2", zombie=True)
        scene.cluster.instances["demo-2"].condition = Condition.WELL
        await connect(conninfo, aurora_instance="demo-2")  # asks the former writer first, as long as a ping may take
        assert (await reader.wait()).instance.id == "demo-2"
        assert scene.simulation.now - began < 2.5, "a dial may take 5 s"

    scene.run(client())


def test_a_name_that_leads_to_an_instance_that_was_silent_is_asked_last():
    scene = Scene(SimulatedProcess, readers=1)
    connect, conninfo = scene.process.connect, scene.cluster.conninfo("reader")
    silent, other = scene.cluster.instances.values()

    async def client():
        await connect(scene.cluster.conninfo())
        scene.cluster.network.dns.pin(scene.cluster.host("reader"), silent.address)
        scene.cluster.hang(silent.id)
        other.condition = Condition.STARTING
        began = scene.simulation.now
        scene.simulation.at(began + 1.0, lambda: scene.cluster.failover(other.id, zombie=True))
        scene.simulation.at(began + 1.0, lambda: setattr(other, "condition", Condition.WELL))
        assert (await connect(conninfo)).instance is other
        assert scene.simulation.now - began < 5.5, "the time of one dial"

    scene.run(client())


@pytest.mark.parametrize("named", [False, True], ids=["chosen", "named"])
def test_a_last_resort_that_is_silent_is_given_up_when_another_reader_answers(named):
    """A dial of a reader that failed before may take as long as a dial may; the other one is back long before that.

    No other one may serve where an instance was named.
    """
    scene = Scene(WatchedProcess, readers=2)
    simulation, cluster, connect = scene.simulation, scene.cluster, scene.process.connect
    conninfo = cluster.conninfo("reader")
    options = {"aurora_reader_fallback": "error", "aurora_quarantine": 30.0}

    async def client():
        await connect(cluster.conninfo("writer"))
        cluster.hang("demo-2")
        cluster.crash("demo-3")
        with pytest.raises(NoInstanceAvailable):
            await connect(conninfo, **options, aurora_failover_timeout=6.0)
        began = simulation.now
        simulation.at(began + 1.0, lambda: cluster.heal("demo-3"))
        if named:
            with pytest.raises(NoInstanceAvailable) as caught:
                await connect(conninfo, **options, aurora_instance="demo-2", aurora_failover_timeout=6.0)
            assert not any("given up" in each.outcome for each in caught.value.attempts)
        else:
            assert (await connect(conninfo, **options)).instance.id == "demo-3"
            assert simulation.now - began < 2.5

    scene.run(client())


@both
def test_a_silent_reader_is_not_waited_out_again_before_an_instance_that_reset_a_dial(process):
    scene = Scene(process, readers=1, aurora=False)
    writer, reader = scene.cluster.instances["demo-1"], scene.cluster.instances["demo-2"]

    async def client():
        connect, conninfo = scene.process.connect, f"host={writer.address},{reader.address} dbname=app"
        await connect(conninfo, aurora_role="reader")
        began = scene.simulation.now
        reader.condition = Condition.HANGING
        scene.simulation.at(began + 1.9, lambda: setattr(writer, "condition", Condition.RESETTING))
        scene.simulation.at(began + 2.003, lambda: setattr(writer, "condition", Condition.WELL))
        found = await connect(conninfo, aurora_role="reader", aurora_connect_timeout=2.0)
        return found.instance.id, scene.simulation.now - began

    instance, seconds = scene.run(client())
    assert instance == "demo-1"
    assert seconds < 3.0


@pytest.mark.parametrize("role", ["reader", "any"])
def test_a_reader_that_hangs_is_dialled_by_the_monitor_alone_until_it_answers(role):
    scene = Scene(WatchedProcess, readers=2)
    silent = scene.cluster.instances["demo-2"]

    async def client():
        connect, conninfo = scene.process.connect, scene.cluster.conninfo()
        kept = await connect(conninfo)
        silent.condition = Condition.HANGING
        kept.result.cluster.suspect_writer("so that all are asked", scene.simulation.now)
        await scene.simulation.sleep(2.0)
        waited = []
        for _ in range(80):
            began = scene.simulation.now
            (await connect(conninfo, aurora_role=role, aurora_balance="round_robin")).close()
            waited.append(scene.simulation.now - began)
            await scene.simulation.sleep(0.5)
        silent.condition = Condition.WELL
        await scene.simulation.sleep(8.0)
        found = [(await connect(conninfo, aurora_role="reader")).instance.id for _ in range(4)]
        assert not kept.closed
        return waited, found

    waited, found = scene.run(client())
    assert max(waited) < 1.0
    assert "demo-2" in found
