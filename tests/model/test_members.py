"""What the manager of a cluster lists adds and removes instances, and changes no role (rule 11 of `reduce`)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.event import InstanceAdded, InstanceRemoved
from aurora_router.model.instance import Role
from aurora_router.model.observation import MISSING_SECONDS, GivenHosts, Member, Members, Row, Topology
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View


def own(id_, *, writer, token=3, system="7001"):
    row = Row(id_, writer=writer, token=token if writer else None, system=system)
    return Topology((row,), id_, writer, complete=False, monotone=True)


@pytest.fixture
def view():
    given_hosts = GivenHosts((("a:5432", "a", 5432), ("b", "b", None)))
    view, _ = reduce(View(), given_hosts, 0.0)
    view, _ = reduce(view, own("a:5432", writer=True), 1.0)
    return reduce(view, own("b", writer=False), 1.0)[0]


def members(*hosts, system="7001", complete=True, **about):
    return Members(tuple(Member(host, 5432, **about) for host in hosts), system, complete=complete)


def test_members_that_are_new_are_added_and_those_that_are_known_keep_their_ids(view):
    after, events = reduce(view, members("a", "b", "c", zone="z"), 2.0)
    assert events == (InstanceAdded("c:5432", Role.UNKNOWN),)
    assert {id_: (each.role, each.host, each.zone) for id_, each in after.instances.items()} == {
        "a:5432": (Role.WRITER, "a", "z"), "b": (Role.READER, "b", "z"), "c:5432": (Role.UNKNOWN, "c", "z"),
    }  # fmt: skip


@pytest.mark.parametrize("system", ["7002", ""])
def test_a_list_of_another_history_is_ignored(view, system):
    assert reduce(view, members("c", system=system), 2.0) == (view, ())


def test_before_sql_has_shown_a_history_no_list_counts():
    view, _ = reduce(View(), GivenHosts((("a", "a", None),)), 0.0)
    assert reduce(view, members("c"), 1.0) == (view, ())


def test_a_leader_that_it_names_is_where_to_ask_and_no_writer(view):
    after, _ = reduce(view, Members((Member("a", 5432), Member("b", 5432, leads=True)), "7001", complete=True), 2.0)
    assert (after.writer, after.led_by, after.epoch) == ("a:5432", "b", view.epoch)
    assert after.instances["b"].role is Role.READER


def test_what_is_not_for_reads_is_noted(view):
    after, _ = reduce(view, Members((Member("a", 5432), Member("b", 5432, serves_reads=False)), "7001"), 2.0)
    assert after.reserved == {"b"}
    assert reduce(after, members("a", "b"), 3.0)[0].reserved == frozenset()


def test_a_member_that_lists_agree_is_gone_is_removed_after_a_while(view):
    view, events = reduce(view, members("a"), 10.0)
    assert ("b" in view.instances, events) == (True, ())
    view, events = reduce(view, members("a"), 10.0 + MISSING_SECONDS)
    assert events == (InstanceRemoved("b"),)
    view, _ = reduce(view, members("a", "b"), 30.0)
    assert view.instances["b:5432"].role is Role.UNKNOWN


def test_one_that_answers_is_not_removed(view):
    view, _ = reduce(view, members("a"), 10.0)
    view, _ = reduce(view, own("b", writer=False), 11.0)
    view, events = reduce(view, members("a"), 10.0 + MISSING_SECONDS)
    assert ("b" in view.instances, events) == (True, ())


def test_the_accepted_writer_is_never_removed(view):
    for now in (10.0, 20.0, 30.0):
        view, _ = reduce(view, members("b"), now)
    assert view.writer == "a:5432"


def test_a_list_that_is_not_complete_removes_nothing(view):
    for now in (10.0, 20.0, 30.0):
        view, events = reduce(view, members("a", complete=False), now)
        assert events == ()
    assert "b" in view.instances


@given(
    st.lists(
        st.builds(
            Member, st.sampled_from("abcd"), st.just(5432), st.none(), leads=st.booleans(), serves_reads=st.booleans()
        ),
        max_size=5,
    ),
    st.sampled_from(["7001", "7002"]),
    st.booleans(),
    st.floats(2.0, 100.0),
)
def test_no_list_changes_a_role_the_writer_or_its_evidence(listed, system, complete, now):
    view, _ = reduce(View(), GivenHosts((("a:5432", "a", 5432), ("b", "b", None))), 0.0)
    view, _ = reduce(view, own("a:5432", writer=True), 1.0)
    view, _ = reduce(view, own("b", writer=False), 1.0)
    seen = Members(tuple(listed), system, complete=complete)
    after, _ = reduce(view, seen, now)
    assert (after.writer, after.epoch, after.token, after.outage) == (view.writer, view.epoch, view.token, view.outage)
    for id_, each in after.instances.items():
        known = view.instances.get(id_)
        assert each.role is (Role.UNKNOWN if known is None else known.role)
        assert known is None or each.generation == known.generation
    again, events = reduce(after, seen, now)
    assert (again, events) == (after, ())
