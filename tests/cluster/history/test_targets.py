"""Points in the history as users write them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.client.history import point_text
from aurora_router_cluster.errors import TargetError
from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.targets import Target, parse_target, time_text


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_every_position_is_read_back(lsn):
    assert parse_target(format_lsn(lsn)) == Target(lsn=lsn)
    assert parse_target(point_text(lsn)) == Target(lsn=lsn)


@given(st.datetimes(timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=-7))])))
def test_every_time_is_read_back(moment):
    assert parse_target(point_text(moment)) == Target(time=moment)


@pytest.mark.parametrize(
    "text", ["2026-11-21T12:34:56", "2026-11-21 12:34:56+00:00", "2026-11-21T12:34:56Z", " 2026-11-21T14:34:56+02:00 "]
)
def test_a_time_without_a_zone_is_utc(text):
    assert parse_target(text).time == datetime(2026, 11, 21, 12, 34, 56, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "0/", "/1", "0/G", "1/2/3", "-1/0", "123456789/0", "12:00", "2026-13-01", "0x1"]
)
def test_what_is_neither_is_refused_and_the_forms_are_told(text):
    with pytest.raises(TargetError, match=r"0/16B3748.*2026"):
        parse_target(text)


def test_what_is_shown_can_be_read():
    assert parse_target(time_text(1_700_000_000.25)).time == datetime.fromtimestamp(1_700_000_000.25, timezone.utc)
    assert str(parse_target("a/0")) == "A/0"
    assert "2026" in str(parse_target("2026-11-21"))
