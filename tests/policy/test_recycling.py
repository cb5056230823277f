"""Which connections of a pool are to be recycled, by what is known of them without a round trip."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.description import CustomEndpoint, EndpointType
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.policy.recycling import RULES, HeldConnection, choose_recycled, judge_held

VIEW = View(
    {"demo-1": Instance("demo-1", Role.WRITER, 3), "demo-2": Instance("demo-2", Role.READER, 1)},
    writer="demo-1",
    refreshed_at=0.0,
)
GOOD = HeldConnection("demo-1", 3, reported=False, reports=False)


def reason(held, view=VIEW):
    found = judge_held(view, held)
    return None if found is None else found.reason


def test_what_is_as_it_was_stays():
    assert judge_held(VIEW, GOOD) is None
    assert judge_held(None, GOOD) is None
    assert judge_held(VIEW, HeldConnection(None, 0)) is None, "behind a proxy nothing is known"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"closed": True}, "the connection was lost"),
        ({"process": 17}, "the connection was opened by process 17, of which this one was forked"),
        ({"reports": True}, "the connection to demo-1 is stale: its server reports that it is a reader now"),
        ({"reported": True}, "the connection to demo-1 is stale: its server reports that it is a writer now"),
        (
            {"generation": 2},
            "the connection to demo-1 is stale: the instance is not what it was, and now a writer",
        ),
        ({"instance": "demo-9"}, "the connection to demo-9 is stale: the instance has left the cluster"),
        ({"ended": True}, "demo-1 has ended the connection"),
        ({"ended": True, "instance": None}, "the server has ended the connection"),
        ({"reports": True, "instance": None}, "the connection to the server is stale: its server reports that it is"),
    ],
)
def test_each_rule_has_its_reason(changed, told):
    assert reason(replace(GOOD, **changed)).startswith(told)


def test_what_has_left_its_custom_endpoint_is_recycled():
    members = {"olap": CustomEndpoint(EndpointType.READER), "some": CustomEndpoint(static=frozenset({"demo-2"}))}
    view = replace(VIEW, endpoints=members)
    told = "the connection to demo-1 is stale: demo-1 is no member of the custom endpoint {} any more"
    for name in ("olap", "some"):
        assert reason(replace(GOOD, endpoint=name), view) == told.format(name)
        assert reason(replace(GOOD, endpoint=name, instance="demo-2", generation=1), view) is None
    assert reason(replace(GOOD, endpoint="unknown"), view) is None
    assert reason(replace(GOOD, endpoint=None), view) is None


def test_a_reported_role_puts_the_writer_in_question():
    assert judge_held(VIEW, replace(GOOD, reports=True)).suspicion == "demo-1 reports that it is a reader now"
    assert judge_held(VIEW, replace(GOOD, reports=True, instance=None)).suspicion is None
    assert judge_held(VIEW, replace(GOOD, generation=1)).suspicion is None


HELD = st.builds(
    HeldConnection,
    st.sampled_from([None, "demo-1", "demo-2", "demo-9"]),
    st.integers(0, 3),
    closed=st.booleans(),
    ended=st.booleans(),
    pooled=st.booleans(),
    process=st.sampled_from([None, 17]),
    reported=st.sampled_from([None, False, True]),
    reports=st.sampled_from([None, False, True]),
)


@given(st.lists(HELD, max_size=5), HELD | st.none())
def test_a_pool_recycles_what_a_rule_names_and_no_other(idle, refused):
    found = choose_recycled(VIEW, idle, refused)
    assert len(found) == len(idle)
    for held, recycling in zip(idle, found, strict=True):
        shares = refused is not None and held.pooled and refused.pooled and held.instance == refused.instance
        assert (recycling is not None) is (shares or any(rule(VIEW, held) for rule in RULES))


def test_others_of_one_pooler_share_the_fate():
    refused = HeldConnection("demo-1", 3, pooled=True)
    idle = [
        HeldConnection("demo-1", 3, pooled=True),
        HeldConnection("demo-2", 1, pooled=True),
        HeldConnection("demo-1", 3),
    ]
    assert [each is not None for each in choose_recycled(VIEW, idle, refused)] == [True, False, False]
    assert choose_recycled(VIEW, idle) == [None, None, None]
