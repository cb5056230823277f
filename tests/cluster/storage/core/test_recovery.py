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


def install(replica: Replica, metadata: Metadata) -> None:
    """Metadata that are durable at once."""
    replica.install(metadata)
    replica.settle(metadata)


def collected_at_one(replica: Replica) -> None:
    """It has removed the log below 100; the epoch after that begins at a quorum that has not heard of it.

    What it had of group 7 is cut off then: it was never acknowledged.
    """
    install(replica, replica.format(Charter(OLD, SIX)))
    install(replica, replica.adopt(1, Charter(OLD, SIX, revision=1, floor=100, collected=100)))
    replica.apply_durable(1, 7, 0, 150, 160, 5)
    install(replica, replica.promise(2))
    install(replica, replica.adopt(2, Charter(NEW, SIX, ((0, 100),), floor=100)))


def test_a_replica_says_what_it_has_removed_also_where_the_charter_knows_of_less():
    replica = Replica(3)
    collected_at_one(replica)
    told = replica.state()
    assert (told.base, told.charter.collected) == (100, 100)
    assert told.scl(7) == told.scl(8) == replica.segment(8).base == 100
    assert survey([told, *(state(node, 100, NEW, floor=100) for node in range(3))]).collected == 100


def test_chains_that_a_donor_knows_by_what_it_removed_alone_can_be_closed_at_the_others():
    """The donor of a group that has no log has it up to where garbage ends, and the others have less."""
    replicas = [Replica(node) for node in range(4)]
    collected_at_one(replicas[3])
    for replica in replicas[:3]:
        install(replica, replica.format(Charter(OLD, SIX)))
        install(replica, replica.promise(2))
        install(replica, replica.adopt(2, Charter(NEW, SIX, ((0, 100),), floor=100)))
    found = survey([replica.state() for replica in replicas])
    tails = tuple((group, chain_end(donor.scl(group), [], 120)) for group, donor in found.donors.items())
    third = Charter(NEW.extend(3, 120), SIX, tails, floor=100, collected=found.collected)
    for replica in replicas:
        install(replica, replica.promise(3))
        install(replica, replica.adopt(3, third))
        assert replica.state().scl(7) == 120


def test_a_chain_goes_on_that_was_closed_by_an_epoch_that_never_was():
    """That epoch and one that counts began at the same place, and only the first of them knew of the group."""
    replica = Replica(3)
    install(replica, replica.format(Charter(NEW, SIX, ((0, 100),))))
    install(replica, replica.promise(3))
    install(replica, replica.adopt(3, Charter(NEW.extend(3, 100), SIX, ((0, 100), (1, 0)))))
    install(replica, replica.promise(4))
    install(replica, replica.adopt(4, Charter(NEW.extend(4, 150), SIX, ((0, 100), (1, 130)))))
    assert replica.apply_durable(4, 1, 0, 110, 130, 7) == 150


def test_a_peer_that_has_removed_what_a_node_lacks_is_asked_last():
    mine = state(0, 50, NEW, promised=2)
    farther = replace(state(1, 90, NEW, promised=2), base=60)
    assert plan(mine, [farther, state(2, 70, NEW, promised=2)]) == [Pull(2, 0, 50)]
    assert plan(mine, [farther]) == [Pull(1, 0, 50)]


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


def test_damage_of_a_frame_without_log_is_found_in_the_index():
    segment = Segment(0)
    segment.insert(0, 0, 10, 1000)
    segment.insert(10, 40, 40, 1050)  # its frame ends where it lies
    segment.insert(40, 40, 50, 1100)
    assert losses({0: segment}, [Places(1010, 1050)]) == [Loss(0, Span(10, 40, 40))]
    assert losses({0: segment}, [Places(1000, 1010)]) == [Loss(0, Span(0, 0, 10))]
    assert losses({0: segment}, [Places(1050, 1110)]) == [Loss(0, Span(40, 40, 50))]
