"""What each strategy promises, over 1,000 selections among five readers, each counted before the next one."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.policy.balance import select
from aurora_router.policy.choosers import CHOOSERS
from aurora_router.policy.context import Load
from aurora_router.policy.options import Balance, Options
from aurora_router.policy.quarantine import Quarantine

pytestmark = pytest.mark.bulk

READERS = [f"demo-{number}" for number in range(2, 7)]
SEEDS = range(20)


class Process:
    """One process that opens connections and keeps them."""

    def __init__(self, options, seed=0, readers=READERS, **facts):
        self.options, self.rng, self.turn = options, random.Random(seed), seed * 7919
        self.facts, self.open, self.latency = facts, Counter(), {}
        self.grow(readers)

    def grow(self, readers):
        instances = {"demo-1": Instance("demo-1", Role.WRITER)}
        for each in readers:
            told = {name: values[each] for name, values in self.facts.items()}
            instances[each] = Instance(each, Role.READER, **told)
        self.view = View(instances, writer="demo-1", refreshed_at=0.0)

    def select(self):
        loads = {each: Load(self.open[each], self.latency.get(each)) for each in self.view.instances}
        selection = select(
            self.view,
            self.options,
            WantedRole.READER,
            loads=loads,
            quarantine=Quarantine(),
            now=0.0,
            rng=self.rng,
            turn=self.turn,
        )
        self.turn += 1
        return selection

    def connect(self, times=1000):
        chosen = Counter(dict.fromkeys(self.view.instances, 0))
        for _ in range(times):
            first = self.select().order[0].id
            chosen[first] += 1
            self.open[first] += 1
        assert chosen.pop("demo-1") == 0
        return chosen


def spread(counts):
    return max(counts.values()) - min(counts.values())


def test_every_strategy_has_a_chooser():
    assert set(CHOOSERS) == set(Balance)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_is_within_five_standard_deviations(seed):
    counts = Process(Options(balance=Balance.RANDOM), seed).connect()
    bound = 5 * math.sqrt(1000 * 4) / 5
    assert all(abs(count - 200) <= bound for count in counts.values())
    assert spread(counts) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_round_robin_is_exact(seed):
    assert Process(Options(balance=Balance.ROUND_ROBIN), seed).connect() == dict.fromkeys(READERS, 200)


def test_round_robin_spreads_what_a_dead_one_would_have_had():
    process = Process(Options(balance=Balance.ROUND_ROBIN))
    orders = [[each.id for each in process.select().order] for _ in range(1000)]
    instead = Counter(order[1] for order in orders if order[0] == "demo-2")
    assert instead == dict.fromkeys(READERS[1:], 50)


def test_round_robin_takes_every_order_in_its_turn():
    process = Process(Options(balance=Balance.ROUND_ROBIN))
    orders = {tuple(each.id for each in process.select().order[:-1]) for _ in range(math.factorial(5))}
    assert len(orders) == math.factorial(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_weighted_is_in_proportion(seed):
    weights = (("demo-2", 5), ("demo-3", 3), ("demo-4", 0), ("demo-5", 1))  # demo-6 is not named: 1
    counts = Process(Options(balance=Balance.WEIGHTED, weights=weights), seed).connect()
    assert counts["demo-4"] == 0
    for each, share in {"demo-2": 500, "demo-3": 300, "demo-5": 100, "demo-6": 100}.items():
        assert abs(counts[each] - share) <= 5


@given(st.lists(st.integers(1, 999), min_size=5, max_size=5), st.integers(0, 2**32), st.integers(1, 1500))
@settings(max_examples=20, deadline=None)
def test_weighted_keeps_its_bound_for_any_weights_start_and_number(numbers, start, times):
    process = Process(Options(balance=Balance.WEIGHTED, weights=tuple(zip(READERS, numbers, strict=True))))
    process.turn = start
    counts = process.connect(times)
    for each, number in zip(READERS, numbers, strict=True):
        assert abs(counts[each] - times * number / sum(numbers)) <= 5


def test_weighted_alternatives_are_in_proportion_too():
    weights = (("demo-2", 4), ("demo-3", 2), ("demo-4", 1), ("demo-5", 1), ("demo-6", 1))
    process = Process(Options(balance=Balance.WEIGHTED, weights=weights))
    orders = [[each.id for each in process.select().order] for _ in range(9000)]
    instead = Counter(order[1] for order in orders if order[0] == "demo-2")
    total = sum(instead.values())
    assert abs(total - 4000) <= 5
    assert abs(instead["demo-3"] / total - 2 / 5) < 0.02
    assert abs(instead["demo-6"] / total - 1 / 5) < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_least_connections_is_within_one(seed):
    process = Process(Options(balance=Balance.LEAST_CONNECTIONS), seed)
    for _ in range(40):
        process.connect(25)
        assert spread({each: process.open[each] for each in READERS}) <= 1


def test_least_connections_is_the_default():
    assert Options().balance is Balance.LEAST_CONNECTIONS


def test_least_connections_breaks_ties_at_random():
    firsts = Counter(Process(Options(), seed).select().order[0].id for seed in range(500))
    assert min(firsts[each] for each in READERS) > 60


def test_least_connections_fills_up_a_newcomer():
    process = Process(Options(), readers=READERS[:-1])
    process.connect(400)
    process.grow(READERS)
    assert process.connect(100) == {**dict.fromkeys(READERS[:-1], 0), READERS[-1]: 100}
    assert spread(process.connect(500)) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_two_choices_is_within_ten(seed):
    process = Process(Options(balance=Balance.TWO_CHOICES), seed)
    for _ in range(10):
        process.connect(100)
        assert spread({each: process.open[each] for each in READERS}) <= 10


def test_two_choices_shuns_a_busy_and_a_late_one():
    cpu = dict.fromkeys(READERS, 0.0) | {"demo-2": 100.0}
    lag = dict.fromkeys(READERS, 0.0) | {"demo-3": 1.0}
    counts = Process(Options(balance=Balance.TWO_CHOICES), cpu=cpu, lag=lag).connect()
    for each in ("demo-2", "demo-3"):  # twice the pressure per connection: half of the connections
        assert abs(counts[each] - 125) <= 15
    for each in READERS[2:]:
        assert abs(counts[each] - 250) <= 15


def test_two_choices_takes_the_mean_for_what_is_unknown():
    cpu = dict.fromkeys(READERS, 50.0) | {"demo-2": None}
    counts = Process(Options(balance=Balance.TWO_CHOICES), cpu=cpu).connect()
    assert spread(counts) <= 10


def test_fastest_takes_the_lowest_latency():
    process = Process(Options(balance=Balance.FASTEST))
    process.latency = {each: 0.010 + 0.005 * number for number, each in enumerate(READERS)}
    assert process.connect() == dict.fromkeys(READERS, 0) | {"demo-2": 1000}
    assert [each.id for each in process.select().order][:5] == READERS


def test_fastest_spreads_over_the_equally_fast():
    process = Process(Options(balance=Balance.FASTEST))
    process.latency = dict(zip(READERS, [0.010, 0.012, 0.0125, 0.013, 0.020], strict=True))
    counts = process.connect(900)
    assert counts == dict.fromkeys(READERS[:3], 300) | dict.fromkeys(READERS[3:], 0)


def test_fastest_takes_less_than_a_millisecond_for_nothing():
    process = Process(Options(balance=Balance.FASTEST))
    process.latency = dict(zip(READERS, [0.0001, 0.001, 0.001, 0.0011, 0.0012], strict=True))
    assert spread({each: count for each, count in process.connect(400).items() if each != "demo-6"}) == 0


def test_fastest_probes_each_once_and_does_not_wait_for_the_answers():
    process = Process(Options(balance=Balance.FASTEST))
    assert process.connect(5) == dict.fromkeys(READERS, 1)
    assert spread(process.connect(500)) == 0  # a prefill at once: all probes are under way


def test_fastest_sends_one_probe_to_a_newcomer_not_the_herd():
    process = Process(Options(balance=Balance.FASTEST), readers=READERS[:-1])
    process.latency = dict.fromkeys(READERS[:-1], 0.01)
    process.connect(400)
    process.grow(READERS)
    assert process.connect(101)[READERS[-1]] == 1
    process.latency[READERS[-1]] = 0.01
    assert process.connect(99)[READERS[-1]] == 99


# ---------------------------------------------------------------- the promises, for any number, start and seed

readers = st.integers(1, 8).map(lambda count: [f"demo-{number + 2}" for number in range(count)])
seeds = st.integers(0, 2**32)
times = st.integers(1, 400)


@given(readers, seeds, times)
@settings(max_examples=50, deadline=None)
def test_random_keeps_its_bound(readers, seed, times):
    counts, number = Process(Options(balance=Balance.RANDOM), seed, readers).connect(times), len(readers)
    # At least one whole connection: five standard deviations of a few draws are less than the rounding.
    bound = max(5 * math.sqrt(times * (number - 1)) / number, 5.0)
    assert all(abs(count - times / number) <= bound for count in counts.values())


@given(readers, seeds, times)
@settings(max_examples=50, deadline=None)
def test_round_robin_is_exact_from_any_turn(readers, start, times):
    process = Process(Options(balance=Balance.ROUND_ROBIN), 0, readers)
    process.turn = start
    exact = times / len(readers)
    assert set(process.connect(times).values()) <= {math.floor(exact), math.ceil(exact)}


@given(readers, seeds, st.lists(st.integers(0, 30), min_size=8, max_size=8))
@settings(max_examples=50, deadline=None)
def test_least_connections_evens_out_whatever_was_there(readers, seed, before):
    """Those that have least are filled up first; from then on any two differ by 1 at most."""
    process = Process(Options(balance=Balance.LEAST_CONNECTIONS), seed, readers)
    process.open.update(dict(zip(readers, before, strict=False)))
    process.connect(max(process.open.values(), default=0) * len(readers) + 1)
    for _ in range(2 * len(readers)):
        assert spread({each: process.open[each] for each in readers}) <= 1
        process.connect(1)


@given(seeds, times)
@settings(max_examples=50, deadline=None)
def test_two_choices_keeps_its_bound(seed, times):
    process = Process(Options(balance=Balance.TWO_CHOICES), seed)
    assert spread(process.connect(times)) <= 10


@given(readers, seeds, times, st.floats(0.0001, 1.0))
@settings(max_examples=50, deadline=None)
def test_fastest_keeps_the_equally_fast_within_one_and_leaves_the_slow(readers, seed, times, latency):
    process = Process(Options(balance=Balance.FASTEST), seed, [*readers, "slow"])
    process.latency = {**dict.fromkeys(readers, latency), "slow": 2.0 * latency + 0.01}
    counts = process.connect(times)
    assert counts.pop("slow") == 0
    assert spread(counts) <= 1


@pytest.mark.parametrize("balance", Balance)
def test_every_strategy_orders_all_alternatives(balance):
    order = Process(Options(balance=balance)).select().order
    assert sorted(each.id for each in order[:-1]) == READERS
    assert order[-1].id == "demo-1"
