from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.wire import commands as c
from aurora_router_cluster.wire.errors import ProtocolError


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("IDENTIFY_SYSTEM", c.IdentifySystem()),
        ("identify_system;", c.IdentifySystem()),
        ("TIMELINE_HISTORY 12", c.TimelineHistory(12)),
        ("SHOW wal_segment_size", c.Show("wal_segment_size")),
        ('SHOW "Data_Directory_Mode" ;', c.Show("data_directory_mode")),
        ("START_REPLICATION 0/3000000 TIMELINE 1", c.StartReplication(0x3000000, 1)),
        ("START_REPLICATION PHYSICAL A/B timeline 7;", c.StartReplication(0xA0000000B, 7)),
        ("START_REPLICATION PHYSICAL 0/0", c.StartReplication(0, None)),
    ],
)
def test_what_clients_send(text: str, command: c.Command) -> None:
    assert c.parse_command(text) == command


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('START_REPLICATION SLOT "s" PHYSICAL 0/0 TIMELINE 1', "without slots"),
        ('CREATE_REPLICATION_SLOT "s" TEMPORARY PHYSICAL ( RESERVE_WAL )', "without slots"),
        ("START_REPLICATION LOGICAL 0/0", "logical"),
        ("BASE_BACKUP (LABEL 'x')", "base backup"),
        ("select 1", "for SQL"),
        ("", "for SQL"),
    ],
)
def test_what_is_not_done_here_is_said_with_a_way_out(text: str, hint: str) -> None:
    command = c.parse_command(text)
    assert isinstance(command, c.Unsupported)
    assert hint in command.hint


@pytest.mark.parametrize(
    "text",
    [
        "TIMELINE_HISTORY",
        "TIMELINE_HISTORY x",
        "TIMELINE_HISTORY 0",
        "START_REPLICATION",
        "START_REPLICATION 0/0 TIMELINE",
        "START_REPLICATION 0/0 TIMELINE -1",
        "START_REPLICATION 0/0 FOO 1",
        "START_REPLICATION zero TIMELINE 1",
    ],
)
def test_wrong_arguments_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        c.parse_command(text)


@given(st.text(max_size=60))
def test_any_text_gives_a_command_or_a_protocol_error(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        c.parse_command(text)
