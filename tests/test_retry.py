"""Rounds of reconnecting on the virtual clock: bounded, jittered, cut short by news."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise

import pytest

from aurora_router.flow.cluster import Cluster
from aurora_router.retry import FIRST_WAIT, LONGEST_WAIT, reconnecting
from aurora_router.runtime.registry import Registry
from aurora_router.simulation import Network, SimulatedRuntime, Simulation


class Again(Exception):
    pass


def begin_suspicions(simulation, cluster, suspicions):
    """Begin and end suspicions at given times; returns the function that begins or ends one."""

    def suspect(since):
        suspicion = replace(cluster.state.suspicion, since=since)
        cluster.update(lambda state: (replace(state, suspicion=suspicion), ()))
        cluster.wake()

    for begin, end in suspicions:
        simulation.at(begin, lambda begin=begin: suspect(begin))
        simulation.at(end, lambda: suspect(None))
    return suspect


def rounds(seed=0, lasting=10.0, succeed_after=None, news_at=(), writers_at=(), suspicions=(), may_get_writer=True):
    """The times at which rounds began, and how it ended; there is news, or a new writer, at some of them.

    Args:
        suspicions: each when it begins and when it ends; "round": when a round fails, and 5 ms later.
    """
    with Simulation(seed) as simulation:
        runtime = SimulatedRuntime(Network(simulation))
        cluster = Cluster(("here", ""), Registry(), threading.Lock())
        times = []
        for time in news_at:
            simulation.at(time, cluster.wake)

        def succeed():
            view = replace(cluster.view, epoch=cluster.view.epoch + 1)
            cluster.update(lambda state: (replace(state, view=view), ()))

        for time in writers_at:
            simulation.at(time, succeed)

        suspect = begin_suspicions(simulation, cluster, () if suspicions == "round" else suspicions)

        async def go():
            left = lambda: max(0.0, lasting - simulation.now)  # noqa: E731 - one line
            kwargs = {"retry_on": Again, "began": simulation.now, "may_get_writer": lambda: may_get_writer}
            async for attempt in reconnecting(runtime, cluster, left, **kwargs):
                with attempt:
                    times.append(simulation.now)
                    await simulation.sleep(0.001)
                    if suspicions == "round":
                        suspect(simulation.now)
                        simulation.at(simulation.now + 0.005, lambda: suspect(None))
                    if succeed_after is None or len(times) <= succeed_after:
                        raise Again(f"round {len(times)}")
                    return "connected"
            return None

        try:
            return times, simulation.run(go())
        except Again as error:
            return times, error


@pytest.mark.parametrize("seed", range(10))
def test_rounds_end_with_the_time_and_the_last_error(seed):
    times, error = rounds(seed)
    assert isinstance(error, Again)
    assert str(error) == f"round {len(times)}"
    assert 9.0 <= times[-1] <= 10.0
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert max(waits) <= LONGEST_WAIT + 0.001
    for number, wait in enumerate(waits[:5]):
        assert wait <= FIRST_WAIT * 2**number + 0.001


def test_clients_do_not_come_in_step():
    assert len({tuple(rounds(seed)[0][1:4]) for seed in range(20)}) == 20


def test_success_ends_it():
    times, result = rounds(succeed_after=3)
    assert (len(times), result) == (4, "connected")


def test_other_errors_end_it_at_once():
    with Simulation() as simulation:
        runtime = SimulatedRuntime(Network(simulation))
        cluster = Cluster(("here", ""), Registry(), threading.Lock())

        async def go():
            kwargs = {"retry_on": Again, "began": 0.0, "may_get_writer": lambda: True}
            async for attempt in reconnecting(runtime, cluster, lambda: 60.0, **kwargs):
                with attempt:
                    raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            simulation.run(go())
        assert simulation.now == 0.0


def test_a_new_writer_cuts_a_wait_short():
    quiet, _ = rounds(3)
    news = quiet[5] + 0.001
    times, _ = rounds(3, writers_at=[news])
    assert pytest.approx(news) in times


def test_failures_of_others_do_not():
    news = [1.0 + each / 1000 for each in range(5000)]
    times, _ = rounds(3, news_at=news)
    assert len(times) < 40, "news each millisecond, and no round more than the waits call for"


def test_the_end_of_a_suspicion_that_a_failure_began_does_not_cut_its_wait_short():
    """Else a writer that answers the monitor, and not this connect, would keep it dialling."""
    times, _ = rounds(3, suspicions="round")
    assert len(times) < 40


def test_suspicions_of_others_that_begin_in_a_wait_do_not():
    times, _ = rounds(3, suspicions=[(1.0 + each / 100, 1.005 + each / 100) for each in range(500)])
    assert len(times) < 60


@pytest.mark.parametrize("may_get_writer", [True, False])
def test_the_end_of_an_older_suspicion_does_if_the_writer_may_serve(may_get_writer):
    runs = [rounds(seed, suspicions=[(3.0, 5.0)], may_get_writer=may_get_writer)[0] for seed in range(10)]
    assert sum(pytest.approx(5.0) in times for times in runs) == (10 if may_get_writer else 0)


def test_no_time_is_one_round():
    times, error = rounds(lasting=0.0)
    assert len(times) == 1
    assert isinstance(error, Again)
