"""A segment replica against a model: the set of extents that it was given."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aurora_router_cluster.storage.core.errors import CorruptLog
from aurora_router_cluster.storage.core.segment import Piece, Segment


def test_a_hole_is_not_counted_until_it_is_filled():
    segment = Segment(100)
    assert segment.insert(100, 100, 110, 0) == 110
    assert segment.insert(120, 120, 130, 20) == 110
    assert segment.holes == 1
    assert segment.insert(110, 110, 120, 10) == 130
    assert segment.holes == 0


def test_positions_of_other_groups_are_no_hole():
    segment = Segment(0)
    segment.insert(0, 0, 10, 0)
    assert segment.insert(10, 50, 60, 10) == 60
    assert segment.at(30) is None
    assert list(segment.after(10)) == [Piece(10, 50, 60, 10)]


def test_an_epoch_closes_the_chain():
    segment = Segment(0)
    segment.insert(0, 0, 10, 0)
    assert segment.insert(10, 40, 40, 0) == 40
    assert list(segment.after(10)) == [Piece(10, 40, 40, 0)]
    segment.truncate(41)
    assert segment.scl == 40
    segment.truncate(40)
    assert segment.scl == 40
    segment.truncate(40, keep_mark=False)
    assert segment.scl == 10


def test_an_extent_that_contradicts_the_chain_is_refused():
    segment = Segment(0)
    segment.insert(0, 0, 10, 0)
    with pytest.raises(CorruptLog, match="follows"):
        segment.insert(5, 20, 30, 0)
    segment.insert(10, 40, 40, 0)
    with pytest.raises(CorruptLog, match="follows"):
        segment.insert(5, 50, 60, 0)


def test_an_extent_may_leave_out_what_closed_the_chain_for_an_epoch_that_never_was():
    """An epoch that counts began at the same place, and did not know of the group."""
    segment = Segment(0)
    segment.insert(0, 0, 10, 100)
    segment.insert(10, 40, 40, 0)
    segment.truncate(40)
    assert segment.insert(10, 50, 60, 200) == 60
    assert list(segment.after(10)) == [Piece(10, 40, 40, 0), Piece(40, 50, 60, 200)]
    begun = Segment(0)
    begun.insert(0, 40, 40, 0)
    begun.discard(30)
    assert begun.insert(10, 50, 60, 200) == 60  # what it names lies below the floor


def test_what_closes_a_chain_can_be_lost_as_well():
    segment = Segment(0)
    segment.insert(0, 0, 10, 100)
    segment.insert(10, 40, 40, 200)
    segment.insert(40, 40, 60, 300)
    segment.lose(40, 40)
    assert (segment.scl, segment.holes) == (10, 1)
    assert segment.insert(10, 40, 40, 400) == 60
    segment.lose(40, 60)
    assert segment.scl == 40


def test_discard_keeps_what_is_above():
    segment = Segment(0)
    for start in range(0, 50, 10):
        segment.insert(start, start, start + 10, start)
    segment.discard(25)
    assert segment.base == 25
    assert segment.at(15) is None
    assert segment.at(25) == Piece(20, 20, 30, 20)
    assert [piece.prev for piece in segment.after(0)] == [20, 30, 40]


class Chain(RuleBasedStateMachine):
    """One group's log, given to a segment in any order, cut anywhere, truncated now and then."""

    @initialize()
    def start(self):
        self.segment = Segment(0)
        self.log = [0]  # the byte at each position, as an ever new number: a place
        self.log.clear()
        self.extents: list[tuple[int, int]] = []
        self.given: list[tuple[int, int]] = []
        self.fresh = 0

    @rule(length=st.integers(1, 9))
    def write(self, length):
        start = len(self.log)
        self.extents.append((start, start + length))
        self.log += range(self.fresh, self.fresh + length)
        self.fresh += length

    @rule(data=st.data())
    def give(self, data):
        if self.extents:
            start, end = data.draw(st.sampled_from(self.extents))
            self.segment.insert(start, start, end, self.log[start])
            self.given.append((start, end))

    @rule(data=st.data())
    def truncate(self, data):
        lsn = data.draw(st.integers(0, len(self.log)))
        self.segment.truncate(lsn)
        del self.log[lsn:]
        self.extents = [(a, min(b, lsn)) for a, b in self.extents if a < lsn]
        self.given = [(a, min(b, lsn)) for a, b in self.given if a < lsn]

    def complete(self):
        reach = 0
        for start, end in sorted(self.given):
            if start > reach:
                break
            reach = max(reach, end)
        return reach

    @rule(data=st.data())
    def lose_and_refill(self, data):
        pieces = list(self.segment.after(0))
        if pieces:
            piece = data.draw(st.sampled_from(pieces))
            self.segment.lose(piece.start, piece.end)
            assert self.segment.scl == piece.prev
            assert self.segment.at(piece.start) is None
            self.segment.insert(piece.prev, piece.start, piece.end, piece.place)

    @invariant()
    def scl_is_the_end_of_the_unbroken_part(self):
        if hasattr(self, "segment"):
            assert self.segment.scl == self.complete()

    @invariant()
    def every_byte_lies_where_it_was_put(self):
        if hasattr(self, "segment"):
            for lsn in range(self.segment.scl):
                piece = self.segment.at(lsn)
                assert piece is not None
                assert piece.place + lsn - piece.start == self.log[lsn]


Chain.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestChain = Chain.TestCase
