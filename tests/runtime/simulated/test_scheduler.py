"""The virtual clock: order, repeatability, cancellation, deadlock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.simulation import Cancelled, Deadlock, Simulation


def trace(seed, delays):
    """Which task ran when, of those that sleep three times each."""
    seen = []
    with Simulation(seed) as simulation:

        async def work(name, delay):
            for _ in range(3):
                await simulation.sleep(delay)
                seen.append((simulation.now, name))

        simulation.run_all(work(name, delay) for name, delay in enumerate(delays))
    return seen


@given(st.integers(0, 99), st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5]), max_size=6))
def test_the_same_seed_gives_the_same_run_and_time_never_goes_back(seed, delays):
    seen = trace(seed, delays)
    assert seen == trace(seed, delays)
    assert [time for time, _ in seen] == sorted(time for time, _ in seen)
    assert len(seen) == 3 * len(delays)


def test_seeds_are_different_interleavings():
    assert len({tuple(trace(seed, [1.0] * 4)) for seed in range(20)}) > 5


def test_results_and_errors_stay_with_their_tasks():
    with Simulation() as simulation:

        async def work(number):
            await simulation.sleep(number)
            return 1 / number

        failed, done = simulation.run_all(map(work, (0, 2)))
        assert done.result() == 0.5
        assert isinstance(failed.error, ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            failed.result()
        assert simulation.now == 2


def test_a_task_waits_for_another_and_takes_its_error():
    with Simulation() as simulation:

        async def fails():
            await simulation.sleep(1)
            raise ValueError("no")

        async def waits():
            await simulation.spawn(fails(), after=3).wait()

        with pytest.raises(ValueError, match="no"):
            simulation.run(waits())
        assert simulation.now == 4


def test_a_cancelled_task_cleans_up_where_it_waits():
    seen = []
    with Simulation() as simulation:

        async def work():
            try:
                await simulation.sleep(100)
            finally:
                seen.append(simulation.now)

        task = simulation.spawn(work())
        simulation.at(5, task.cancel)
        simulation.run_until(10)
        task.cancel()
    assert seen == [5]
    assert isinstance(task.error, Cancelled)


def test_a_cancellation_wins_over_a_wake_up_at_the_same_time():
    for seed in range(10):
        with Simulation(seed) as simulation:

            async def work(simulation=simulation):
                await simulation.sleep(5)
                await simulation.sleep(5)

            task = simulation.spawn(work())
            simulation.at(5, task.cancel)
            simulation.run_until(20)
        assert isinstance(task.error, Cancelled)


def test_an_early_wake_up_leaves_no_later_one_behind():
    with Simulation() as simulation:
        wakers = []

        def wake():
            wakers[0]()

        async def work():
            wakers.append(simulation.waker())
            await simulation.park(simulation.now + 10)
            woken = simulation.now
            await simulation.sleep(50)
            return woken, simulation.now

        task = simulation.spawn(work())
        simulation.at(3, wake)
        simulation.at(20, wake)
        simulation.run_until(100)
        assert task.result() == (3, 53)


def test_waiting_for_ever_is_a_deadlock():
    with Simulation() as simulation, pytest.raises(Deadlock, match="nothing is due"):
        simulation.run(simulation.park())


def test_nobody_waits_outside_of_a_task():
    simulation = Simulation()
    with pytest.raises(RuntimeError, match="may only be awaited by a task"):
        simulation.waker()


def test_a_result_is_there_when_the_task_is_done():
    with Simulation() as simulation:
        task = simulation.spawn(simulation.sleep(1))
        with pytest.raises(RuntimeError, match="not done yet"):
            task.result()


def test_the_end_of_a_simulation_ends_its_tasks():
    ended = []

    async def work(simulation):
        try:
            await simulation.park()
        finally:
            ended.append(True)

    with Simulation() as simulation:
        simulation.spawn(work(simulation))
        simulation.run_until(1)
    assert ended == [True]
