"""256 TiB in segments of 10 GB: what the bookkeeping of 26,215 protection groups costs, and that it holds them.

Relations grow side by side, in ranges of 64 MiB in the place of 1 MiB, so that four million placements do for 268
million: what the map keeps, runs of ranges, does not depend on their size.
"""

from __future__ import annotations

import time
import tracemalloc

import pytest

from aurora_router_cluster.lsn import PAGE
from aurora_router_cluster.storage.core.groups import GROUP_BYTES, GroupMap
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.recovery import survey
from aurora_router_cluster.storage.core.replica import Charter, Metadata, NodeState
from aurora_router_cluster.storage.core.tracker import Tracker

VOLUME = 256 << 40
GROUPS = 26_215
RANGE = (64 << 20) // PAGE
RELATIONS = 8
MEMBERS = Membership.of(range(6))


class Cost:
    """What a block of code took: processor seconds, and bytes that are still held after it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bytes = 0

    def __enter__(self):
        tracemalloc.start()
        self._began = time.process_time()
        return self

    def __exit__(self, *_error: object) -> None:
        seconds = time.process_time() - self._began
        self.bytes, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"{self.what}: {seconds * 1e3:.0f} ms, {self.bytes / 2**20:.1f} MiB")


def grown(volume: int) -> GroupMap:
    """The map of a volume that eight relations have filled, a GiB in turn."""
    places = GroupMap(GROUP_BYTES, RANGE)
    step = (1 << 30) // PAGE
    for block in range(0, volume // PAGE // RELATIONS, step):
        for relation in range(RELATIONS):
            for first in range(block, block + step, RANGE):
                places.group_of((1663, 5, relation, 0), first)
    return places


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_largest_volume():
    with Cost("map of the groups, full") as held:
        places = grown(VOLUME)
    assert places.newest + 1 == GROUPS
    assert places.runs < 10 * GROUPS
    assert held.bytes < 256 << 20
    print(f"{places.newest + 1} groups in {places.runs} runs")
    keep_books(places, GROUPS)


def test_a_hundredth_of_it():
    places = grown(VOLUME // 100)
    assert abs(places.newest + 1 - GROUPS // 100) <= 1
    keep_books(places, places.newest + 1)


def keep_books(places: GroupMap, groups: int) -> None:
    """Everything else that grows with the number of groups: charter, node states, tracker, recovery."""
    tails = tuple((group, 1000) for group in range(groups))
    charter = Charter(History((EpochStart(1, 1000),)), MEMBERS, tails, (), places.to_json())
    with Cost("charter to bytes and back"):
        data = Metadata(1, charter).encode()
        again = Metadata.decode(data)
    assert again == Metadata(1, charter)
    assert GroupMap.from_json(again.charter.placements, GROUP_BYTES, RANGE).newest == groups - 1
    print(f"the charter has {len(data) / 2**20:.1f} MiB")
    with Cost("tracker: one extent and six acknowledgements in each group") as held:
        tracker = Tracker(MEMBERS, 1000)
        for group in range(groups):
            tracker.record_sent(group, 1001 + group)
            tracker.record_received(1001 + group, 1001 + group)
            for node in range(6):
                tracker.record_ack(node, group, 1001 + group)
    assert tracker.vdl == 1000 + groups
    assert held.bytes < 128 << 20
    with Cost("one look at all six members"):
        assert not any(tracker.behind(node) for node in range(6))
    states = [NodeState(node, 2, charter, dict.fromkeys(range(groups), 1000 + groups), 1000, 1000) for node in range(5)]
    with Cost("survey of a recovery"):
        found = survey(states)
    assert len(found.donors) == groups
