"""Dials to a new writer begin in turn; those of ordinary days do not wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from aurora_router.errors import RoutingError
from aurora_router.flow.attempt import DialAttention
from aurora_router.flow.dial_limiter import STAND_IN_PAUSE, UNWATCHED_PAUSE, DialPermit
from aurora_router.policy.slow_start import CALM, FIRST_JITTER, HOLD, URGENT_HOLD
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.simulation import (
    Condition,
    Network,
    SimulatedCluster,
    SimulatedProcess,
    Simulation,
    WatchedProcess,
)


@pytest.fixture
def scene():
    with Simulation(seed=3) as simulation:
        network = Network(simulation)
        yield simulation, SimulatedCluster(network), WatchedProcess(network)


def change(cluster, slow_start):
    """Replace the slow start of a cluster's writer."""
    limit = replace(cluster.state.dial_limit, slow_start=slow_start)
    cluster.update(lambda state: state.change_dial_limit(limit))


async def follow_failover(process, cluster):
    """Return what a process knows of a cluster once it has connected to the new writer, demo-2."""
    known = (await process.connect(cluster.conninfo())).result.cluster
    cluster.failover("demo-2")
    await process.connect(cluster.conninfo())
    return known


async def many(simulation, process, cluster, count: int) -> list[float]:
    """Connect `count` times at once; when each was there."""
    arrived: list[float] = []

    async def one() -> None:
        await process.connect(cluster.conninfo())
        arrived.append(simulation.now)

    for task in [simulation.spawn(one()) for _ in range(count)]:
        await task.wait()
    return arrived


def test_nobody_waits_before_a_failover(scene):
    simulation, cluster, process = scene

    async def main():
        known = (await process.connect(cluster.conninfo())).result.cluster
        began = simulation.now
        arrived = await many(simulation, process, cluster, 20)
        assert max(arrived) - began < 2 * cluster.instances["demo-1"].accept_latency
        assert known.slow_start is None

    simulation.run(main())


def test_after_one_they_double(scene):
    simulation, cluster, process = scene

    async def main():
        conn = await process.connect(cluster.conninfo())
        cluster.failover("demo-2")
        again = await process.connect(cluster.conninfo())
        assert again.instance.id == "demo-2"
        known = conn.result.cluster
        assert known.state.dial_limit.epoch == 2
        arrived = await many(simulation, process, cluster, 100)
        waves = Counter(round(at, 6) for at in arrived)
        assert [waves[at] for at in sorted(waves)][:2] == [2, 8], "twice as many with each success"
        assert max(arrived) - min(arrived) < 0.1, "quick ones"
        assert known.slow_start is None, "it is over"

    simulation.run(main())


def test_a_full_server_is_left_in_peace(scene):
    simulation, cluster, process = scene

    async def main():
        conn = await process.connect(cluster.conninfo())
        cluster.failover("demo-2")
        await process.connect(cluster.conninfo())
        assert conn.result.cluster.slow_start.width == 2
        cluster.instances["demo-2"].condition = Condition.FULL
        simulation.at(simulation.now + 2.0, lambda: cluster.heal("demo-2"))
        simulation.counts.clear()
        arrived = await many(simulation, process, cluster, 10)
        assert len(arrived) == 10
        assert simulation.counts["dial"] <= 10 + 40, "with pauses of half a second, for two seconds"

    simulation.run(main())


def test_who_gives_up_leaves_his_place(scene):
    simulation, cluster, process = scene

    async def main():
        conn = await process.connect(cluster.conninfo())
        cluster.failover("demo-2")
        await process.connect(cluster.conninfo())
        known = conn.result.cluster
        turns = [DialPermit(process.runtime, known) for _ in range(known.slow_start.width)]
        for turn in turns:
            await turn.wait(lambda: 5.0)
        late = DialPermit(process.runtime, known)
        task = simulation.spawn(late.wait(lambda: 5.0))
        await simulation.sleep(3 * FIRST_JITTER)
        assert not task.done
        turns[0].end()
        await task.wait()
        for turn in (*turns, late):
            turn.end()
            turn.end()
        assert known.slow_start.under_way == 0

    simulation.run(main())


def test_a_late_dial_of_the_former_writer_says_nothing_of_the_new_one(scene):
    """It timed out because that one hung: the new writer has room, and no connect pauses."""
    simulation, cluster, process = scene

    async def main():
        known = (await process.connect(cluster.conninfo())).result.cluster
        cluster.failover("demo-2")
        (await process.connect(cluster.conninfo())).close()
        turn = DialPermit(process.runtime, known)
        await turn.wait(lambda: 60.0)
        cluster.failover("demo-3")
        (await process.connect(cluster.conninfo())).close()
        width = known.slow_start.width
        turn.record_failure(Fault(FaultKind.TIMEOUT))
        assert (known.slow_start.width, known.slow_start.under_way) == (width, 0)

    simulation.run(main())


