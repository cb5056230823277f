from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.wire import replication as r
from aurora_router_cluster.wire.errors import ProtocolError

LSN = st.integers(0, 2**64 - 1)


@given(LSN)
def test_positions_come_back_from_text(lsn: int) -> None:
    assert r.parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/123456789", "g/0", "0/0 ", "-1/0", "0/0\n"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="not a log position"):
        r.parse_lsn(text)


@given(st.integers(0, 2**40), st.integers(0, 300_000), st.integers(0, 300_000))
def test_a_message_ends_at_its_limit_or_with_a_page_and_is_as_long_as_that_allows(
    start: int, available: int, room: int
) -> None:
    size, limit = r.message_size(start, available, start + room), start + room
    end, at_hand = start + size, min(start + available, limit)
    assert 0 <= size <= available
    assert size == 0 or end == limit or end % r.PAGE == 0
    left_out = range(end + 1, at_hand + 1)
    assert limit not in left_out
    assert not any(lsn % r.PAGE == 0 for lsn in left_out)


@given(LSN, LSN, LSN, st.booleans())
def test_a_status_update_comes_back(written: int, flushed: int, applied: int, reply: bool) -> None:
    before = time.time()
    got = r.parse_from_standby(r.standby_status(written, flushed, applied, reply=reply)[5:])
    assert isinstance(got, r.StandbyStatus)
    assert (got.written, got.flushed, got.applied, got.reply) == (written, flushed, applied, reply)
    assert abs(got.sent_at - before) < 60


@given(*[st.integers(0, 2**32 - 1)] * 4)
def test_feedback_comes_back(xmin: int, epoch: int, catalog_xmin: int, catalog_epoch: int) -> None:
    feedback = r.HotStandbyFeedback(xmin, epoch, catalog_xmin, catalog_epoch)
    assert r.parse_from_standby(r.hot_standby_feedback(feedback)[5:]) == feedback


@given(LSN, st.booleans())
def test_a_keepalive_comes_back(end: int, reply: bool) -> None:
    got = r.parse_from_sender(r.keepalive(end, reply=reply)[5:])
    assert (got.end, got.reply) == (end, reply)


@given(st.binary(max_size=60))
def test_other_bodies_are_refused_not_misread(body: bytes) -> None:
    for parse, sizes in ((r.parse_from_sender, {b"k": 18}), (r.parse_from_standby, {b"r": 34, b"h": 25})):
        if sizes.get(body[:1]) != len(body):
            with pytest.raises(ProtocolError, match="stream message"):
                parse(body)
