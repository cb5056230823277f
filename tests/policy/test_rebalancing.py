"""How connections return to their fair share: at what rate, how far, and that it ends."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_router.model.drain import Drain
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.policy.balance import select
from aurora_router.policy.context import Context, Load
from aurora_router.policy.options import Balance, CustomBalance, Options, ReaderFallback
from aurora_router.policy.quarantine import Quarantine
from aurora_router.policy.rebalancing import (
    CALM_SECONDS,
    FIRST_PAUSE,
    FRESH_SECONDS,
    KEPT,
    RATE,
    TOLERANCE,
    Pace,
    find_drained,
    find_peers,
    find_surplus,
)

WRITER = Instance("demo-1", Role.WRITER)
READERS = [Instance(f"demo-{number}", Role.READER) for number in range(2, 8)]
LATENCIES = {each.id: 0.001 for each in READERS}
NONE = frozenset()


def cluster_of(*instances):
    return View(instances={each.id: each for each in instances}, writer=WRITER.id, refreshed_at=0.0)


def context_of(view, counts, role=WantedRole.READER, quarantine=None, seed=0, latencies=None, **options):
    loads = {id_: Load(count, (latencies or {}).get(id_)) for id_, count in counts.items()}
    return Context(view, Options(**options), role, loads, quarantine or Quarantine(), 10.0, random.Random(seed), 0)


def surplus(counts, instances=(WRITER, *READERS[:3]), *, own=None, leaving=None, is_suspected=False, **context):
    """What is surplus, where all that the process has is the group's own, unless said otherwise."""
    leaving = leaving or {}
    own = {id_: count - leaving.get(id_, 0) for id_, count in counts.items()} if own is None else own
    return find_surplus(context_of(cluster_of(*instances), counts, **context), own, leaving, is_suspected=is_suspected)


class Pool:
    """One process's connections, each chosen by the real selection."""

    def __init__(self, view, seed, **options):
        self.view, self.rng, self.options = view, random.Random(seed), options
        self.counts, self.moves, self.turn = Counter(), 0, self.rng.randrange(1000)

    def connect(self):
        loads = {id_: Load(count, 0.001) for id_, count in self.counts.items()}
        self.turn += 1
        wanted = {"loads": loads, "quarantine": Quarantine(), "now": 0.0, "rng": self.rng, "turn": self.turn}
        self.counts[select(self.view, Options(**self.options), WantedRole.READER, **wanted).order[0].id] += 1

    def find_surplus(self):
        return find_surplus(context_of(self.view, self.counts, latencies=LATENCIES, **self.options), self.counts, {})

    def settle(self, most):
        """Recycle from the surplus, at random, until there is none; so many moves at most."""
        while found := self.find_surplus():
            assert self.moves < most, (self.counts, found)
            self.moves += 1
            self.counts[self.rng.choice(sorted(found))] -= 1
            self.connect()

    def shares(self):
        weights = dict(self.options.get("weights", ()))
        readers = [each.id for each in self.view.instances.values() if each.role is Role.READER]
        whole = sum(weights.get(id_, 1) for id_ in readers)
        return {id_: self.counts.total() * weights.get(id_, 1) / whole for id_ in readers}


WEIGHTS = tuple((each.id, weight) for each, weight in zip(READERS, (3, 1, 2, 1, 5, 1), strict=True))
STRATEGIES = [
    {"balance": Balance.LEAST_CONNECTIONS},
    {"balance": Balance.FASTEST},
    {"balance": Balance.ROUND_ROBIN},
    {"balance": Balance.WEIGHTED, "weights": WEIGHTS},
    {"balance": Balance.WEIGHTED},
    {"balance": Balance.RANDOM},
    {"balance": Balance.TWO_CHOICES},
]


@pytest.mark.parametrize("options", STRATEGIES, ids=lambda each: each["balance"].value)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=6), st.integers(0, 1 << 30))
def test_any_distribution_ends_within_reach_of_the_fair_share(options, counts, seed):
    pool = Pool(cluster_of(WRITER, *READERS[: len(counts)]), seed, **options)
    pool.counts.update({each.id: count for each, count in zip(READERS, counts, strict=False)})
    pool.settle(40 * sum(counts))
    reach = TOLERANCE.get(options["balance"], 1.0)
    for id_, share in pool.shares().items():
        assert abs(pool.counts[id_] - share) <= reach, pool.counts


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6), st.integers(0, 1 << 30))
def test_where_connections_are_counted_no_move_is_in_vain(counts, seed):
    pool = Pool(cluster_of(WRITER, *READERS[: len(counts)]), seed)
    pool.counts.update({each.id: count for each, count in zip(READERS, counts, strict=False)})
    share = sum(counts) / len(counts)
    pool.settle(sum(max(0, count - math.floor(share)) for count in counts))


