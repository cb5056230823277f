from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.storage.core import gc
from aurora_router_cluster.storage.core.errors import CorruptLog, QuorumUnavailable, Refused
from aurora_router_cluster.storage.core.extents import Span
from aurora_router_cluster.storage.core.gossip import Pull, may_exchange, plan
from aurora_router_cluster.storage.core.history import EpochStart, History, Timeline
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.recovery import (
    chain_end,
    check_floor,
    complete,
    newest_charter,
    survey,
    timelines_up_to,
)
from aurora_router_cluster.storage.core.replica import Charter, Metadata, NodeState, Replica
from aurora_router_cluster.storage.core.scrub import Loss, Places, losses
from aurora_router_cluster.storage.core.segment import Segment

SIX = Membership.of(range(6))


def history(*entries: tuple[int, int]) -> History:
    return History(tuple(EpochStart(*entry) for entry in entries))


OLD, NEW = history((1, 0)), history((1, 0), (2, 100))


def state(node: int, scl: int, held: History = OLD, *, promised: int = 9, vdl: int = 0, **options) -> NodeState:
    return NodeState(node, promised, Charter(held, SIX, **options), {0: scl}, vdl, held.base)


def test_an_epoch_counts_only_for_a_copy_that_reaches_its_start():
    found = survey([state(0, 90, NEW), state(1, 120), state(2, 110), state(3, 80)])
    assert found.donors[0].node == 1
    found = survey([state(0, 100, NEW), state(1, 120), state(2, 110), state(3, 80)])
    assert found.donors[0].node == 0
    assert found.newest.charter.history == NEW


def test_two_nodes_are_no_read_quorum():
    with pytest.raises(QuorumUnavailable, match="read quorum"):
        survey([state(0, 1), state(1, 1)])
    with pytest.raises(QuorumUnavailable):
        survey([])


def test_a_joining_node_is_no_donor():
    joining = SIX.replacing(5, 6)
    states = [state(0, 10), state(1, 10), state(2, 10), state(6, 50)]
    states = [replace(one, charter=replace(one.charter, membership=joining)) for one in states]
    assert survey(states).donors[0].node == 0


def test_the_log_is_complete_up_to_the_first_gap():
    assert complete(10, [(10, 20), (30, 40), (20, 25)]) == 25
    assert complete(10, []) == 10
    assert complete(10, [(0, 15), (15, 15)]) == 15


def test_where_a_chain_ends():
    assert chain_end(50, [], 60) == 50
    assert chain_end(70, [Span(40, 55, 70)], 60) == 60
    assert chain_end(70, [Span(40, 65, 70)], 60) == 40


def test_losing_what_was_durable_is_reported_and_not_covered_up():
    with pytest.raises(CorruptLog, match="durable"):
        check_floor(99, 100)
    check_floor(100, 100)


def test_timelines_come_from_the_newest_charter():
    one, other = Timeline(2, 2, 50, b"one"), Timeline(2, 2, 50, b"other")
    states = [state(0, 1, NEW, timelines=(one,), revision=1), state(1, 1, NEW, timelines=(other,), revision=2)]
    assert timelines_up_to(newest_charter(states), 100) == (other,)
    assert timelines_up_to(newest_charter(states), 49) == ()


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 50)), max_size=5), st.integers(0, 60))
def test_histories_agree_below_their_divergence(steps, lsn):
    held = history((1, 0))
    for step, start in steps:
        held = held.extend(held.epoch + step, max(start, 0))
    starts = [entry.start for entry in held.entries]
    assert starts == sorted(starts)
    longer = held.extend(held.epoch + 1, lsn)
    cut = held.divergence(longer)
    assert cut is not None
    assert cut == longer.divergence(held)
    assert all(held.epoch_at(p) == longer.epoch_at(p) for p in range(min(cut, lsn)))
    assert held.divergence(held) is None
    assert History.from_json(held.to_json()) == held
    with pytest.raises(ValueError, match="follow"):
        held.extend(held.epoch, 0)


def test_nodes_exchange_log_only_in_one_epoch_and_one_history():
    mine = state(0, 50, NEW, promised=2)
    assert may_exchange(mine, state(1, 60, NEW, promised=2))
    assert not may_exchange(mine, state(1, 60, NEW, promised=3))
    assert not may_exchange(mine, state(1, 60, OLD, promised=2))
    peers = [state(1, 60, NEW, promised=2), state(2, 70, NEW, promised=2), state(3, 99, OLD, promised=2), mine]
    assert plan(mine, peers) == [Pull(2, 0, 50)]
    assert plan(state(2, 70, NEW, promised=2), peers) == []


def test_a_replica_obeys_one_epoch_and_survives_in_its_metadata():
    replica = Replica(3)
    with pytest.raises(Refused, match="formatted"):
        replica.promise(2)
    charter = Charter(OLD, SIX, timelines=(Timeline(1, 1, 0, b"1\t0/0\tx\n"),))
    replica.install(replica.format(charter))
    with pytest.raises(Refused, match="already"):
        replica.format(charter)
    assert replica.apply_durable(1, 0, 0, 0, 120, 7) == 120
    replica.install(replica.promise(2))
    assert replica.apply_durable(1, 0, 120, 120, 130, 8) is None
    with pytest.raises(Refused, match="promised"):
        replica.promise(2)
    with pytest.raises(Refused, match="obeys"):
        replica.adopt(3, Charter(NEW, SIX))
    replica.install(replica.adopt(2, Charter(NEW, SIX, ((0, 100),), revision=1)))
    assert replica.state().scls == {0: 100}
    with pytest.raises(Refused, match="revision"):
        replica.adopt(2, Charter(NEW, SIX))
    with pytest.raises(Refused, match="not the one"):
        replica.adopt(2, Charter(history((1, 0), (2, 90)), SIX, revision=2))
    assert replica.metadata is not None
    assert Metadata.decode(replica.metadata.encode()) == replica.metadata


def test_garbage_is_what_nobody_asks_for():
    bases = [gc.Base(10, 12, 1.0), gc.Base(50, 60, 2.0), gc.Base(90, 95, 3.0)]
    assert gc.select_needed(bases, 2.5) == bases[1:]
    assert gc.select_needed(bases, 9.0) == bases[2:]
    assert gc.select_needed(bases, 0.0) == bases
    assert gc.floor(99, bases[1:], [70], 16) == 48
    assert gc.floor(99, bases[2:], [70], 16) == 64
    assert gc.floor(20, bases[2:], [], 16) == 16


def test_damage_is_found_in_the_index():
    segment = Segment(0)
    for start in range(0, 40, 10):
        segment.insert(start, start, start + 10, 1000 + start)
    assert losses({0: segment}, [Places(1005, 1006), Places(1029, 1031)]) == [
        Loss(0, Span(0, 0, 10)),
        Loss(0, Span(20, 20, 30)),
        Loss(0, Span(30, 30, 40)),
    ]
