"""Zone affinity: when connections leave the nearest zone, which way, and that what is not known changes nothing."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Occupancy, Role
from aurora_router.model.view import View
from aurora_router.policy.affinity import (
    BACK,
    FRESH_SECONDS,
    FURTHER,
    NEAREST,
    PUSH,
    SLACK,
    TARGET,
    Band,
    find_affinity,
)
from aurora_router.policy.balance import select
from aurora_router.policy.context import Context, Load
from aurora_router.policy.options import Balance, Options
from aurora_router.policy.quarantine import Quarantine
from aurora_router.policy.rebalancing import find_surplus

NOW = 1000.0
ZONES = (frozenset({"a"}),)


def reader(id_, zone, clients=None, own=0, *, at=NOW - 1.0):
    occupancy = None if clients is None else Occupancy(clients, own, at)
    return Instance(id_, Role.READER, zone=zone, occupancy=occupancy)


def context_of(*readers, counts=None, seed=0, quarantine=None, zones=ZONES, **options):
    made = {each.id: each for each in (Instance("w", Role.WRITER, zone="a"), *readers)}
    loads = {id_: Load(count) for id_, count in (counts or {}).items()}
    view = View(instances=made, writer="w", refreshed_at=0.0)
    wanted = Options(zones=zones, **options)
    return Context(view, wanted, WantedRole.READER, loads, quarantine or Quarantine(), NOW, random.Random(seed), 0)


def choose(context):
    named = {"loads": context.loads, "quarantine": context.quarantine, "now": context.now, "rng": context.rng}
    return select(context.view, context.options, context.role, **named)


def draw(context, times=2000):
    """How often each instance is the first choice."""
    return Counter(choose(context).order[0].id for _ in range(times))


def test_what_is_not_busier_keeps_all():
    context = context_of(reader("a1", "a", 104), reader("b1", "b", 100), reader("c1", "c", 96))
    assert draw(context) == {"a1": 2000}


def test_what_is_much_busier_keeps_none():
    context = context_of(reader("a1", "a", 400), reader("b1", "b", 100), reader("c1", "c", 100))
    found = draw(context)
    assert found["a1"] == 0
    assert abs(found["b1"] - found["c1"]) < 300


def test_between_the_two_chance_decides_in_proportion():
    """(115 - SLACK) / 100: 1.12, and from 1.05 to 1.25 the share that is kept falls to 0."""
    context = context_of(reader("a1", "a", 115), reader("b1", "b", 95), reader("c1", "c", 90))
    kept = NEAREST.keep((115 - SLACK) / 100)
    assert 0.3 < kept < 0.7
    assert draw(context)["a1"] == pytest.approx(2000 * kept, abs=150)


def test_overflow_goes_where_there_is_room_in_proportion_to_it():
    context = context_of(reader("a1", "a", 300), reader("b1", "b", 140), reader("b2", "b", 60), reader("c1", "c", 100))
    mean = 150.0
    room = {"b1": FURTHER.none * mean - 140, "b2": FURTHER.none * mean - 60, "c1": FURTHER.none * mean - 100}
    found = draw(context)
    for id_, left in room.items():
        assert found[id_] == pytest.approx(2000 * left / sum(room.values()), abs=150)


def test_the_next_zone_comes_before_the_one_after_it_while_it_has_room():
    zones = (frozenset({"a"}), frozenset({"b"}))
    context = context_of(reader("a1", "a", 300), reader("b1", "b", 50), reader("c1", "c", 50), zones=zones)
    assert draw(context) == {"b1": 2000}
    context = context_of(reader("a1", "a", 300), reader("b1", "b", 250), reader("c1", "c", 50), zones=zones)
    assert draw(context) == {"c1": 2000}, "it has no more than its share as it is"


def test_all_that_suit_are_in_the_order_once_and_the_writer_comes_last():
    context = context_of(reader("a1", "a", 300), reader("b1", "b", 50), reader("c1", "c", 50))
    found = choose(context)
    assert [each.id for each in found.order][-1] == "w"
    assert sorted(each.id for each in found.order) == ["a1", "b1", "c1", "w"]
    assert found.ranks[0] == found.ranks[2] < found.ranks[3], "chance decides between the zones"


def test_a_connection_that_is_there_is_used_where_chance_decides():
    busy = context_of(reader("a1", "a", 300), reader("b1", "b", 50))
    assert choose(busy).preferring("a1").order[0].id == "a1"
    calm = context_of(reader("a1", "a", 50), reader("b1", "b", 50))
    assert choose(calm).preferring("b1").order[0].id == "a1"


def test_the_reason_says_why_a_further_zone_was_chosen():
    context = context_of(reader("a1", "a", 300), reader("b1", "b", 50), reader("c1", "c", 50))
    found = choose(context)
    assert "since zone a has 2.23 times as many connections as the mean, and keeps 0% of the new ones" in found.reason
    assert "300 of all clients 1 s ago" in found.lines[1] + found.lines[2]
    assert "since" not in found.preferring("a1").reason, "there the nearest zone was chosen after all"


@pytest.mark.parametrize(
    "readers",
    [
        [reader("a1", "a"), reader("b1", "b", 10)],
        [reader("a1", "a", 500), reader("b1", "b")],
        [reader("a1", "a", 500, at=NOW - FRESH_SECONDS - 1), reader("b1", "b", 10)],
        [reader("a1", "a", 500), reader("b1", "b", 10, at=NOW - FRESH_SECONDS - 1)],
        [reader("a1", "a", 500), reader("a2", "a", 10)],
        [reader("b1", "b", 500), reader("c1", "c", 10)],
    ],
    ids=["near unknown", "far unknown", "near old", "far old", "one zone", "none near"],
)
def test_what_is_not_known_changes_nothing(readers):
    """Then the nearest zone has all; connections of this process's own say nothing of others'."""
    context = context_of(*readers, counts={readers[0].id: 50})
    expected = choose(context._replace(view=context_of(*(reader(each.id, each.zone) for each in readers)).view))
    assert {each.zone for each in (choose(context).order[0], expected.order[0])} <= {"a", "b", "c"}
    assert choose(context).ranks == expected.ranks
    assert draw(context, 50).keys() <= {each.id for each in readers if each.zone == "a"} or readers[0].zone == "b"


def test_an_instance_without_a_figure_counts_as_the_others_do():
    """One that joins has no room until its figure is there, and none of the others is taken to be busier for it."""
    joined = context_of(reader("a1", "a", 100), reader("b1", "b", 100), reader("c1", "c"))
    found = find_affinity([[each] for each in joined.view.readers()], joined)
    assert (found.mean, found.loads["c1"]) == (100, 100)


def test_what_the_process_did_since_the_figure_counts():
    """It is the only client: after 20 connects to an empty cluster the figure of before is no excuse."""
    nobody = [reader(f"{zone}1", zone, 0) for zone in "abc"]
    assert draw(context_of(*nobody, counts={"a1": 2}), 50) == {"a1": 50}
    assert draw(context_of(*nobody, counts={"a1": 20}), 50)["a1"] == 0


def test_an_instance_in_quarantine_is_not_compared():
    failed = Quarantine().record_failure("b1", NOW - 1.0, 10.0, NOW - 1.0)
    context = context_of(reader("a1", "a", 300), reader("b1", "b", 10), quarantine=failed)
    assert draw(context, 50) == {"a1": 50}


def test_where_weights_count_it_is_the_load_per_weight():
    readers = [reader("a1", "a", 300), reader("b1", "b", 100), reader("c1", "c", 100)]
    weighted = context_of(*readers, balance=Balance.WEIGHTED, weights=(("a1", 3), ("b1", 1), ("c1", 1)))
    assert draw(weighted, 50) == {"a1": 50}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 500) | st.none()), min_size=1, max_size=6),
    st.sampled_from([ZONES, (frozenset({"a"}), frozenset({"b"})), (frozenset({"b", "c"}),)]),
    st.integers(0, 1 << 30),
)
def test_the_order_is_complete_whatever_the_loads(made, zones, seed):
    readers = [reader(f"r{number}", zone, clients) for number, (zone, clients) in enumerate(made)]
    context = context_of(*readers, zones=zones, seed=seed)
    found = choose(context)
    assert sorted(each.id for each in found.order) == sorted(["w", *(each.id for each in readers)])
    assert list(found.ranks) == sorted(found.ranks)
    assert found.order[-1].id == "w"


@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_a_busier_zone_never_keeps_more(one, other):
    low, high = sorted((one, other))
    for band in (NEAREST, FURTHER):
        assert 0.0 <= band.keep(high) <= band.keep(low) <= 1.0


@given(st.integers(2, 100), st.floats(0.0, 1.0))
def test_the_band_alone_settles_below_the_bound(zones, share):
    """However many clients are in one of n zones: what it keeps is what it bears, at less than 1.25 times the mean."""
    crowd = max(1.0, share * zones)
    low, high = 0.0, float(zones)
    for _ in range(60):
        load = (low + high) / 2.0
        low, high = (load, high) if crowd * NEAREST.keep(load) > load else (low, load)
    assert low <= max(1.0, NEAREST.none)
    assert Band(1.05, 1.25) == NEAREST


# ---------------------------------------------------------------- pools


def surplus(context, leaving=None):
    leaving = leaving or {}
    own = {id_: load.connections - leaving.get(id_, 0) for id_, load in context.loads.items()}
    return find_surplus(context, own, leaving)


def pool(near, far, clients, *, own=(20, 0), balance=Balance.LEAST_CONNECTIONS):
    """A process with so many connections near and far; `clients` of all and `own` are the figures."""
    readers = [reader("a1", "a", clients[0], own[0]), reader("b1", "b", clients[1], own[1]), reader("c1", "c", 200)]
    return context_of(*readers, counts={"a1": near, "b1": far}, balance=balance)


def test_what_has_overflowed_stays():
    """The pool's connections in a further zone are where a connect put them."""
    for load in (BACK, (BACK + PUSH) / 2, PUSH):
        clients = round(200 * load)
        assert surplus(pool(14, 6, (clients, 400 - clients), own=(14, 6))) == set()


