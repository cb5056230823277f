from __future__ import annotations

from itertools import chain, combinations

import pytest

from aurora_router_cluster.storage.core.quorum import Membership

REST = Membership.of("ABCDEF")
JOINING = REST.replacing("F", "G")
HYDRATED = JOINING.confirm_hydrated("G")
TWO = JOINING.replacing("E", "H")
TWO_MIXED = TWO.confirm_hydrated("H")
TWO_HYDRATED = TWO_MIXED.confirm_hydrated("G")
FORWARD = HYDRATED.settling("G")
BACK = JOINING.settling("F")
ONE_DONE = TWO_HYDRATED.settling("G")
STATES = {
    "rest": REST, "joining": JOINING, "hydrated": HYDRATED, "two": TWO, "two, one hydrated": TWO_MIXED,
    "two hydrated": TWO_HYDRATED, "forward": FORWARD, "back": BACK, "one of two done": ONE_DONE,
}  # fmt: skip


def subsets(members):
    return chain.from_iterable(combinations(members, n) for n in range(len(members) + 1))


def minimal(sets):
    found = [frozenset(s) for s in sets]
    return [s for s in found if not any(other < s for other in found)]


def write_sets(state):
    return minimal(s for s in subsets(state.members) if state.writes(s))


def read_sets(state):
    return minimal(s for s in subsets(state.members) if state.reads(s))


@pytest.mark.parametrize("name", STATES)
def test_every_read_set_meets_every_write_set_and_writes_meet(name):
    state = STATES[name]
    writes, reads = write_sets(state), read_sets(state)
    assert writes
    assert reads
    assert all(write & read for write in writes for read in reads)
    assert all(one & other for one in writes for other in writes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("rest", "joining"), ("joining", "two"), ("two", "two, one hydrated"), ("hydrated", "forward"),
        ("joining", "back"), ("two hydrated", "one of two done"),
    ],
)  # fmt: skip
def test_reads_after_a_step_meet_the_writes_before_it_and_the_other_way_round(before, after):
    old, new = STATES[before], STATES[after]
    assert all(write & read for write in write_sets(old) for read in read_sets(new))
    assert all(one & other for one in write_sets(old) for other in write_sets(new))


def test_a_joining_member_counts_for_reads_only_once_hydrated():
    assert not JOINING.reads({"A", "B", "G"})
    assert HYDRATED.reads({"A", "B", "G"})
    assert JOINING.reads({"A", "B", "F"})


def test_a_write_needs_four_of_every_combination():
    assert not JOINING.writes("ABCF")
    assert JOINING.writes("ABCFG")
    assert JOINING.writes("ABCD")


@pytest.mark.parametrize("name", STATES)
def test_durable_is_the_highest_position_that_a_write_quorum_holds(name):
    state = STATES[name]
    scls = {member: 10 * i for i, member in enumerate(state.members, 1)}
    expected = max(v for v in scls.values() if state.writes([m for m in scls if scls[m] >= v]))
    assert state.durable(scls) == expected
    assert state.durable({}) == -1


def test_two_nodes_or_a_zone_may_go_and_writes_go_on():
    for lost in combinations("ABCDEF", 2):
        assert REST.writes(set("ABCDEF") - set(lost))
    for lost in combinations("ABCDEF", 3):
        assert not REST.writes(set("ABCDEF") - set(lost))
        assert REST.reads(set("ABCDEF") - set(lost))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: Membership.of("ABCDE"), "six|6"),
        (lambda: Membership.of("ABCDEE"), "different"),
        (lambda: REST.replacing("X", "G"), "not a member"),
        (lambda: REST.replacing("A", "B"), "member already"),
        (lambda: REST.confirm_hydrated("A"), "not joining"),
        (lambda: JOINING.settling("G"), "not hydrated"),
        (lambda: REST.settling("A"), "not a candidate"),
    ],
)
def test_steps_that_make_no_sense_are_refused(step, message):
    with pytest.raises(ValueError, match=message):
        step()


@pytest.mark.parametrize("name", STATES)
def test_json_round_trip(name):
    state = STATES[name]
    assert Membership.from_json(state.to_json()) == state


def test_a_membership_reformed_from_three_reads_from_all_three_until_the_newcomers_are_hydrated():
    for survivors in combinations(range(6), 3):
        formed = Membership.of(range(6)).reform(survivors, (6, 7, 8))
        assert set(formed.members) == {*survivors, 6, 7, 8}
        assert formed.joining == {6, 7, 8}
        for count in range(7):
            for nodes in combinations(formed.members, count):
                assert formed.reads(nodes) == (set(survivors) <= set(nodes))
                assert formed.writes(nodes) == (count >= 4)
        assert all(formed.slots[i] == (i,) for i in survivors)
        for newcomer in (6, 7, 8):
            formed = formed.confirm_hydrated(newcomer)
        assert formed.settled
        assert not formed.joining


def test_a_newcomer_that_is_not_hydrated_is_no_survivor():
    replacing = Membership.of(range(6)).replacing(0, 6)
    with pytest.raises(ValueError, match="no read quorum"):
        replacing.reform((1, 2, 6), (7, 8, 9, 10))
    assert replacing.confirm_hydrated(6).reform((1, 2, 6), (7, 8, 9)).slots == ((6,), (1,), (2,), (7,), (8,), (9,))
    with pytest.raises(ValueError, match="too few newcomers"):
        Membership.of(range(6)).reform((1, 2, 3), (7, 8))
