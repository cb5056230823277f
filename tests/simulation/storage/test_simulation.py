"""The simulation is clean, is deterministic, and finds every planted bug."""

from __future__ import annotations

import pytest

from tests.simulation.campaign import draw_base
from tests.simulation.storage.mutants import MUTANTS, Mutant
from tests.simulation.storage.run import CAMPAIGN
from tests.simulation.storage.schedule import play


@pytest.mark.parametrize("part", range(2))
def test_schedules_are_clean(part: int) -> None:
    CAMPAIGN.check(50)


def test_the_same_seed_plays_the_same_schedule() -> None:
    assert [play(seed) for seed in range(5)] == [play(seed) for seed in range(5)]


@pytest.mark.slow  # CI hunts them in `nox -s simulate`
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_planted_bug_is_found(mutant: Mutant) -> None:
    base = draw_base()
    assert CAMPAIGN.hunt(mutant, base, enough=1), f"base seed {base}"


@pytest.mark.slow
def test_two_thousand_schedules(tmp_path) -> None:
    figures = tmp_path / "figures.json"
    assert CAMPAIGN.main("", ["--schedules", "2000", "--jobs", "2", "--json", str(figures)]) == 0
    assert '"violations"' in figures.read_text()
