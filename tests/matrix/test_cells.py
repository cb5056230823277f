"""The covering selection covers, and is small."""

from __future__ import annotations

from itertools import combinations, product

from tests.matrix.cells import AXES, covering, everything, pairs

IMPOSSIBLE = {
    (("python", "3.10"), ("sqlalchemy", "2.1")),
    (("postgres", "18"), ("storage", "containers")),
    (("postgres", "16"), ("storage", "containers")),
}


def test_every_pair_of_values_is_in_a_cell():
    covered = set().union(*map(pairs, covering()))
    for one, two in combinations(AXES, 2):
        for values in product(AXES[one], AXES[two]):
            pair = ((one, values[0]), (two, values[1]))
            assert (pair in covered) is (pair not in IMPOSSIBLE)


def test_the_selection_is_a_small_part():
    chosen = covering()
    assert len(everything()) == (4 * 2 - 1) * 2 * 2 * (3 * 2 + 1)
    assert len(set(chosen)) == len(chosen)
    assert 4 * 3 <= len(chosen) <= 16  # twelve is the least: four Pythons by three PostgreSQLs


def test_it_is_always_the_same():
    assert covering() == covering()


def test_versions_are_bounded_on_both_sides():
    for cell in everything():
        assert all("," in each for each in cell.requirements if ">" in each)
