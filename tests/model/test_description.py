"""Descriptions: which instances are members of a custom endpoint, and what a description changes of a view."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from aurora_router.model.description import (
    MEMBERS_SECONDS,
    NO_MEMBERS,
    UNKNOWN,
    Attributes,
    CustomEndpoint,
    Description,
    EndpointType,
)
from aurora_router.model.instance import Instance, Role
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View

WRITER, READER, NEW = Instance("Demo-1", Role.WRITER), Instance("demo-2", Role.READER), Instance("demo-3")
VIEW = View({each.id: each for each in (WRITER, READER, NEW)}, writer="Demo-1", refreshed_at=0.0)
SEEN = Description("demo", {"demo-1": Attributes("eu-west-1a", "db.r6g.large", 0)}, {"olap": CustomEndpoint()})


@pytest.mark.parametrize(
    ("endpoint", "members"),
    [
        (CustomEndpoint(), {"Demo-1", "demo-2", "demo-3"}),
        (CustomEndpoint(EndpointType.READER), {"demo-2", "demo-3"}),
        (CustomEndpoint(EndpointType.WRITER), {"Demo-1", "demo-3"}),
        (CustomEndpoint(excluded=frozenset({"demo-1"})), {"demo-2", "demo-3"}),
        (CustomEndpoint(EndpointType.READER, excluded=frozenset({"demo-2"})), {"demo-3"}),
        (CustomEndpoint(EndpointType.READER, static=frozenset({"demo-1"})), {"Demo-1"}),
        (CustomEndpoint(static=frozenset({"demo-2"}), excluded=frozenset({"demo-2"})), {"demo-2"}),
        (NO_MEMBERS, set()),
    ],
)
def test_members_follow_from_the_lists_and_the_role(endpoint, members):
    assert {each.id for each in (WRITER, READER, NEW) if endpoint.has_member(each)} == members


def test_a_description_changes_no_role_and_no_instance():
    view, events = reduce(VIEW, SEEN, 5.0)
    assert (view.instances, view.writer, view.epoch, events) == (VIEW.instances, "Demo-1", 0, ())
    assert view.attributes_of("Demo-1") == Attributes("eu-west-1a", "db.r6g.large", 0)
    assert view.attributes_of("demo-2") is UNKNOWN
    assert reduce(view, SEEN, 5.0)[0] is view


def test_a_description_replaces_the_one_before():
    view, _ = reduce(VIEW, SEEN, 5.0)
    view, _ = reduce(view, Description(instances={"demo-2": Attributes("eu-west-1b")}), 6.0)
    assert view.attributes_of("demo-1") is UNKNOWN
    assert view.find_endpoint("olap", 6.0) == CustomEndpoint(), "it was not asked for, so it stays"
    view, _ = reduce(view, Description(endpoints={}), 7.0)
    assert view.find_endpoint("olap", 7.0) is NO_MEMBERS


def test_members_that_were_read_too_long_ago_do_not_count():
    view, _ = reduce(VIEW, SEEN, 5.0)
    assert view.find_endpoint("olap", 5.0 + MEMBERS_SECONDS) == CustomEndpoint()
    assert view.find_endpoint("olap", 5.1 + MEMBERS_SECONDS) is NO_MEMBERS
    assert VIEW.find_endpoint("olap", 0.0) is NO_MEMBERS


def test_a_described_view_is_pickled():
    view, _ = reduce(VIEW, replace(SEEN, own_zone="eu-west-1a"), 5.0)
    assert pickle.loads(pickle.dumps(view)) == view
