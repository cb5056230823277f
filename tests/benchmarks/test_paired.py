from __future__ import annotations

import gc
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import paired

SECONDS = st.floats(min_value=1e-6, max_value=10.0)


def test_contestants_run_once_per_round_in_changing_order():
    seen = []
    blocks = {name: lambda name=name: seen.append(name) or 1.0 for name in "abc"}
    samples = paired.alternate(blocks, 50, random.Random(1))
    rounds = ["".join(seen[at : at + 3]) for at in range(0, 150, 3)]
    assert all(sorted(each) == list("abc") for each in rounds)
    assert len(set(rounds)) == 6
    assert samples == {name: [1.0] * 50 for name in "abc"}
    assert gc.get_freeze_count() == 0


def test_samples_belong_to_the_round_in_which_they_were_taken():
    clock = iter(range(1, 1000))
    samples = paired.alternate({name: lambda: float(next(clock)) for name in "ab"}, 100, random.Random(2))
    for turn, both in enumerate(zip(samples["a"], samples["b"], strict=True)):
        assert set(both) == {2 * turn + 1, 2 * turn + 2}


@given(st.lists(st.tuples(SECONDS, st.floats(min_value=0.5, max_value=2.0)), min_size=1, max_size=60), SECONDS)
def test_what_slows_a_whole_round_down_changes_no_ratio(rounds, factor):
    base = {"a": [slow * ratio for slow, ratio in rounds], "b": [slow for slow, _ in rounds]}
    slowed = {name: [each * factor for each in values] for name, values in base.items()}
    first, second = paired.ratio(base, "a", "b"), paired.ratio(slowed, "a", "b")
    assert first.low <= first.value <= first.high
    assert second.value == pytest.approx(first.value)
    assert min(ratio for _, ratio in rounds) * 0.999 <= first.low <= first.high <= 1.001 * max(r for _, r in rounds)


def test_outliers_do_not_move_the_ratio():
    rng = random.Random(3)
    its = [1.0 + rng.random() * 0.01 for _ in range(400)]
    mine = [each * 1.04 for each in its]
    for at in range(0, 400, 10):
        mine[at] *= 30
    reported = paired.ratio({"a": mine, "b": its}, "a", "b")
    assert reported.value == pytest.approx(1.04)
    assert reported.high < 1.05


def test_the_interval_covers_the_median_as_often_as_promised():
    rng = random.Random(4)
    covered = 0
    for _ in range(400):
        samples = {"a": [rng.lognormvariate(0, 0.3) for _ in range(60)], "b": [1.0] * 60}
        reported = paired.ratio(samples, "a", "b")
        covered += reported.low <= 1.0 <= reported.high
    assert covered >= 0.92 * 400


def test_no_rounds_are_an_error():
    with pytest.raises(ValueError, match="no rounds"):
        paired.ratio({"a": [], "b": []}, "a", "b")


def test_added_is_the_median_difference():
    assert paired.added({"a": [3.0, 5.0, 99.0], "b": [1.0, 2.0, 3.0]}, "a", "b") == 3.0


def noisy(spread, rng):
    return lambda: {"a": [1 + rng.uniform(-spread, spread) for _ in range(20)], "b": [1.0] * 20}


def test_batches_go_on_until_the_interval_is_narrow():
    calm = paired.converge(noisy(0.001, random.Random(5)), ("a", "b"), width=0.01, seconds=60)
    assert len(calm["a"]) == 60
    rough = paired.converge(noisy(0.1, random.Random(5)), ("a", "b"), width=0.01, seconds=60)
    reported = paired.ratio(rough, "a", "b")
    assert len(rough["a"]) > 60
    assert reported.high - reported.low <= 0.01


def test_batches_end_when_the_time_is_up():
    assert len(paired.converge(noisy(0.5, random.Random(6)), ("a", "b"), width=0.0, seconds=0.0)["a"]) == 60


@pytest.mark.parametrize("cost", [1e-6, 1e-4, 0.5])
def test_a_count_fills_a_block(cost):
    count = paired.count_for(lambda operations: operations * cost, 0.01)
    assert count == max(1, round(0.01 / cost))


def test_processes_are_kept_apart_and_come_back():
    before = os.sched_getaffinity(0)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with paired.apart([child.pid]):
            mine, its = os.sched_getaffinity(0), os.sched_getaffinity(child.pid)
            assert len(before) == 1 or (len(mine) == len(its) == 1 and mine != its)
        assert os.sched_getaffinity(0) == before
    finally:
        child.communicate(b"\n")


def test_a_server_that_is_gone_is_no_error():
    before = os.sched_getaffinity(0)
    with paired.apart([2**22 + 1]):
        pass
    assert os.sched_getaffinity(0) == before