def test_a_process_without_a_watch_looks_for_another_writer_while_it_pauses(scene):
    simulation, cluster, _ = scene
    process = SimulatedProcess(cluster.network)

    async def main():
        known = (await process.connect(cluster.conninfo())).result.cluster
        cluster.failover("demo-2")
        await process.connect(cluster.conninfo())  # a process without any connection pauses for less
        change(known, known.slow_start.record_trouble(5.0, simulation.now, 1.0))
        assert known.slow_start.until - simulation.now > 6 * UNWATCHED_PAUSE
        cluster.hang("demo-2")
        cluster.failover("demo-3", zombie=True)
        began = simulation.now
        conn = await process.connect(cluster.conninfo())
        assert conn.instance.id == "demo-3"
        assert simulation.now - began < UNWATCHED_PAUSE + 2.0, (
            "the former writer is asked for as long as a ping may take"
        )

    simulation.run(main())


def test_a_reader_does_not_wait_long_for_the_writer_in_its_place(scene):
    """What is believed to be the writer has trouble, and the only reader had some: the reader is tried first."""
    simulation, cluster, process = scene

    async def main():
        known = (await process.connect(cluster.conninfo())).result.cluster
        cluster.failover("demo-2")
        (await process.connect(cluster.conninfo())).close()
        change(known, known.slow_start.record_trouble(5.0, simulation.now, 1.0))
        assert known.slow_start.until - simulation.now > 20.0
        for id_ in ("demo-1", "demo-3"):
            known.record_failure(id_, simulation.now, 60.0, simulation.now)
        began = simulation.now
        conn = await process.connect(cluster.conninfo("reader"))
        assert conn.instance.id in {"demo-1", "demo-3"}
        assert simulation.now - began <= STAND_IN_PAUSE + 0.1

    simulation.run(main())


def in_long_pause(simulation, known):
    """Three slow logins, one after the other, call for a pause of more than a minute."""
    slow_start = known.slow_start
    for each in range(3):
        slow_start = slow_start.record_trouble(3.0, simulation.now + 4.0 * each, 1.0)
    change(known, slow_start)
    assert slow_start.until - simulation.now > 60.0


@pytest.mark.parametrize(("is_urgent", "hold"), [(True, URGENT_HOLD), (False, HOLD)])
def test_a_pause_holds_back_a_connect_for_a_part_of_its_time(scene, is_urgent, hold):
    """Else no one would find out that the server has room again."""
    simulation, cluster, process = scene

    async def main():
        known = await follow_failover(process, cluster)
        in_long_pause(simulation, known)
        began, patience = known.slow_start.known_at, 30.0
        await simulation.sleep(began - simulation.now)
        permit = DialPermit(process.runtime, known)
        assert await permit.wait(lambda: max(0.0, began + patience - simulation.now), is_urgent=is_urgent)
        least, most = hold
        assert least * patience <= simulation.now - began <= most * patience

    simulation.run(main())


def test_who_was_held_back_until_the_end_condemns_no_one(scene):
    """It dials no more, says why, and the writer is not suspected for it."""
    simulation, cluster, process = scene

    async def main():
        known = await follow_failover(process, cluster)
        in_long_pause(simulation, known)
        with pytest.raises(RoutingError, match="demo-2: not dialled: after the failover it took long"):
            await process.connect(cluster.conninfo(aurora_failover_timeout="10"))
        assert known.suspected_at is None

    simulation.run(main())


def test_a_dial_for_which_little_time_was_left_condemns_no_one(scene):
    simulation, cluster, process = scene

    async def main():
        known = (await process.connect(cluster.conninfo())).result.cluster
        cluster.instances["demo-1"].accept_latency = 0.5
        with pytest.raises(RoutingError, match="within"):
            await process.connect(cluster.conninfo(aurora_failover_timeout="0.3"))
        assert known.suspected_at is None
        assert not known.is_known_down("demo-1")
        began = simulation.now
        assert (await process.connect(cluster.conninfo())).instance.id == "demo-1"
        assert simulation.now - began < 0.6, "it is not avoided either"

    simulation.run(main())


def test_long_after_a_failover_nobody_waits_whatever_a_handshake_takes(scene):
    """A pool of a few connections never dials often enough to end the slow start by success."""
    simulation, cluster, process = scene

    async def main():
        conn = await process.connect(cluster.conninfo())
        cluster.failover("demo-2")
        await process.connect(cluster.conninfo())
        known = conn.result.cluster
        assert known.slow_start is not None
        await simulation.sleep(CALM + 1.0)
        cluster.instances["demo-2"].accept_latency = 1.0
        began = simulation.now
        arrived = await many(simulation, process, cluster, 5)
        assert max(arrived) - began < 3.0
        assert known.slow_start is None

    simulation.run(main())


