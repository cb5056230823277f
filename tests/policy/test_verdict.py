"""The table of verdicts: complete, consistent, and what matters of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from aurora_router.policy.verdict import BY_KIND, BY_SQLSTATE, Fault, FaultKind, Next, judge

VERDICTS = {id(each): each for each in (*BY_KIND.values(), *BY_SQLSTATE.values())}.values()


def test_every_kind_of_fault_has_a_verdict():
    assert set(BY_KIND) == set(FaultKind)


@pytest.mark.parametrize("sqlstate", BY_SQLSTATE)
def test_every_sqlstate_is_one_of_postgresql(sqlstate):
    assert errors.lookup(sqlstate).sqlstate == sqlstate


@given(st.sampled_from(FaultKind), st.none() | st.text(max_size=5))
def test_judging_is_total_and_an_unknown_sqlstate_leaves_it_to_the_kind(kind, sqlstate):
    expected = BY_SQLSTATE.get(sqlstate, BY_KIND[kind])
    assert judge(Fault(kind, sqlstate)) is expected


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda each: each.name)
def test_what_is_raised_at_once_blames_no_instance(verdict):
    if verdict.then is Next.RAISE:
        assert not verdict.down
        assert not verdict.quarantine
    assert verdict.meaning.endswith((".", "?"))


def test_names_are_unique():
    assert len({each.name for each in VERDICTS}) == len(list(VERDICTS))


@pytest.mark.parametrize(
    ("fault", "name", "down"),
    [
        (Fault(FaultKind.REJECTED, "28P01"), "authentication", False),
        (Fault(FaultKind.REJECTED, "57P03"), "starting_up", True),
        (Fault(FaultKind.REJECTED, "57P01"), "shutting_down", True),
        (Fault(FaultKind.REJECTED, "53300"), "too_many_connections", False),
        (Fault(FaultKind.REJECTED, "25006"), "read_only", True),
        (Fault(FaultKind.REJECTED, "0A000"), "rejected", False),
        (Fault(FaultKind.REFUSED), "refused", True),
        (Fault(FaultKind.TIMEOUT), "timeout", False),
        (Fault(FaultKind.RESET), "connection_lost", True),
        (Fault(FaultKind.IDENTITY), "identity", False),
    ],
)
def test_what_a_failover_and_an_overload_look_like(fault, name, down):
    assert (judge(fault).name, judge(fault).down) == (name, down)
