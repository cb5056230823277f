"""The newest part of the log in memory: what is read from it, wherever that begins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.storage.core.extents import Extent
from aurora_router_cluster.storage.log_buffer import LogBuffer

START = 1000


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1), st.integers(0, 60), st.data())
def test_a_read_is_the_log_from_there_on(pieces: list[bytes], length: int, data: st.DataObject) -> None:
    buffer, end = LogBuffer(START), START
    for piece in pieces:
        buffer.add(Extent(0, end, end, piece), START)
        end += len(piece)
    log, lsn = b"".join(pieces), data.draw(st.integers(START, end - 1))
    assert buffer.read(lsn, length) == log[lsn - START :][:length]


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1), st.integers(1, 40))
def test_what_is_not_in_memory_is_not_read(pieces: list[bytes], limit: int) -> None:
    buffer, end = LogBuffer(START, limit), START
    for piece in pieces:
        buffer.add(Extent(0, end, end, piece), end)
        end += len(piece)
    assert buffer.read(buffer.start - 1, 1) is None
    assert buffer.read(end, 1) is None
    assert (buffer.start == end) or buffer.read(buffer.start, end) == b"".join(pieces)[buffer.start - START :]
