"""Selections: order, ranks, and the properties that hold for every view and every strategy."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.description import CustomEndpoint
from aurora_router.model.drain import Drain
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.policy.balance import Rankings, is_another_available, make_ranking, rank, select, suitable
from aurora_router.policy.context import Context, Load
from aurora_router.policy.options import Balance, Options, ReaderFallback
from aurora_router.policy.quarantine import Quarantine


def view_of(*instances):
    writer = next((each.id for each in instances if each.role is Role.WRITER), None)
    return View(instances={each.id: each for each in instances}, writer=writer, refreshed_at=0.0)


WRITER = Instance("demo-1", Role.WRITER, lag=0.0, zone="a")
NEAR = Instance("demo-2", Role.READER, lag=0.01, zone="a", lag_at=0.0, heard_at=0.0)
FAR = Instance("demo-3", Role.READER, lag=0.01, zone="b", lag_at=0.0, heard_at=0.0)
CLUSTER = view_of(WRITER, NEAR, FAR)


def choose(view=CLUSTER, role=WantedRole.READER, loads=None, quarantine=None, seed=0, turn=0, **options):
    return select(
        view,
        Options(**options),
        role,
        loads=loads or {},
        quarantine=quarantine or Quarantine(),
        now=0.0,
        rng=random.Random(seed),
        turn=turn,
    )


def ids(selection):
    return [each.id for each in selection.order]


@given(st.sets(st.sampled_from(["demo-1", "demo-2", "demo-3"])), st.sets(st.sampled_from(["demo-2", "demo-3"])))
def test_another_is_available_once_a_suitable_one_is_that_was_not_before(before, failed):
    """The writer is no reader's alternative where that is an error."""
    quarantine = Quarantine()
    for each in failed:
        quarantine = quarantine.record_failure(each, 0.0, 30.0)
    context = choose(quarantine=quarantine, reader_fallback=ReaderFallback.ERROR).context
    assert is_another_available(context, before) is bool({"demo-2", "demo-3"} - failed - before)


def test_preferring_moves_an_equal_to_the_front():
    selection = choose(loads={"demo-2": Load(5)})
    assert ids(selection) == ["demo-3", "demo-2", "demo-1"]
    assert ids(selection.preferring("demo-2")) == ["demo-2", "demo-3", "demo-1"]
    assert selection.preferring("demo-2").reason.startswith("demo-2, a reader")


def test_preferring_takes_no_worse_one_and_no_stranger():
    selection = choose(loads={"demo-2": Load(5)})
    assert selection.preferring("demo-1") is selection
    assert selection.preferring("demo-9") is selection
    near_first = choose(zones=(frozenset("a"),))
    assert near_first.preferring("demo-3") is near_first
    assert choose(View()).preferring("demo-1").order == ()


def test_an_instance_without_a_load_counts_as_unused():
    assert ids(choose(loads={"demo-3": Load(1)}))[0] == "demo-2"


def test_the_users_word_on_zones_comes_first():
    selection = choose(zones=(frozenset("z"),), zone_map=(("demo-3", "z"),))
    assert ids(selection)[0] == "demo-3"


@pytest.mark.parametrize("balance", Balance)
def test_a_writer_is_found_whatever_the_balance(balance):
    weights = (("demo-1", 0), ("demo-2", 1)) if balance is Balance.WEIGHTED else ()
    assert ids(choose(role=WantedRole.WRITER, balance=balance, weights=weights)) == ["demo-1"]


def test_unknown_ones_of_weight_0_may_still_be_the_writer():
    unknown = view_of(Instance("a"), Instance("b"))
    selection = choose(unknown, WantedRole.WRITER, balance=Balance.WEIGHTED, weights=(("a", 0), ("b", 0), ("c", 1)))
    assert sorted(ids(selection)) == ["a", "b"]


# ---------------------------------------------------------------- words


