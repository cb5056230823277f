from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.wire import messages as m
from aurora_router_cluster.wire import replication as r
from aurora_router_cluster.wire.errors import ProtocolError
from aurora_router_cluster.wire.replication import StreamDecoder

PIECES = st.lists(st.binary(max_size=90) | st.sampled_from(["keepalive", "other"]), max_size=15)


@given(PIECES, st.lists(st.integers(0, 2500)), st.integers(0, 2**40))
def test_any_chunking_gives_the_same_log_and_messages(pieces: list[bytes | str], cuts: list[int], start: int) -> None:
    stream, log, kinds = b"", b"", list[bytes]()
    for piece in pieces:
        if isinstance(piece, bytes):
            stream += r.xlog_data_header(start + len(log), 0, len(piece)) + piece
            log += piece
        else:
            stream += r.keepalive(7, reply=True) if piece == "keepalive" else m.parameter_status("a", "b")
            kinds.append(b"d" if piece == "keepalive" else b"S")
    got = list[m.Message]()
    decoder = StreamDecoder(got.append)
    decoder.position, received = start, b""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for first, last in pairwise(edges):
        lsn, found = decoder.feed(stream[first:last])
        assert lsn == start + len(received)
        received += found
    assert received == log
    assert decoder.position == start + len(log)
    assert [one.kind for one in got] == kinds
    assert all(r.parse_from_sender(one.body).end == 7 for one in got if one.kind == b"d")


@pytest.mark.parametrize("offset", [-1, 1, 1 << 32])
def test_a_gap_or_an_overlap_is_refused(offset: int) -> None:
    decoder = StreamDecoder(lambda message: None)
    decoder.position = 1 << 20
    decoder.feed(r.xlog_data_header(1 << 20, 0, 3) + b"abc")
    with pytest.raises(ProtocolError, match="expected was 0/100003"):
        decoder.feed(r.xlog_data_header((1 << 20) + 3 + offset, 0, 3) + b"def")


def test_an_impossible_length_is_refused() -> None:
    with pytest.raises(ProtocolError, match="claims 2147483647 bytes"):
        StreamDecoder(lambda message: None).feed(b"Z\x7f\xff\xff\xff")