@pytest.mark.parametrize("options", STRATEGIES, ids=lambda each: each["balance"].value)
@given(st.integers(2, 6), st.integers(0, 60), st.integers(0, 1 << 30))
def test_what_is_balanced_stays(options, readers, size, seed):
    """The fair share, each rounded down or up."""
    pool = Pool(cluster_of(WRITER, *READERS[:readers]), seed, **options)
    pool.counts.update({READERS[0].id: size})
    shares = pool.shares()
    pool.counts = Counter({id_: math.floor(share) for id_, share in shares.items()})
    rest = size - pool.counts.total()
    pool.counts.update(sorted(shares, key=lambda id_: pool.counts[id_] - shares[id_])[:rest])
    assert pool.counts.total() == size
    assert pool.find_surplus() == NONE


def test_a_reader_that_joins_gets_its_share_with_few_moves():
    pool = Pool(cluster_of(WRITER, *READERS[:4]), 1)
    for _ in range(40):
        pool.connect()
    pool.view = cluster_of(WRITER, *READERS[:5])
    pool.settle(8)
    assert set(pool.counts.values()) == {8}


def test_those_that_leave_are_counted_where_they_will_be():
    counts = {"demo-2": 6, "demo-3": 6, "demo-4": 0}
    assert surplus(counts, leaving={"demo-2": 1}) == {"demo-2", "demo-3"}
    assert surplus(counts, leaving={"demo-2": 2, "demo-3": 2}) == NONE
    shares = {"balance": Balance.ROUND_ROBIN}
    assert surplus(counts, leaving={"demo-2": 2, "demo-3": 2}, **shares) == NONE
    assert surplus(counts, leaving={"demo-2": 1}, **shares) == {"demo-2", "demo-3"}


def test_what_is_in_place_of_a_reader_returns_when_one_is_there():
    assert surplus({"demo-1": 4, "demo-2": 1, "demo-3": 1}) == {"demo-1"}
    assert surplus({"demo-1": 4}, [WRITER]) == NONE
    assert surplus({"demo-1": 4}, role=WantedRole.PREFER_READER, balance=Balance.RANDOM) == {"demo-1"}
    assert surplus({"demo-1": 4}, reader_fallback=ReaderFallback.ERROR) == {"demo-1"}


def test_zones_and_weights_are_followed():
    near = dataclasses.replace(READERS[0], zone="a")
    far = [dataclasses.replace(each, zone="b") for each in READERS[1:3]]
    assert surplus({"demo-3": 2}, [WRITER, near, *far], zones=(frozenset("a"),)) == {"demo-3"}
    assert surplus({"demo-2": 2, "demo-3": 1}, [WRITER, near, *far], zones=(frozenset("b"),)) == {"demo-2"}
    weighted = {"balance": Balance.WEIGHTED, "weights": (("demo-2", 0), ("demo-3", 1), ("demo-4", 1))}
    assert surplus({"demo-2": 2, "demo-3": 2, "demo-4": 2}, **weighted) == {"demo-2"}


def test_a_reader_that_lags_too_far_loses_its_connections_and_gets_them_back():
    fresh, late = (
        dataclasses.replace(each, lag=lag, lag_at=9.5) for each, lag in zip(READERS, (0.1, 7.0), strict=False)
    )
    assert surplus({"demo-2": 3, "demo-3": 3}, [WRITER, fresh, late], max_lag=1.0) == {"demo-3"}
    again = dataclasses.replace(late, lag=0.0)
    assert surplus({"demo-2": 6, "demo-3": 0}, [WRITER, fresh, again], max_lag=1.0) == {"demo-2"}


def test_one_that_the_last_answer_did_not_list_is_left():
    leaving = dataclasses.replace(READERS[0], missing_since=9.0)
    counts = {"demo-2": 3, "demo-3": 3, "demo-4": 3}
    assert surplus(counts, [WRITER, leaving, *READERS[1:3]]) == {"demo-2"}
    pool = Pool(cluster_of(WRITER, leaving, *READERS[1:3]), 1)
    for _ in range(4):
        pool.connect()
    assert pool.counts["demo-2"] == 0
    pool.view = cluster_of(WRITER, leaving)
    pool.connect()
    assert pool.counts["demo-2"] == 1, "it comes before the writer: the answer may be wrong"


