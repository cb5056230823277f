"""The table of verdicts: complete, consistent, and what matters of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from aurora_router.policy.verdict import (
    BY_CLASS,
    BY_KIND,
    BY_SQLSTATE,
    ON_THIS_SIDE,
    Fault,
    FaultKind,
    Next,
    judge,
    refuses_login,
)

VERDICTS = {id(each): each for each in (*BY_KIND.values(), *BY_SQLSTATE.values(), *BY_CLASS.values())}.values()


def test_every_kind_of_fault_has_a_verdict():
    assert set(BY_KIND) == set(FaultKind)


@pytest.mark.parametrize("sqlstate", BY_SQLSTATE)
def test_every_sqlstate_is_one_of_postgresql(sqlstate):
    assert errors.lookup(sqlstate).sqlstate == sqlstate


@given(st.sampled_from(FaultKind), st.none() | st.text(max_size=5))
def test_judging_is_total_and_an_unknown_sqlstate_leaves_it_to_the_kind(kind, sqlstate):
    expected = BY_SQLSTATE.get(sqlstate) or BY_CLASS.get((sqlstate or "")[:2]) or BY_KIND[kind]
    assert judge(Fault(kind, sqlstate)) is expected


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda each: each.name)
def test_what_is_raised_at_once_blames_no_instance(verdict):
    if verdict.then in {Next.RAISE, Next.OTHERS}:
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
        (Fault(FaultKind.REJECTED, "0A000"), "invalid", False),
        (Fault(FaultKind.REJECTED, "08P01"), "rejected", False),
        (Fault(FaultKind.REJECTED), "rejected", False),
        (Fault(FaultKind.UNKNOWN), "unknown", False),
        (Fault(FaultKind.REFUSED), "refused", True),
        (Fault(FaultKind.TIMEOUT), "timeout", False),
        (Fault(FaultKind.RESET), "connection_lost", True),
        (Fault(FaultKind.IDENTITY), "identity", False),
    ],
)
def test_what_a_failover_and_an_overload_look_like(fault, name, down):
    assert (judge(fault).name, judge(fault).down) == (name, down)


@pytest.mark.parametrize("kind", FaultKind)
@pytest.mark.parametrize("sqlstate", [None, *BY_SQLSTATE, "08P01", "XX000"])
def test_what_is_not_known_to_be_the_same_everywhere_leads_elsewhere(kind, sqlstate):
    final = {"28000", "28P01", "3D000", "42501", "55P02"} if kind is FaultKind.REJECTED else {sqlstate}
    if kind not in {FaultKind.IDENTITY, FaultKind.CLIENT} and sqlstate not in final:
        assert judge(Fault(kind, sqlstate)).then is not Next.RAISE


@pytest.mark.parametrize("kind", sorted(ON_THIS_SIDE, key=lambda kind: kind.name))
def test_what_was_not_sent_shows_nothing_of_the_instance(kind):
    verdict = judge(Fault(kind))
    assert not any((verdict.down, verdict.quarantine, refuses_login(Fault(kind))))


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        (Fault(FaultKind.REJECTED, "28P01"), True),
        (Fault(FaultKind.REJECTED), True),  # a wrong password in another language, for all that is known
        (Fault(FaultKind.CLIENT), True),
        (Fault(FaultKind.REJECTED, "53300"), False),
        (Fault(FaultKind.REFUSED), False),
        (Fault(FaultKind.UNKNOWN), False),
    ],
)
def test_which_faults_refuse_the_monitors_login(fault, refused):
    assert refuses_login(fault) is refused


def test_a_login_refused_while_a_server_restarts_is_tried_again_only_where_that_happens():
    fault = Fault(FaultKind.REJECTED, "28000")
    assert (judge(fault).then, refuses_login(fault)) == (Next.RAISE, True)
    verdict = judge(fault, {"28000"})
    assert (verdict.name, verdict.then, verdict.down) == ("restarting", Next.ELSEWHERE, True)
    assert not refuses_login(fault, {"28000"})
    assert judge(Fault(FaultKind.REJECTED, "28P01"), {"28000"}).then is Next.RAISE
