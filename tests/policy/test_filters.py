"""Filters and preferences, one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.description import Attributes, CustomEndpoint, EndpointType
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.policy.balance import (
    LAG_SECONDS,
    Candidates,
    by_endpoint,
    by_lag,
    by_role,
    by_weight,
    in_lag,
    in_role,
    in_zone,
    is_lag_unproven,
    not_failed,
    rank,
    suitable,
)
from aurora_router.policy.context import Context, Load
from aurora_router.policy.options import Balance, Options, ReaderFallback
from aurora_router.policy.quarantine import Quarantine

WRITER = Instance("w", Role.WRITER, lag=0.0, zone="a")
FRESH = Instance("fresh", Role.READER, lag=0.01, zone="a", lag_at=0.0)
LATE = Instance("late", Role.READER, lag=0.4, zone="b", lag_at=0.0)
SILENT = Instance("silent", Role.READER, zone="c", lag_at=0.0, heard_at=0.0)
UNKNOWN = Instance("unknown")
ALL = Candidates((WRITER, FRESH, LATE, SILENT, UNKNOWN))


def context(role=WantedRole.READER, quarantine=None, now=0.0, **options):
    view = View({each.id: each for each in ALL.kept}, writer="w", refreshed_at=0.0)
    return Context(view, Options(**options), role, {"w": Load(3)}, quarantine or Quarantine(), now, random.Random(0), 0)


def told(candidates):
    return [each.id for each in candidates.kept], {each.id: why for each, why in candidates.left_out}


def test_by_endpoint():
    endpoint = CustomEndpoint(EndpointType.READER, excluded=frozenset({"late"}))
    kept, out = told(by_endpoint(ALL, context()._replace(endpoint=endpoint)))
    assert kept == ["fresh", "silent", "unknown"]
    assert out == dict.fromkeys(["w", "late"], "it is no member of the custom endpoint")
    assert by_endpoint(ALL, context()) == ALL


def test_members_are_filtered_further():
    endpoint = CustomEndpoint(static=frozenset({"w", "late"}))
    given = context(max_lag=0.1, reader_fallback=ReaderFallback.ERROR)._replace(endpoint=endpoint)
    kept, out = told(suitable(ALL.kept, given))
    assert kept == []
    assert out["w"] == "it is the writer, and aurora_reader_fallback=error"
    assert out["late"] == "lag 0.4 s > aurora_max_lag 0.1 s"


def test_the_own_zone_is_a_zone_like_others():
    given = context(zones=(frozenset({"own"}), frozenset({"b"})), attributes="rds")
    assert [in_zone(each, given) for each in (FRESH, LATE, SILENT)] == [2, 1, 2], "it is not known"
    known = given._replace(view=replace(given.view, own_zone="c"))
    assert [in_zone(each, known) for each in (FRESH, LATE, SILENT)] == [2, 1, 0]
    described = replace(known.view, attributes={"fresh": Attributes("c")})
    assert [in_zone(each, known._replace(view=described)) for each in (FRESH, LATE, SILENT)] == [0, 1, 0]
    assert in_zone(UNKNOWN, known) == 2


def test_by_role_writer():
    kept, out = told(by_role(ALL, context(WantedRole.WRITER)))
    assert kept == ["w", "unknown"]
    assert out == dict.fromkeys(["fresh", "late", "silent"], "it is a reader")


@pytest.mark.parametrize("role", [WantedRole.READER, WantedRole.PREFER_READER, WantedRole.ANY])
def test_by_role_with_the_writer_to_fall_back_on(role):
    assert by_role(ALL, context(role)) == ALL


def test_by_role_without_a_fall_back():
    kept, out = told(by_role(ALL, context(reader_fallback=ReaderFallback.ERROR)))
    assert kept == ["fresh", "late", "silent", "unknown"]
    assert out == {"w": "it is the writer, and aurora_reader_fallback=error"}


@pytest.mark.parametrize("role", [WantedRole.PREFER_READER, WantedRole.ANY])
def test_the_fall_back_of_the_role_reader_alone_can_be_an_error(role):
    assert by_role(ALL, context(role, reader_fallback=ReaderFallback.ERROR)) == ALL


def test_by_lag_is_a_promise():
    kept, out = told(by_lag(ALL, context(max_lag=0.1)))
    assert kept == ["w", "fresh", "unknown"]
    assert out == {
        "late": "lag 0.4 s > aurora_max_lag 0.1 s",
        "silent": "its lag is unknown, and aurora_max_lag is 0.1 s",
    }


@pytest.mark.parametrize("heard_at", [None, 0.0])
def test_a_lag_that_only_others_do_not_know_is_asked_for(heard_at):
    """The monitor may read it again each second, so that the reader itself would never be asked."""
    silent = replace(SILENT, lag_at=LAG_SECONDS, heard_at=heard_at)
    assert silent in by_lag(Candidates((silent,)), context(max_lag=0.1, now=LAG_SECONDS)).kept


def test_a_lag_at_the_limit_is_within_it():
    assert LATE in by_lag(ALL, context(max_lag=0.4)).kept


def test_a_lag_that_was_too_high_is_asked_for_again():
    later = context(max_lag=0.1, now=LAG_SECONDS)
    assert told(by_lag(ALL, later)) == (["w", "fresh", "late", "silent", "unknown"], {})
    assert [in_lag(each, later) for each in ALL.kept] == [0, 0, 1, 1, 0]
    assert in_lag(LATE, context()) == 0


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 100), st.floats(0, 10))
def test_a_figure_and_its_age_are_the_most_that_a_lag_can_be(lag, bound, age, growth):
    """However replay went on meanwhile: a lag grows by at most a second a second."""
    measured = replace(FRESH, lag=lag, lag_at=0.0)
    lag_now = lag + min(growth, age)
    if not is_lag_unproven(measured, Options(max_lag=bound), age):
        assert lag_now <= bound


@pytest.mark.parametrize("unknown", [replace(FRESH, lag=None), replace(FRESH, lag_at=None)])
def test_a_lag_of_unknown_size_or_age_proves_nothing(unknown):
    assert is_lag_unproven(unknown, Options(max_lag=1000.0), 0.0)
    assert not is_lag_unproven(unknown, Options(), 0.0)
    assert not is_lag_unproven(WRITER, Options(max_lag=0.0), 100.0)


def test_by_lag_without_a_limit():
    assert by_lag(ALL, context()) is ALL


def test_by_weight():
    weights = (("late", 0), ("fresh", 2))
    kept, out = told(by_weight(ALL, context(balance=Balance.WEIGHTED, weights=weights)))
    assert kept == ["w", "fresh", "silent", "unknown"]
    assert out == {"late": "its weight is 0"}
    assert by_weight(ALL, context()) is ALL


def test_what_was_left_out_stays_left_out():
    given = suitable(ALL.kept, context(WantedRole.READER, max_lag=0.1, reader_fallback=ReaderFallback.ERROR))
    assert told(given)[0] == ["fresh", "unknown"]
    assert list(told(given)[1]) == ["w", "late", "silent"]


def test_not_failed():
    quarantine = Quarantine().record_failure("late", 0.0, 1.0)
    assert [not_failed(each, context(quarantine=quarantine)) for each in (FRESH, LATE)] == [0, 1]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (WantedRole.WRITER, (0, 0, 1)),
        (WantedRole.READER, (2, 0, 1)),
        (WantedRole.PREFER_READER, (2, 0, 1)),
        (WantedRole.ANY, (0, 0, 0)),
    ],
)
def test_in_role(role, expected):
    assert tuple(in_role(each, context(role)) for each in (WRITER, FRESH, UNKNOWN)) == expected


def test_in_zone():
    tiers = (frozenset({"b"}), frozenset({"a", "x"}))
    assert [in_zone(each, context(zones=tiers)) for each in ALL.kept] == [1, 1, 0, 2, 2]
    assert [in_zone(each, context()) for each in ALL.kept] == [0] * 5


def test_a_failure_outweighs_the_role_and_the_role_the_zone():
    tiers = (frozenset("a"),)
    quarantine = Quarantine().record_failure("fresh", 0.0, 1.0)
    given = context(zones=tiers, quarantine=quarantine)
    assert [each.id for each in sorted(ALL.kept, key=lambda each: rank(each, given))] == [
        "late",
        "silent",
        "unknown",
        "w",
        "fresh",
    ]
