"""Branches in the pure core: what a node keeps, takes up and forgets, and what a survey believes after a backtrack."""

from __future__ import annotations

from dataclasses import replace

from aurora_router_cluster.storage.core.branches import Branch, Line
from aurora_router_cluster.storage.core.history import EpochStart, History, Timeline
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.recovery import survey
from aurora_router_cluster.storage.core.replica import Charter, Metadata, NodeState, Replica

SIX = Membership.of(range(6))
FIRST = History((EpochStart(1, 0), EpochStart(2, 40), EpochStart(3, 100)))
BACK = History((EpochStart(1, 0), EpochStart(2, 40), EpochStart(4, 60)))
LEFT = Branch(Line(), FIRST, 100, 5.0, (Timeline(1, 2, 40, b"1\t0/28\n"),), {"newest": 0})
SECOND = Charter(BACK, SIX, ((0, 60),), line=Line(2, 1, 60, 4), kept=(LEFT,))


def replica() -> Replica:
    """A node that holds the first branch up to 120: its end is 100."""
    made = Replica(0)
    made.install(Metadata(3, Charter(FIRST, SIX, ((0, 100),))))
    for place, (start, end) in enumerate([(0, 30), (30, 70), (70, 100), (100, 120)], 1):
        made.segment(0).insert(start, start, end, place * 1000)
    return made


def pieces(segment):
    return [(piece.start, piece.end, piece.place) for piece in segment.after(-1)]


def test_the_branch_that_is_left_is_kept_up_to_its_end():
    node = replica()
    node.install(Metadata(4, SECOND))
    assert pieces(node.segments[0]) == [(0, 30, 1000), (30, 60, 2000)]
    assert pieces(node.kept[1][0]) == [(0, 30, 1000), (30, 70, 2000), (70, 100, 3000)]
    assert node.first_place == 1000


def test_a_kept_branch_is_taken_up_where_the_new_one_begins_also_in_a_later_epoch():
    node = replica()
    node.install(Metadata(4, SECOND))
    node.segment(0).insert(60, 60, 95, 9000)
    forth = History((EpochStart(1, 0), EpochStart(2, 40), EpochStart(5, 80), EpochStart(6, 90)))
    left = Branch(SECOND.line, BACK, 95, 6.0)
    line = Line(3, 1, 80, 5, resumed=1)
    node.install(Metadata(6, Charter(forth, SIX, ((0, 90),), line=line, kept=(LEFT, left))))
    assert pieces(node.segments[0]) == [(0, 30, 1000), (30, 60, 2000), (60, 70, 2030), (70, 80, 3000)]
    assert pieces(node.kept[2][0])[-1] == (60, 95, 9000)
    assert pieces(node.kept[1][0])[-1] == (70, 100, 3000)


def test_what_is_not_kept_any_more_is_forgotten():
    node = replica()
    node.install(Metadata(4, SECOND))
    node.install(Metadata(4, replace(SECOND, kept=(), revision=1)))
    assert node.kept == {}


def test_a_branch_that_is_not_in_the_charter_is_not_kept():
    node = replica()
    node.install(Metadata(4, replace(SECOND, kept=())))
    assert node.kept == {}


def test_the_charter_of_a_branch_survives_the_disk():
    assert Metadata.decode(Metadata(4, SECOND).encode()) == Metadata(4, SECOND)


def test_common_is_up_to_where_histories_part():
    assert LEFT.common(BACK) == 60
    assert LEFT.common(FIRST) == 100
    assert LEFT.common(History((EpochStart(1, 0),))) == 40


def test_a_survey_does_not_believe_the_vdl_of_a_branch_that_was_left():
    def state(node, charter, scl, vdl):
        return NodeState(node, 9, charter, {0: scl}, vdl, 0)

    stale = state(3, Charter(FIRST, SIX), 100, 100)
    found = survey([stale, *(state(node, SECOND, 65, 62) for node in range(3))])
    assert found.floor == 62
    assert found.newest.charter.line.number == 2
    assert found.charter == SECOND
    found = survey([stale, state(0, SECOND, 50, 0), *(state(node, Charter(FIRST, SIX), 100, 99) for node in (1, 2))])
    assert (found.floor, found.charter.line.number) == (100, 1)  # the backtrack came to one copy, which lacks its start
