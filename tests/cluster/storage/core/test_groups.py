from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.lsn import PAGE
from aurora_router_cluster.storage.core.groups import GroupCutter, GroupMap
from tests.simulation.storage.framing import TinyScanner, references

blocks = st.lists(st.tuples(st.tuples(st.integers(0, 3)), st.integers(0, 200)), max_size=200)


@given(blocks, st.integers(1, 8))
def test_a_range_keeps_its_group_and_no_group_holds_more_than_it_has_room_for(touched, capacity):
    places = GroupMap(capacity * 4 * PAGE, 4)
    seen: dict = {}
    for fork, block in touched:
        group = places.group_of(fork, block)
        assert seen.setdefault((fork, block // 4), group) == group
    held = list(seen.values())
    assert all(held.count(group) <= capacity for group in held)
    assert sorted(set(held)) == list(range(places.newest + 1)) or not held
    again = GroupMap.from_json(places.to_json(), capacity * 4 * PAGE, 4)
    assert [again.group_of(fork, block) for fork, block in touched] == [seen[f, b // 4] for f, b in touched]


def tiny_log(seed: int, records: int) -> bytes:
    rnd = random.Random(seed)
    return b"".join(bytes([n]) + rnd.randbytes(n) for n in (rnd.randrange(6) for _ in range(records)))


@given(st.integers(0, 50), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_extents_laid_end_to_end_are_the_log_however_it_arrives(seed, sizes):
    log = tiny_log(seed, 60)

    def cut(sizes):
        places = GroupMap(3 * PAGE, 1)
        cutter = GroupCutter(100, {}, 100, places, lambda sink: TinyScanner(100, sink), references)
        extents, position = [], 0
        for size in [*sizes, len(log)]:
            piece = log[position : position + size]
            extents += cutter.cut(100 + position, piece)
            position += len(piece)
        return extents, cutter

    extents, cutter = cut(sizes)
    assert b"".join(extent.data for extent in extents) == log
    assert cutter.boundary == 100 + len(log)
    whole, _ = cut([])
    groups = {position: extent.group for extent in whole for position in range(extent.start, extent.end)}
    tails: dict[int, int] = {}
    for extent in extents:
        assert extent.prev == tails.get(extent.group, 100)
        tails[extent.group] = extent.end
        assert all(groups[position] == extent.group for position in range(extent.start, extent.end))
