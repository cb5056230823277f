from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.wire import messages as m
from aurora_router_cluster.wire.errors import ErrorFields, ProtocolError

MESSAGES = st.lists(st.builds(m.Message, st.sampled_from([b"Q", b"d", b"Z", b"p"]), st.binary(max_size=80)))


@given(MESSAGES, st.lists(st.integers(0, 2000)), st.binary(min_size=4, max_size=40))
def test_any_chunking_gives_the_same_messages(found: list[m.Message], cuts: list[int], startup: bytes) -> None:
    stream = struct.pack(">I", len(startup) + 4) + startup + b"".join(m.message(*one) for one in found)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parser, got = m.MessageParser(startup=True), list[m.Message]()
    for start, end in pairwise(edges):
        parser.feed(stream[start:end])
        while (one := parser.next_message()) is not None:
            got.append(one)
            parser.startup = False
    assert got == [m.Message(b"", startup), *found]


@pytest.mark.parametrize(
    ("startup", "data"),
    [(True, b"\0\0\0\3"), (True, b"GET / HTTP/1.1\r\n\r\n"), (False, b"Q\0\0\0\1"), (False, b"Q\x7f\0\0\0")],
)
def test_junk_is_refused_before_it_is_buffered(startup: bool, data: bytes) -> None:
    parser = m.MessageParser(startup=startup, limit=1 << 16)
    parser.feed(data)
    with pytest.raises(ProtocolError, match="claims a length"):
        parser.next_message()


@given(st.lists(st.none() | st.binary(max_size=50), max_size=20))
def test_rows_come_back(row: list[bytes | None]) -> None:
    assert m.parse_row(m.data_row(row)[5:]) == row


def test_a_cut_row_is_refused() -> None:
    body = m.data_row([b"abc", None])[5:]
    for end in range(len(body)):
        with pytest.raises(ProtocolError):
            m.parse_row(body[:end])


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(TEXT, TEXT, TEXT)
def test_errors_come_back(message: str, detail: str, hint: str) -> None:
    fields = ErrorFields("FATAL", "57P03", message or "x", detail, hint)
    assert m.parse_error(m.error_response(fields)[5:]) == fields


@given(st.dictionaries(TEXT.filter(bool), TEXT, max_size=8))
def test_startup_parameters_come_back(parameters: dict[str, str]) -> None:
    assert m.parse_startup(m.startup_packet(parameters)[4:]) == (m.PROTOCOL_3_0, parameters)


@pytest.mark.parametrize("body", [b"\0\3\0\0", b"\0\3\0\0user\0\0", b"\0\3\0\0user\0me\0", b"\0\3\0\0user"])
def test_malformed_parameters_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        m.parse_startup(body)


def test_text_with_a_zero_byte_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="zero byte"):
        m.query("select 1\0; drop")
