"""A user's balance function: what it gets, what it may return, and what it cannot do."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.errors import ExtensionFailed
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.policy.balance import select
from aurora_router.policy.candidate import Candidate
from aurora_router.policy.context import Load
from aurora_router.policy.options import CustomBalance, Options
from aurora_router.policy.quarantine import Quarantine
from tests.policy.test_balance import CLUSTER, choose, ids, view_of


def ordered(function, view=CLUSTER, **given):
    return choose(view, balance=CustomBalance("mine", function), **given)


def recording(seen):
    """A function that has no preference, and notes what it gets."""

    def function(candidates):
        seen.append(candidates)
        return candidates

    return function


def test_it_gets_what_is_known():
    seen = []
    view = view_of(
        Instance("demo-1", Role.WRITER),
        Instance("demo-2", Role.READER, lag=0.01, cpu=55.0, lag_at=0.0),
        Instance("demo-3", Role.READER, zone="b"),
    )
    loads = {"demo-2": Load(7, 0.004)}
    given = {"weights": (("demo-3", 5),), "zone_map": (("demo-2", "a"),)}
    ordered(recording(seen), view, loads=loads, **given)
    assert seen == [
        (
            Candidate("demo-2", Role.READER, "a", 0.01, 55.0, 7, 0.004, 1),
            Candidate("demo-3", Role.READER, "b", None, None, 0, None, 5),
        )
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen[0][0].connections = 0


@pytest.mark.parametrize(
    "answer",
    [
        lambda candidates: candidates[1],
        lambda candidates: candidates[1].id,
        lambda candidates: [candidates[1]],
        lambda candidates: (each.id for each in reversed(candidates)),
        lambda candidates: sorted(candidates, key=lambda each: each.id, reverse=True),
    ],
)
def test_it_may_return_one_or_an_order(answer):
    assert ids(ordered(answer)) == ["demo-3", "demo-2", "demo-1"]


def test_the_others_follow_by_connections():
    readers = [Instance(f"demo-{number}", Role.READER, lag=0.0, lag_at=0.0) for number in range(2, 6)]
    loads = {"demo-2": Load(9), "demo-3": Load(5), "demo-4": Load(1), "demo-5": Load(0)}
    assert ids(ordered(lambda each: "demo-3", view_of(*readers), loads=loads)) == [
        "demo-3",
        "demo-5",
        "demo-4",
        "demo-2",
    ]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda each: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda: None, "raised TypeError: "),
        (lambda each: None, "returned a NoneType: it has to return a candidate, its id, or several"),
        (lambda each: [], "returned no candidate"),
        (lambda each: "demo-1", r"returned 'demo-1', which is none of its candidates \(demo-2, demo-3\)"),
        (lambda each: [each[0], "demo-9"], "returned 'demo-9', which is none"),
        (lambda each: [each[0], 3], "returned 3, which is none"),
        (lambda each: [each[0], each[0].id], r"returned a candidate twice \(demo-2, demo-2\)"),
    ],
)
def test_a_failure_is_named(answer, told):
    with pytest.raises(ExtensionFailed, match=f"^the balance function mine {told}") as caught:
        ordered(answer)
    assert (caught.value.__cause__ is not None) is ("raised" in told)


def test_filters_and_preferences_come_first():
    """It chooses among equals alone: neither the writer, nor what lags too far, nor with those that failed recently."""
    seen = []
    readers = [Instance(f"demo-{number}", Role.READER, lag=0.0, lag_at=0.0) for number in range(2, 6)]
    late = Instance("demo-6", Role.READER, lag=9.0, lag_at=0.0)
    view = view_of(Instance("demo-1", Role.WRITER), *readers, late)
    failed = Quarantine().record_failure("demo-2", 0.0, 5.0, 0.0).record_failure("demo-3", 0.0, 5.0, 0.0)
    order = ids(ordered(recording(seen), view, quarantine=failed, max_lag=1.0))
    assert [[each.id for each in group] for group in seen] == [["demo-4", "demo-5"], ["demo-2", "demo-3"]]
    assert order == ["demo-4", "demo-5", "demo-1", "demo-2", "demo-3"]


def test_it_is_not_asked_where_nothing_is_to_choose():
    assert ids(ordered(lambda each: 1 / 0, role=WantedRole.WRITER)) == ["demo-1"]


def test_messages_have_its_name():
    assert ordered(lambda each: each).reason.endswith(", by mine of 2")


@given(st.permutations(["demo-2", "demo-3", "demo-4", "demo-5"]), st.integers(1, 4))
def test_the_order_has_every_candidate_once(names, count):
    readers = [Instance(f"demo-{number}", Role.READER, lag=0.0, lag_at=0.0) for number in range(2, 6)]
    order = ids(ordered(lambda _: names[:count], view_of(*readers)))
    assert order[:count] == names[:count]
    assert sorted(order) == sorted(names)


def test_weights_need_no_strategy_of_their_own():
    options = Options(balance=CustomBalance("mine", lambda each: each), weights=(("demo-2", 0),))
    selection = select(
        CLUSTER, options, WantedRole.READER, loads={}, quarantine=Quarantine(), now=0.0, rng=None, turn=0
    )
    assert ids(selection)[0] == "demo-2", "a weight is what the function makes of it"
