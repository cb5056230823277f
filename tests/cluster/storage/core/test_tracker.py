"""The driver's arithmetic, against a model that keeps everything."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.tracker import LAL, Tracker

SIX = Membership.of(range(6))


def sent(tracker: Tracker, *ends: int, group: int = 0) -> None:
    for end in ends:
        tracker.record_sent(group, end)
        tracker.record_received(end, end)


def test_four_of_six_make_it_durable():
    tracker = Tracker(SIX, 100)
    sent(tracker, 110, 120)
    assert [tracker.record_ack(node, 0, 120) for node in range(4)] == [False, False, False, True]
    assert tracker.vcl == tracker.vdl == 120


def test_only_whole_records_are_durable():
    tracker = Tracker(SIX, 100)
    tracker.record_sent(0, 115)
    tracker.record_received(115, 110)
    for node in range(4):
        tracker.record_ack(node, 0, 115)
    assert (tracker.vcl, tracker.vdl) == (115, 110)


def test_a_group_without_new_log_holds_nothing_back():
    tracker = Tracker(SIX, 100)
    sent(tracker, 110, group=0)
    sent(tracker, 120, group=1)
    sent(tracker, 130, group=1)
    for node in range(4):
        tracker.record_ack(node, 1, 130)
    assert tracker.vcl == 100
    for node in range(4):
        tracker.record_ack(node, 0, 110)
    assert tracker.vcl == tracker.vdl == 130


def test_the_writer_is_held_back_at_the_limit_but_a_long_record_may_end():
    tracker = Tracker(SIX, 0)
    tracker.record_sent(0, LAL)
    tracker.record_received(LAL, 0)
    assert tracker.full
    for node in range(4):
        tracker.record_ack(node, 0, LAL)
    assert not tracker.full


def test_fenced_when_the_others_are_no_write_quorum():
    tracker = Tracker(SIX, 0)
    assert [tracker.record_refusal(node, 9) for node in (5, 3, 1)] == [False, False, True]
    joining = Tracker(SIX.replacing(5, 6), 0)
    assert [joining.record_refusal(node, 9) for node in (6, 0, 1)] == [False, False, True]


class Positions(RuleBasedStateMachine):
    """Extents of several groups, acknowledgements in any order, nodes forgotten, membership changes."""

    @initialize()
    def start(self):
        self.tracker = Tracker(SIX, 0)
        self.extents: list[tuple[int, int, int]] = []
        self.bounds: list[int] = []
        self.scls: dict[tuple[int, int], int] = {}
        self.seen = (0, 0)

    @rule(group=st.integers(0, 2), length=st.integers(1, 9), whole=st.booleans())
    def send(self, group, length, whole):
        start = self.tracker.received
        end = start + length
        self.extents.append((group, start, end))
        self.tracker.record_sent(group, end)
        if whole:
            self.bounds.append(end)
        self.tracker.record_received(end, self.bounds[-1] if self.bounds else 0)

    @precondition(lambda self: getattr(self, "extents", None))
    @rule(node=st.integers(0, 5), data=st.data())
    def acknowledge(self, node, data):
        group, _, end = data.draw(st.sampled_from(self.extents))
        self.scls[node, group] = max(end, self.scls.get((node, group), 0))
        self.tracker.record_ack(node, group, end)

    @invariant()
    def positions_are_what_the_definitions_say(self):
        if not hasattr(self, "tracker"):
            return
        vcl = 0
        for group, _start, end in self.extents:
            if sum(self.scls.get((node, group), 0) >= end for node in range(6)) < 4:
                break
            vcl = end
        assert self.tracker.vcl == vcl
        assert self.tracker.vdl == max((bound for bound in self.bounds if bound <= vcl), default=0)
        assert self.tracker.vdl <= self.tracker.vcl <= self.tracker.received
        assert (self.tracker.vcl, self.tracker.vdl) >= self.seen
        self.seen = (self.tracker.vcl, self.tracker.vdl)


Positions.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPositions = Positions.TestCase


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 5)), max_size=40), st.integers(0, 2))
def test_an_acknowledgement_that_is_not_counted_out_could_not_have_changed_anything(acks, step):
    """Beside a membership that is asked each time, also while one is being replaced."""
    joining = SIX.replacing(5, 6)
    membership = (SIX, joining, joining.confirm_hydrated(6))[step]
    tracker = Tracker(membership, 0)
    scls: dict[int, int] = {}
    for end in range(1, 6):
        sent(tracker, end, group=0)
    for node, scl in acks:
        tracker.record_ack(node, 0, scl)
        scls[node] = max(scl, scls.get(node, -1))
        assert tracker.vdl == tracker.vcl == max(0, membership.durable(scls))
