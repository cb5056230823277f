"""Setting a volume back and forth: schedules that failed once, and some that are drawn."""

from __future__ import annotations

import random

import pytest

from tests.simulation.campaign import draw_base

from .branches import Play, play
from .loop import run


@pytest.mark.parametrize(
    "seed", [*range(10), 1135, 1375, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 30))]
)
def test_a_volume_goes_back_and_forth(seed):
    async def main() -> None:
        await Play(seed).play(40)

    run(main())


def test_a_newcomer_of_a_volume_without_log_is_complete():
    run(Play(0, members_change=True).play(30))  # it was never taken for that


@pytest.mark.parametrize("seed", [5000544, 5001250])
def test_a_replacement_goes_on_that_meets_nodes_that_are_down_or_behind(seed):
    play(seed)  # the judge took it for a violation that it had to be tried again


def test_branches_are_kept_while_nodes_are_replaced_and_miss_switches():
    base = draw_base()
    print(f"base seed {base}")
    for seed in range(base, base + 3):
        play(seed)


def test_six_new_nodes_have_the_branches_that_the_six_before_them_kept():
    async def main() -> None:
        play = Play(1)
        await play.play(0)
        await play.write()
        await play.back()
        await play.write()
        for old in range(6):
            play.rnd.choice = lambda _, old=old: old
            await play.replace_a_node()
        play.rnd = play.hosts[0]._rnd = random.Random(2)
        assert play.driver.charter.membership.members == (6, 7, 8, 9, 10, 11)
        await play.check()

    run(main())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_volumes_go_back_and_forth():
    base = draw_base()
    print(f"base seed {base}")
    for seed in range(base, base + 400):
        play(seed)
