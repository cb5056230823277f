from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_router_cluster.storage.disk import frames as f
from aurora_router_cluster.storage.disk.errors import DamagedError

BASE = 7 << 32
DRAFTS = st.lists(
    st.builds(
        f.Draft,
        st.integers(1, 254),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=60) | st.just(f.MAGIC * 9),  # payloads that look like frames
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
    ),
    min_size=1,
    max_size=6,
)


def packed(drafts: list[f.Draft], base: int = BASE) -> bytes:
    data = b""
    for draft in drafts:
        data += f.pack_header(draft, base + len(data), base) + draft.payload
    return data


def good_end(data: bytes, base: int) -> int:
    """Offset after the last good frame."""
    found = f.without_torn_tail(list(f.scan(data, base)), data, base)
    return sum(
        entry.header.end - entry.header.position if isinstance(entry, f.Frame) else entry.length for entry in found
    )


def drafted(frame: f.Frame) -> f.Draft:
    h = frame.header
    return f.Draft(h.kind, h.epoch, h.lsn, frame.payload, h.group, h.prev)


@given(DRAFTS)
def test_what_was_written_is_found_in_order(drafts: list[f.Draft]) -> None:
    data = packed(drafts)
    entries = list(f.scan(data, BASE))
    assert [drafted(entry) for entry in entries if isinstance(entry, f.Frame)] == drafts
    assert good_end(data, BASE) == len(data)


@settings(max_examples=60)
@given(DRAFTS)
def test_cut_anywhere_the_whole_frames_before_stay(drafts: list[f.Draft]) -> None:
    data = packed(drafts)
    ends = [0]
    for draft in drafts:
        ends.append(ends[-1] + draft.size)
    for cut in range(len(data) + 1):
        assert good_end(data[:cut], BASE) == max(end for end in ends if end <= cut)


@settings(max_examples=200)
@given(DRAFTS, st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_costs_one_frame_and_never_gives_a_wrong_one(drafts: list[f.Draft], at: int, mask: int) -> None:
    data = bytearray(packed(drafts))
    at %= len(data)
    data[at] ^= mask
    entries = list(f.scan(bytes(data), BASE))
    good = [drafted(entry) for entry in entries if isinstance(entry, f.Frame)]
    (damage,) = [entry for entry in entries if isinstance(entry, f.Damage)]
    hit = next(i for i, _ in enumerate(drafts) if at < sum(draft.size for draft in drafts[: i + 1]))
    assert good == drafts[:hit] + drafts[hit + 1 :]
    assert damage.position == BASE + sum(draft.size for draft in drafts[:hit])
    assert damage.length == drafts[hit].size
    in_payload = at >= damage.position - BASE + f.HEADER_SIZE
    assert (damage.header is not None) == in_payload
    found = f.without_torn_tail(entries, bytes(data), BASE)
    start, end = (position - BASE for position in (damage.position, damage.position + damage.length))
    sectors = [start, *range(start - start % f.SECTOR + f.SECTOR, end, f.SECTOR), end]
    is_empty = any(not any(data[a:b]) for a, b in pairwise(sectors))
    assert found == (entries[:hit] if is_empty else entries)  # a byte of a frame that was written is no torn tail


@settings(max_examples=200)
@given(DRAFTS, st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=40))
def test_whatever_happens_to_the_bytes_every_frame_found_was_written(
    drafts: list[f.Draft], changes: list[tuple[int, int]]
) -> None:
    data = bytearray(packed(drafts))
    for at, value in changes:
        data[at % len(data)] = value
    position = BASE
    for entry in f.scan(bytes(data), BASE):
        here = entry.header.position if isinstance(entry, f.Frame) else entry.position
        assert here == position
        position = entry.header.end if isinstance(entry, f.Frame) else here + entry.length
        if isinstance(entry, f.Frame):
            assert drafted(entry) in drafts
    assert position == BASE + len(data)


def test_a_frame_at_another_place_is_not_taken() -> None:
    data = packed([f.Draft(1, 2, 3, b"payload")])
    for base in (BASE + 1, BASE + (1 << 32), 0):
        with pytest.raises(DamagedError, match="no intact frame"):
            f.parse_frame(data, 0, base)


@given(st.binary(max_size=300))
def test_junk_is_all_damage(data: bytes) -> None:
    entries = list(f.scan(data, BASE))
    assert all(isinstance(entry, f.Damage) for entry in entries)


BATCHES = st.lists(st.lists(st.integers(0, 1500), min_size=1, max_size=4), min_size=1, max_size=4)


def written(batches: list[list[int]]) -> tuple[bytes, list[int]]:
    """A file of batches of frames with payloads of so many bytes, none zero; and the end of each batch."""
    data, ends = b"", [0]
    for sizes in batches:
        for size in sizes:
            draft = f.Draft(1, 1, len(data), bytes(1 + i % 255 for i in range(size)))
            data += f.pack_header(draft, BASE + len(data), BASE + ends[-1]) + draft.payload
        ends.append(len(data))
    return data, ends


@settings(max_examples=200)
@given(BATCHES, st.data())
def test_of_a_batch_that_lost_its_power_nothing_stays_behind_what_is_missing(
    batches: list[list[int]], choice: st.DataObject
) -> None:
    data, ends = written(batches)
    start, end = ends[-2], ends[-1]
    first = start // f.SECTOR
    sectors = choice.draw(st.sets(st.integers(first, (end - 1) // f.SECTOR), min_size=1))
    torn = bytearray(data)
    for sector in sectors:  # the disk did not write them: what was there stays, and behind the last batch nothing was
        a, b = max(start, sector * f.SECTOR), min(end, (sector + 1) * f.SECTOR)
        torn[a:b] = bytes(b - a)
    found = f.without_torn_tail(list(f.scan(bytes(torn), BASE)), bytes(torn), BASE)
    assert all(isinstance(entry, f.Frame) for entry in found)
    kept = found[-1].header.end - BASE if found else 0
    assert start <= kept < end
    assert bytes(torn[:kept]) == data[:kept]


@settings(max_examples=200)
@given(BATCHES, st.data())
def test_what_was_acknowledged_and_rotted_is_kept_as_damage(batches: list[list[int]], choice: st.DataObject) -> None:
    data, ends = written(batches)
    at = choice.draw(st.integers(0, len(data) - 1))
    rotten = bytearray(data)
    rotten[at] ^= choice.draw(st.integers(1, 255))
    if at < ends[-2] and choice.draw(
        st.booleans()
    ):  # below the last batch a whole sector may be gone, too: what comes later says that it was synced
        sector = at - at % f.SECTOR
        rotten[sector : min(sector + f.SECTOR, ends[-2])] = bytes(max(0, min(f.SECTOR, ends[-2] - sector)))
    found = f.without_torn_tail(list(f.scan(bytes(rotten), BASE)), bytes(rotten), BASE)
    end = found[-1].header.end if isinstance(found[-1], f.Frame) else found[-1].position + found[-1].length
    if at < ends[-2] or rotten[at]:
        assert end == BASE + len(data)
        assert any(isinstance(entry, f.Damage) and entry.position <= BASE + at for entry in found)