@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("count", [2, 20])
def test_a_hiccup_costs_a_small_process_little(scene, seconds, count):
    """The new writer is slow for a moment; then it is as quick as before, and the pool is full soon after."""
    simulation, cluster, process = scene

    async def main():
        conn = await process.connect(cluster.conninfo())
        cluster.failover("demo-2")
        await process.connect(cluster.conninfo())
        assert conn.result.cluster.slow_start is not None
        writer, began = cluster.instances["demo-2"], simulation.now
        usual, writer.accept_latency = writer.accept_latency, seconds
        simulation.at(began + 0.5, lambda: setattr(writer, "accept_latency", usual))
        arrived = sorted(await many(simulation, process, cluster, 1 + count))
        assert arrived[0] - began == pytest.approx(seconds)
        following = [at for at in arrived if at > arrived[0] + 0.1]
        assert len(following) == count - 1
        assert following[0] - arrived[0] < seconds + 0.1
        assert following[-1] - following[0] < 0.1

    simulation.run(main())


async def after_a_failover(simulation, cluster, process):
    """A connection to the new writer, after one that knew the former."""
    (await process.connect(cluster.conninfo())).close()
    cluster.failover("demo-2")
    return await process.connect(cluster.conninfo())


@pytest.mark.parametrize("starved", [True, False])
def test_a_dial_that_is_slow_for_want_of_cpu_is_no_trouble_of_the_server(scene, starved):
    simulation, cluster, process = scene

    async def main():
        known = (await after_a_failover(simulation, cluster, process)).result.cluster
        cluster.instances["demo-2"].accept_latency = 4.0
        task = simulation.spawn(process.connect(cluster.conninfo()))
        await simulation.sleep(2.0)
        if starved:
            known.monitor.hangs.sample(late=1.0)
        await task.wait()
        assert (known.slow_start.row, known.slow_start.wait(simulation.now) > 0.0) == (
            (0, False) if starved else (1, True)
        )

    simulation.run(main())


@pytest.mark.parametrize("ending", ["success", "time-out"])
@pytest.mark.parametrize("blocked", [True, False])
def test_a_dial_to_which_its_own_event_loop_did_not_attend_is_no_trouble(scene, ending, blocked):
    simulation, cluster, process = scene

    async def main():
        known = (await after_a_failover(simulation, cluster, process)).result.cluster
        turn = DialPermit(process.runtime, known)
        await turn.wait(lambda: 60.0)
        attention = DialAttention(process.runtime, known)
        turn.was_steady = attention.was_steady
        wanted = attention.watch(lambda: True)
        for pause in [3.0] if blocked else [0.1] * 30:
            await simulation.sleep(pause)
            assert wanted()
        if ending == "success":
            turn.record_success()
        else:
            turn.record_failure(Fault(FaultKind.TIMEOUT))
        turn.end()
        assert (known.slow_start.row, known.slow_start.under_way) == (0 if blocked else 1, 0)

    simulation.run(main())


@pytest.mark.parametrize("kept", [True, False], ids=["attended", "not attended"])
def test_a_timeout_of_a_dial_that_this_process_did_not_attend_to_is_no_evidence(scene, kept, monkeypatch):
    simulation, cluster, process = scene
    monkeypatch.setattr(DialAttention, "was_steady", lambda _: kept)

    async def main():
        known = (await process.connect(cluster.conninfo())).result.cluster
        cluster.hang("demo-2")
        with pytest.raises(RoutingError) as caught:
            await process.connect(cluster.conninfo(), aurora_instance="demo-2", aurora_failover_timeout=0)
        assert ("was stalled" in str(caught.value)) is not kept
        assert ("demo-2" in known.state.health.failed_at) is kept
        assert (known.state.health.quarantine.remaining("demo-2", simulation.now) > 0.0) is kept

    simulation.run(main())


def test_a_process_without_a_connection_does_not_wait_long_after_one_slow_dial(scene):
    simulation, cluster, process = scene

    async def main():
        kept = await after_a_failover(simulation, cluster, process)
        known, slow = kept.result.cluster, cluster.instances["demo-2"]
        usual, slow.accept_latency = slow.accept_latency, 4.0
        (await process.connect(cluster.conninfo())).close()
        slow.accept_latency = usual
        assert known.slow_start.wait(simulation.now) > 6.0, "one that has a connection leaves the room to others"
        kept.close()
        began = simulation.now
        (await process.connect(cluster.conninfo())).close()
        assert simulation.now - began < 4.5

    simulation.run(main())


def test_a_quick_handshake_of_the_monitor_ends_the_wait_of_a_process_without_a_connection(scene):
    simulation, cluster, process = scene

    async def main():
        conn = await after_a_failover(simulation, cluster, process)
        known = conn.result.cluster
        change(known, known.slow_start.add_dial().record_failure(5.0, simulation.now, 1.0))
        change(known, known.slow_start.add_dial().record_failure(5.0, simulation.now + 6.0, 1.0))
        assert known.slow_start.wait(simulation.now, alone=True) > 15.0
        await known.monitor.probe_of("demo-2").close()
        known.suspect_writer("a dial failed", simulation.now)
        conn.close()
        began = simulation.now
        assert (await process.connect(cluster.conninfo())).instance.id == "demo-2"
        assert simulation.now - began < 1.0

    simulation.run(main())
