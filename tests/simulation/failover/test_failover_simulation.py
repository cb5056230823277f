"""The simulated client is clean, its schedules are deterministic, and every planted bug is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.failover.mutants import MUTANTS, Mutant
from tests.simulation.failover.run import CAMPAIGN
from tests.simulation.failover.schedule import play


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_schedules_are_clean(first: int) -> None:
    for seed in range(first, first + 20):
        play(seed)


@pytest.mark.parametrize("seed", [3488, 7121, 9277, 11438, 14002, 502396, 502827, 504005, 508054])
def test_what_went_wrong_once_does_so_no_more(seed: int) -> None:
    play(seed)


def test_the_same_seed_plays_the_same_schedule() -> None:
    assert [play(seed) for seed in range(3)] == [play(seed) for seed in range(3)]


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.soon], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found_soon(mutant: Mutant) -> None:
    assert CAMPAIGN.hunt(mutant, 60) is not None


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutant", [each for each in MUTANTS if not each.soon], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found(mutant: Mutant) -> None:
    assert CAMPAIGN.hunt(mutant, CAMPAIGN.hunted) is not None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_schedules(tmp_path) -> None:
    figures = tmp_path / "figures.json"
    assert CAMPAIGN.main("", ["--schedules", "1000", "--jobs", "2", "--json", str(figures)]) == 0
    assert '"violations"' in figures.read_text()


def test_a_violation_prints_its_seed_and_how_to_replay_it(capsys) -> None:
    def broken(seed: int):
        raise AssertionError(f"a planted violation of seed {seed}")

    assert replace(CAMPAIGN, play=broken).main("", ["--seed", "7", "--schedules", "1", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert "python -m tests.simulation.failover.run --seed 7 --schedules 1" in told
    assert "a planted violation of seed 7" in told