def test_reasons_of_a_choice():
    assert choose(loads={"demo-3": Load(1)}).reason == (
        "demo-2, a reader, zone a, lag 0.01 s, 0 connections from here, by least_connections of 2"
    )
    assert choose(role=WantedRole.WRITER, loads={"demo-1": Load(1, 0.0123)}).reason == (
        "demo-1, the writer, zone a, 1 connection from here, latency 12.3 ms, the best one"
    )


def test_reasons_of_a_fall_back():
    lagging = view_of(WRITER, dataclasses.replace(NEAR, lag=0.4))
    assert choose(lagging, max_lag=0.1).reason == (
        "demo-1, the writer, zone a, 0 connections from here, in place of a reader "
        "(demo-2 left out: lag 0.4 s > aurora_max_lag 0.1 s)"
    )
    assert choose(view_of(WRITER)).reason.endswith("in place of a reader (no other instance is at hand)")


@pytest.mark.parametrize(
    ("role", "text"),
    [
        (WantedRole.WRITER, "no writer suits (no instance is known)"),
        (WantedRole.READER, "no reader suits (no instance is known)"),
        (WantedRole.PREFER_READER, "no reader suits (no instance is known)"),
        (WantedRole.ANY, "no instance suits (no instance is known)"),
    ],
)
def test_reasons_of_nobody(role, text):
    assert choose(View(), role).reason == text


def test_lines_tell_of_every_instance():
    view = view_of(WRITER, NEAR, dataclasses.replace(FAR, lag=None), Instance("demo-4"))
    quarantine = Quarantine().record_failure("demo-2", 0.0, 1.5)
    assert choose(view, max_lag=0.1, quarantine=quarantine).lines == [
        "1. demo-4: its role has to be asked, 0 connections from here",
        "2. demo-1: the writer, zone a, 0 connections from here",
        "3. demo-2: a reader, zone a, lag 0.01 s, 0 connections from here, failed lately, a last resort for 1.5 s more",
        "demo-3 left out: its lag is unknown, and aurora_max_lag is 0.1 s",
    ]


# ---------------------------------------------------------------- properties

zones = st.none() | st.sampled_from("abc")
lags = st.none() | st.floats(0, 1)
loads = st.builds(Load, st.integers(0, 9), st.none() | st.floats(0, 1))


@st.composite
def views(draw):
    names = draw(st.lists(st.sampled_from([f"demo-{n}" for n in range(1, 9)]), unique=True))
    writer = draw(st.sampled_from([None, *names]))
    instances = [
        Instance(
            name,
            Role.WRITER if name == writer else draw(st.sampled_from([Role.READER, Role.UNKNOWN])),
            zone=draw(zones),
            lag=draw(lags),
            lag_at=0.0,
            heard_at=0.0,
            cpu=draw(st.none() | st.floats(0, 100)),
        )
        for name in sorted(names)
    ]
    return view_of(*instances)


@st.composite
def requests(draw):
    balance = draw(st.sampled_from(Balance))
    named = st.lists(
        st.tuples(st.sampled_from(["demo-1", "demo-2"]), st.integers(0, 3)), unique_by=lambda pair: pair[0]
    )
    weights = tuple(draw(named)) if balance is Balance.WEIGHTED else ()
    tiers = draw(st.sampled_from([(), (frozenset("a"),), (frozenset("b"), frozenset("ac"))]))
    return Options(balance=balance, weights=weights, zones=tiers, max_lag=draw(lags))