def test_a_pool_leaves_a_busy_zone_as_far_as_the_figures_permit():
    """Twice the mean: the pool may keep 20 · TARGET / 2, rounded by lot, whatever it has done since."""
    permitted = 20 * TARGET / 2.0
    gone = 0
    while surplus(pool(20 - gone, gone, (400, 0))) == {"a1"}:
        gone += 1
    assert permitted - 1 <= 20 - gone <= permitted + 1
    assert surplus(pool(20 - gone, gone, (400, 0), own=(20, 0))) == set(), "no more, until the next figure"


def test_what_leaves_counts_as_gone():
    permitted = round(20 * TARGET / 2.0)
    assert surplus(pool(20, 0, (400, 0)), {"a1": 20 - permitted - 2}) == {"a1"}
    assert surplus(pool(20, 0, (400, 0)), {"a1": 20 - permitted + 2}) == set()


def test_a_pool_returns_when_the_zone_is_calm_as_far_as_the_figures_permit():
    """Half of the mean: twice as many as there were, and a bit."""
    assert surplus(pool(5, 15, (100, 300), own=(5, 15))) == {"b1"}
    assert surplus(pool(12, 8, (100, 300), own=(5, 15))) == set()
    assert surplus(pool(0, 20, (0, 300), own=(0, 20))) == {"b1"}, "one has to begin"


def test_without_figures_a_pool_returns_as_ever():
    far = context_of(reader("a1", "a"), reader("b1", "b"), counts={"a1": 3, "b1": 4})
    assert surplus(far) == {"b1"}


def test_the_strategy_goes_on_within_the_nearest_zone():
    readers = [reader("a1", "a", 100, 9), reader("a2", "a", 100, 1), reader("b1", "b", 100, 3)]
    assert surplus(context_of(*readers, counts={"a1": 9, "a2": 1, "b1": 3})) == {"a1"}
