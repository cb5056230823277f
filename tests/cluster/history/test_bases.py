"""Which base serves which branch, and which of them are kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.storage.bases import Bases, Copied
from aurora_router_cluster.storage.core.gc import COPIES, Base, select_affordable, select_needed, select_spaced
from aurora_router_cluster.storage.core.history import EpochStart, History

FIRST = History((EpochStart(1, 0), EpochStart(2, 50)))
SECOND = History((EpochStart(1, 0), EpochStart(3, 30)))  # parts from the first at 30


@pytest.fixture
def stored_bases(tmp_path):
    made = Bases(tmp_path)
    for end, taken, history in ((0, 0.0, FIRST), (20, 2.0, FIRST), (60, 6.0, FIRST), (80, 8.0, SECOND)):
        staged = tmp_path / "new"
        staged.mkdir()
        made.add(staged, Base(end, end, taken), history)
    return made


@pytest.mark.parametrize(
    ("history", "lsn", "taken", "end"),
    [
        (FIRST, 100, None, 60),
        (FIRST, 59, None, 20),
        (FIRST, 100, 5.9, 20),
        (FIRST, 100, 6.0, 60),
        (SECOND, 100, None, 80),
        (SECOND, 79, None, 20),
        (SECOND, 100, 7.0, 20),
        (SECOND, 19, None, 0),
        (FIRST, 100, -1.0, None),
    ],
)
def test_the_newest_base_that_serves(stored_bases, history, lsn, taken, end):
    found = stored_bases.newest(history, lsn, taken)
    assert (None if found is None else found.base.end) == end


def test_what_is_not_wanted_is_dropped(stored_bases):
    everything = list(stored_bases)
    assert stored_bases.keep(everything[1:]) == [everything[0].directory]
    assert list(stored_bases) == everything[1:]


bases = st.lists(st.floats(0, 1000), max_size=20).map(lambda times: [Base(0, 0, taken) for taken in sorted(times)])


@given(bases, st.floats(0, 1000))
def test_a_point_in_the_window_has_a_base_before_it(found, first):
    kept = select_needed(found, first)
    if any(base.taken <= first for base in found):
        assert any(base.taken <= first for base in kept)
    assert kept[-1:] == found[-1:]


@given(bases, st.floats(0, 300))
def test_spacing_keeps_the_ends(found, seconds):
    kept = select_spaced(found, seconds)
    assert kept[-1:] == found[-1:]
    assert kept[:1] == found[:1]
    assert all(b.taken - a.taken >= seconds for a, b in pairwise(kept[:-1]))


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 50)), max_size=8), st.integers(0, 5000))
def test_what_is_kept_for_the_window_takes_no_more_than_its_room(found, budget):
    durable = 1000
    redos = sorted(redo for redo, _ in found)
    bases = [Base(redo, redo, float(redo)) for redo in redos]
    sizes = [size for _, size in found]
    kept = select_affordable(bases, sizes, durable, budget)
    assert kept == bases[len(bases) - len(kept) :]
    assert bool(kept) == bool(bases)
    if len(kept) > 1:
        assert COPIES * (durable - kept[0].redo) + sum(sizes[len(bases) - len(kept) :]) <= budget
    if len(kept) < len(bases):
        first = len(bases) - len(kept) - 1
        assert COPIES * (durable - bases[first].redo) + sum(sizes[first:]) > budget


@pytest.mark.parametrize(("goal", "serves"), [(29, True), (30, True), (31, False)])
def test_a_copy_becomes_a_base_only_where_its_log_is(tmp_path, goal, serves):
    copied = Copied(tmp_path, goal, FIRST, 0)
    assert copied.can_serve(SECOND) == serves
    assert copied.can_serve(FIRST)