def test_a_failed_one_gets_none_and_keeps_what_works():
    failed = Quarantine().record_failure("demo-4", 0.0, 1.0)
    counts = {"demo-2": 5, "demo-3": 5, "demo-4": 0}
    assert surplus(counts) == {"demo-2", "demo-3"}
    assert surplus(counts, quarantine=failed) == NONE, "though its quarantine is over"
    assert surplus({**counts, "demo-4": 1}, quarantine=failed) == NONE
    assert find_peers(context_of(cluster_of(WRITER, READERS[2]), {}, quarantine=failed)) == [[WRITER]]


def test_nothing_is_surplus_while_the_writer_is_suspected():
    assert surplus({"demo-2": 9}) == {"demo-2"}
    assert surplus({"demo-2": 9}, is_suspected=True) == NONE


def test_nothing_is_surplus_where_nothing_is_known():
    assert surplus({"demo-2": 9}, []) == NONE
    assert surplus({"demo-2": 9}, [Instance("demo-2"), Instance("demo-3")]) == NONE
    assert surplus({"demo-1": 9}, role=WantedRole.WRITER) == NONE


def test_a_strategy_that_says_nothing_of_pools_loses_no_connection(monkeypatch):
    """One that was added by the recipe raised in every pool."""
    monkeypatch.setattr("aurora_router.policy.rebalancing.KEPT", KEPT - {Balance.WEIGHTED})
    monkeypatch.setattr("aurora_router.policy.rebalancing.TOLERANCE", {})
    assert surplus({"demo-2": 5, "demo-3": 0}, balance=Balance.WEIGHTED) == NONE


def test_every_strategy_that_is_kept_can_be():
    for balance in Balance:
        assert (balance in KEPT) is (
            surplus({"demo-2": 40, "demo-3": 0, "demo-4": 0}, balance=balance, latencies=LATENCIES) != NONE
        )


def test_a_users_function_has_shares_of_its_own():
    own = {"balance": CustomBalance("mine", lambda candidates: candidates)}
    assert surplus({"demo-2": 9}, **own) == NONE
    assert surplus({"demo-1": 9}, **own) == {"demo-1"}


def test_other_connections_of_the_process_count_where_the_strategy_counts_them():
    counts = {"demo-2": 8, "demo-3": 2, "demo-4": 2}
    assert surplus(counts, own={"demo-3": 2, "demo-4": 2}) == NONE
    assert surplus(counts, own={"demo-2": 1, "demo-3": 2, "demo-4": 2}) == {"demo-2"}
    shares = {"balance": Balance.ROUND_ROBIN}
    assert surplus(counts, own={"demo-2": 2, "demo-3": 2, "demo-4": 2}, **shares) == NONE


def test_the_slow_ones_of_fastest_are_left_alone():
    fastest = {"balance": Balance.FASTEST, "latencies": {"demo-2": 0.001, "demo-3": 0.1}}
    assert surplus({"demo-2": 4, "demo-3": 9, "demo-4": 0}, **fastest) == {"demo-2"}
    assert surplus({"demo-2": 4, "demo-3": 9, "demo-4": 1}, **fastest) == NONE, "its measurement is under way"


def test_two_choices_moves_nothing_to_where_the_pressure_is_higher():
    busy = dataclasses.replace(READERS[2], cpu=99.0)
    idle = [dataclasses.replace(each, cpu=0.0) for each in READERS[:2]]
    counts = {"demo-2": 12, "demo-3": 8, "demo-4": 2}
    strategy = {"balance": Balance.TWO_CHOICES}
    assert surplus(counts, **strategy) == {"demo-2"}
    assert surplus({**counts, "demo-4": 7}, [WRITER, *idle, busy], **strategy) == NONE


class Process:
    """One process's pace, with check-ins at given times."""

    def __init__(self, size, seed=0):
        self.pace, self.size, self.rng, self.recycled = Pace(), size, random.Random(seed), []

    def check_in(self, instance, now, found):
        if self.pace.is_idle(instance, now):
            return
        if now >= self.pace.look_at:
            self.pace = self.pace.record_look(found, now, self.rng.random())
        if self.pace.may_recycle(instance, now):
            self.recycled.append(now)
            self.pace = self.pace.record_recycling(self.size, now, self.rng.random())


SKEWED = frozenset({"demo-2"})
STEPS = st.lists(
    st.tuples(st.floats(0.0, 2.0), st.sampled_from(["demo-2", "demo-3"]), st.sampled_from([NONE, SKEWED])), max_size=200
)


@settings(max_examples=200)
@given(st.integers(1, 200), STEPS, st.integers(0, 1 << 30))
def test_the_rate_is_kept_whatever_happens(size, steps, seed):
    process, now = Process(size, seed), 0.0
    for pause, instance, found in steps:
        now += pause
        process.check_in(instance, now, found)
    for first, began in enumerate(process.recycled):
        for last, ended in enumerate(process.recycled[first:], first):
            assert last - first <= RATE * size * (ended - began) + 1e-6


