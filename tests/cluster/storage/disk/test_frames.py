from __future__ import annotations

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
        data += f.pack_header(draft, base + len(data)) + draft.payload
    return data


def good_end(data: bytes, base: int) -> int:
    """Offset after the last good frame."""
    found = f.without_torn_tail(list(f.scan(data, base)))
    return found[-1].header.end - base if found else 0


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
    kept = good_end(bytes(data), BASE)
    assert kept == (len(data) - drafts[-1].size if hit == len(drafts) - 1 else len(data))


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
    assert good_end(data, BASE) == 0
