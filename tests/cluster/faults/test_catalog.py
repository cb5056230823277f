from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.faults.catalog import KINDS, Fault, Registry, check_parameters, target_of


def test_targets():
    assert target_of("kill", "demo-1") == "instance"
    assert target_of("slow", "demo-1") == "instance"
    assert target_of("slow", "node:3") == "node"
    assert target_of("node-down", "node:3") == "node"
    assert target_of("zone-down", "eu-test-1a") == "zone"
    assert target_of("dns-down", "") == "nothing"


@pytest.mark.parametrize(
    ("kind", "target", "says"),
    [
        ("explode", "demo-1", "there is no fault 'explode'; there are kill, hang"),
        ("dns-down", "demo-1", "takes no target"),
        ("kill", "", "needs a target: instance"),
        ("partition", "", "needs a target: instance or node or zone"),
    ],
)
def test_refused_targets(kind, target, says):
    with pytest.raises(RequestError, match=says):
        target_of(kind, target)


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("hang", {"hold": True}, "has no parameter 'hold'; it has: none"),
        ("slow", {}, "needs latency or bandwidth"),
        ("slow", {"latency": -1.0}, "latency=-1.0: it cannot be negative"),
        ("clock-skew", {}, "needs seconds"),
    ],
)
def test_refused_parameters(kind, given, says):
    with pytest.raises(RequestError, match=says):
        check_parameters(kind, given)


def test_parameters_left_out_are_none():
    assert check_parameters("slow", {"latency": 0.1, "bandwidth": None}) == {"latency": 0.1}
    assert check_parameters("kill", {"hold": False}) == {}


def test_a_fault_in_words():
    assert Fault(2, "slow", "demo-1", {"latency": 0.1}).text == "2 slow demo-1 latency=0.1"
    assert Fault(3, "kill", "demo-1", {"hold": True}).text == "3 kill demo-1 hold"
    assert Fault(4, "dns-down", "", {}).text == "4 dns-down"


def test_the_same_fault_twice_is_refused_with_the_way_out():
    registry = Registry()
    first = registry.make("hang", "demo-1", {})
    with pytest.raises(RequestError, match=r"in force already: 1 hang demo-1; heal it first \(fault heal 1\)"):
        registry.make("hang", "demo-1", {})
    registry.drop(first)
    assert registry.make("hang", "demo-1", {}).id == 2


def test_momentary_faults_leave_nothing_to_heal():
    registry = Registry()
    done = registry.make("kill", "demo-1", {}, in_force=False)
    assert list(registry) == []
    with pytest.raises(RequestError, match="no fault 1 is in force; in force are: none"):
        registry.get(done.id)


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(["a", "b"]), st.booleans()), max_size=40))
def test_at_most_one_of_a_kind_on_a_target(steps):
    registry = Registry()
    for kind, target, heals in steps:
        there = registry.on({kind}, target)
        assert len(there) <= 1
        if heals:
            for fault in there:
                registry.drop(fault)
        elif not there:
            registry.make(kind, target, {})
    numbers = [fault.id for fault in registry]
    assert numbers == sorted(set(numbers))