def test_a_passing_surplus_costs_nothing():
    process = Process(1000)
    process.check_in("demo-2", 0.0, SKEWED)
    assert process.pace.recycle_at >= FIRST_PAUSE[0]
    process.check_in("demo-2", FIRST_PAUSE[1], NONE)
    process.check_in("demo-2", FIRST_PAUSE[1] + 2 * CALM_SECONDS, SKEWED)
    assert not process.recycled


def test_a_lasting_surplus_is_recycled_at_the_rate():
    process = Process(40)
    for tick in range(10_000):
        process.check_in("demo-2", tick / 100.0, SKEWED)
    assert FIRST_PAUSE[0] <= process.recycled[0] <= FIRST_PAUSE[1] + 0.01
    assert 95.0 * RATE * 40 / 1.5 <= len(process.recycled) <= 100.0 * RATE * 40


def test_processes_do_not_begin_together():
    begun = []
    for seed in range(1000):
        process = Process(20, seed)
        for tick in range(700):
            process.check_in("demo-2", tick / 100.0, SKEWED)
        begun.append(process.recycled[0])
    in_a_second = Counter(int(each) for each in begun)
    assert len(in_a_second) >= 4
    assert max(in_a_second.values()) <= 350


def test_what_is_not_surplus_is_looked_at_seldom():
    pace = Pace().record_look(NONE, 0.0, 0.0)
    assert pace.is_idle("demo-2", 0.49 * CALM_SECONDS)
    moving = dataclasses.replace(pace, surplus=SKEWED).record_look(SKEWED, 1.0, 0.5)
    assert moving.is_idle("demo-3", 1.0 + 0.9 * FRESH_SECONDS)
    assert not moving.is_idle("demo-2", 1.0 + 0.9 * FRESH_SECONDS)


# ---------------------------------------------------------------- drained instances


def drained_context(instances=(WRITER, *READERS[:3]), drained=("demo-2",), **context):
    view = dataclasses.replace(cluster_of(*instances), drains={id_: Drain(math.inf) for id_ in drained})
    return context_of(view, {"demo-2": 4, "demo-3": 4, "demo-4": 4}, **context)


OWN = {"demo-2": 4, "demo-3": 4, "demo-4": 4}


def test_all_connections_to_a_drained_reader_are_recycled():
    assert find_drained(drained_context(), OWN) == {"demo-2"}
    assert find_drained(drained_context(), {"demo-3": 4}) == NONE, "there are none"
    assert find_drained(drained_context(), OWN, is_suspected=True) == NONE
    assert {each.id for zone in find_peers(drained_context()) for each in zone} == {"demo-3", "demo-4"}


@pytest.mark.parametrize("options", STRATEGIES, ids=lambda each: each["balance"].value)
def test_a_drained_reader_is_chosen_last(options):
    context = drained_context(**options)
    wanted = {"loads": context.loads, "quarantine": Quarantine(), "now": 10.0, "rng": random.Random(0)}
    order = select(context.view, context.options, WantedRole.READER, **wanted).order
    assert [each.id for each in order][-1] == "demo-2"


def test_where_nothing_else_is_left_a_drained_reader_stays_in_use():
    alone = drained_context([WRITER, READERS[0]], reader_fallback=ReaderFallback.ERROR)
    assert find_drained(alone, OWN) == NONE
    assert find_drained(drained_context([WRITER, READERS[0]]), OWN) == {"demo-2"}, "the writer takes its place"
    everywhere = drained_context([WRITER, *READERS[:2]], ("demo-2", "demo-3"), reader_fallback=ReaderFallback.ERROR)
    assert find_drained(everywhere, OWN) == NONE
    failed = Quarantine().record_failure("demo-3", 9.0, 5.0, 9.0)
    assert find_drained(drained_context([WRITER, *READERS[:2]], quarantine=failed), OWN) == {"demo-2"}
    only = drained_context(READERS[:2], quarantine=failed)
    assert find_drained(only, OWN) == NONE, "the other one does not answer"


def test_what_is_drained_is_recycled_at_once_and_the_rest_at_its_pace():
    pace = Pace().record_look(frozenset({"demo-3"}), 0.0, 0.5, frozenset({"demo-2"}))
    assert not pace.is_idle("demo-2", 0.0)
    assert pace.may_recycle("demo-2", 0.0)
    assert not pace.may_recycle("demo-3", 0.0), "a random pause comes first"
    assert pace.is_idle("demo-3", 0.0)
    later = pace.record_look(NONE, pace.look_at, 0.5, NONE)
    assert not later.may_recycle("demo-2", math.inf)