@given(
    views(),
    requests(),
    st.sampled_from(WantedRole),
    st.dictionaries(st.sampled_from([f"demo-{n}" for n in range(1, 9)]), loads),
    st.sets(st.sampled_from([f"demo-{n}" for n in range(1, 9)])),
    st.integers(0, 2**32),
)
def test_every_instance_is_in_the_order_once_or_left_out_with_a_reason(view, options, role, load, failed, turn):
    quarantine = Quarantine()
    for each in failed:
        quarantine = quarantine.record_failure(each, 0.0, 1.0)
    rng = random.Random(turn)
    selection = select(view, options, role, loads=load, quarantine=quarantine, now=0.5, rng=rng, turn=turn)
    left_out = [each.id for each, reason in selection.left_out if reason]
    assert sorted(ids(selection) + left_out) == sorted(view.instances)
    assert set(selection.order) == set(suitable(view.instances.values(), selection.context).kept)
    assert list(selection.ranks) == sorted(rank(each, selection.context) for each in selection.order)
    assert list(selection.ranks) == [rank(each, selection.context) for each in selection.order]
    assert selection.reason
    assert len(selection.lines) == len(view.instances)


@given(
    st.lists(views(), min_size=1, max_size=2),
    st.lists(requests(), min_size=1, max_size=2),
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 1),
            st.sampled_from(WantedRole),
            st.sampled_from([Quarantine(), Quarantine().record_failure("demo-2", 0.0, 1.0)]),
            st.sampled_from([None, CustomEndpoint(excluded=frozenset({"demo-1"}))]),
        ),
        max_size=10,
    ),
)
def test_what_is_remembered_of_earlier_selections_changes_none(known, wanted, connects):
    rankings = Rankings()
    for now, (view, options, role, quarantine, endpoint) in enumerate(connects):
        chosen = {"loads": {}, "quarantine": quarantine, "now": now / 4, "turn": now, "endpoint": endpoint}
        asked = known[view % len(known)], wanted[options % len(wanted)], role
        fresh = select(*asked, rng=random.Random(now), **chosen)
        again = select(*asked, rng=random.Random(now), rankings=rankings, **chosen)
        assert (again.order, again.ranks, again.left_out) == (fresh.order, fresh.ranks, fresh.left_out)


@pytest.mark.parametrize(
    "change",
    [
        {"view": view_of(WRITER, NEAR)},
        {"options": Options(reader_fallback=ReaderFallback.ERROR)},
        {"role": WantedRole.WRITER},
        {"endpoint": CustomEndpoint(excluded=frozenset({"demo-3"}))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_ranking_counts_for_what_it_was_made_of(change):
    rankings = Rankings()
    context = Context(CLUSTER, Options(), WantedRole.READER, {}, Quarantine(), 0.0, random, 0)
    other = context._replace(**change)
    assert make_ranking(context) != make_ranking(other)
    for each in (context, other, context):
        assert rankings.find(each) == make_ranking(each)


DRAINED = dataclasses.replace(CLUSTER, drains={"demo-2": Drain(9.0)})


@pytest.mark.parametrize(
    ("options", "view", "quarantine", "is_kept"),
    [
        (Options(), CLUSTER, Quarantine(), True),
        (Options(max_lag=1.0), CLUSTER, Quarantine(), False),
        (Options(), DRAINED, Quarantine(), False),
        (Options(), CLUSTER, Quarantine().record_failure("demo-2", 0.0, 1.0), False),
    ],
    ids=["nothing", "lag", "drain", "quarantine"],
)
def test_a_ranking_is_kept_unless_time_has_a_part_in_it(options, view, quarantine, is_kept):
    rankings = Rankings()
    context = Context(view, options, WantedRole.READER, {}, quarantine, 0.0, random, 0)
    assert (rankings.find(context) is rankings.find(context._replace(now=0.1, turn=1))) is is_kept


@given(views(), requests(), st.integers(0, 2**32))
def test_promises_hold_for_whoever_is_in_the_order(view, options, turn):
    for role in WantedRole:
        rng = random.Random(turn)
        order = select(view, options, role, loads={}, quarantine=Quarantine(), now=0.0, rng=rng, turn=turn).order
        for each in order:
            if each.role is Role.UNKNOWN:
                continue
            assert role is not WantedRole.WRITER or each.id == view.writer
            assert options.max_lag is None or each.id == view.writer or each.lag <= options.max_lag
