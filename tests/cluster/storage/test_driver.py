"""What the driver hands to the nodes, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.storage.core.extents import Extent, join_extents
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.driver import GATHER_BYTES, Driver
from aurora_router_cluster.storage.recovery import RecoveredVolume

START = 1000


class Cutter:
    """Every arrival is a whole record of group 0."""

    boundary = START

    def placements(self) -> dict[str, Any]:
        return {}

    def cut(self, start: int, data: bytes) -> list[Extent]:
        self.boundary = start + len(data)
        return [Extent(0, start, start, data)]


class Framing:
    striped = False

    def cutter(self, _charter: Charter) -> Cutter:
        return Cutter()


@dataclass
class Node:
    node: int
    taken: list[Extent] = field(default_factory=list)

    def append(self, _epoch: int, _vdl: int, extent: Extent, _sink: Driver) -> None:
        self.taken.append(extent)


def driven() -> tuple[Driver, list[Node]]:
    nodes = [Node(number) for number in range(6)]
    charter = Charter(History((EpochStart(1, START),)), Membership.of(range(6)))
    return Driver({node.node: node for node in nodes}, RecoveredVolume(1, charter, ()), Framing()), nodes  # type: ignore[dict-item, arg-type]  # as much of them as is used


def feed(driver: Driver, data: bytes) -> None:
    driver.feed(driver.tracker.received, data)


def acknowledge(driver: Driver, nodes: list[Node]) -> None:
    for node in nodes:
        driver.on_ack(node.node, 0, node.taken[-1].end)


def test_what_arrives_while_the_quorum_is_waited_for_goes_with_the_next_extent() -> None:
    driver, nodes = driven()
    seen: list[int] = []
    driver.on_durable.append(lambda: seen.append(driver.durable))
    for data in (b"one", b"two", b"three"):
        feed(driver, data)
    assert [[extent.data for extent in node.taken] for node in nodes] == [[b"one"]] * 6
    assert (driver.tracker.received, driver.tracker.handed) == (START + 11, START + 3)
    acknowledge(driver, nodes[:3])
    assert len(nodes[0].taken) == 1
    acknowledge(driver, nodes[3:4])
    assert [extent.data for extent in nodes[5].taken] == [b"one", b"twothree"]
    assert nodes[5].taken[1].prev == nodes[5].taken[1].start == START + 3
    assert seen == [START + 3]
    acknowledge(driver, nodes[:4])
    assert seen == [START + 3, START + 11]
    assert driver.read_memory(START, 100) == b"onetwothree"
    feed(driver, b"four")
    assert nodes[0].taken[-1].data == b"four"


def test_much_log_does_not_wait_and_a_lost_quorum_holds_only_little_back() -> None:
    driver, nodes = driven()
    feed(driver, b"x")
    feed(driver, b"y" * (GATHER_BYTES - 1))
    assert len(nodes[0].taken) == 1
    feed(driver, b"z")
    assert [len(extent.data) for extent in nodes[0].taken] == [1, GATHER_BYTES]
    for _ in range(10):
        feed(driver, b"w" * (GATHER_BYTES // 2))
        assert driver.tracker.received - driver.tracker.handed < GATHER_BYTES
    acknowledge(driver, nodes[:4])
    acknowledge(driver, nodes[:4])
    assert driver.durable == driver.tracker.received


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=30))
def test_joined_extents_are_the_same_log_in_the_same_chains(cuts: list[tuple[int, int]]) -> None:
    at, tails, extents = 0, {0: 0, 1: 0, 2: 0}, list[Extent]()
    for group, size in cuts:
        extents.append(Extent(group, tails[group], at, bytes(range(at, at + size))))
        at = tails[group] = at + size
    found = list(join_extents(extents))
    assert b"".join(extent.data for extent in found) == bytes(range(at))
    assert all(one.group != other.group for one, other in pairwise(found))
    tails = {0: 0, 1: 0, 2: 0}
    for extent in found:
        assert extent.prev == tails[extent.group]
        tails[extent.group] = extent.end
