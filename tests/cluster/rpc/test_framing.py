from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.rpc import framing

messages = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1 << 60), st.binary(max_size=50)), max_size=10)


@given(messages, st.lists(st.integers(1, 40), min_size=1))
def test_messages_do_not_depend_on_how_the_bytes_were_cut(sent, sizes):
    data = b"".join(framing.frame(*each) for each in sent)
    stream, found, position, turn = framing.Stream(), [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        stream.feed(data[position : position + size])
        position, turn = position + size, turn + 1
        while (message := stream.next_message()) is not None:
            found.append(tuple(message))
    assert found == sent


def test_a_stranger_may_not_announce_much():
    stream = framing.Stream()
    stream.feed(framing.HEADER.pack(framing.LONGEST_STRANGER + 1, framing.PROOF, 0))
    with pytest.raises(framing.MalformedStream, match="257 bytes was announced, 256 are allowed"):
        stream.next_message()


@given(st.dictionaries(st.text(max_size=5), st.integers()), st.binary(max_size=30))
def test_facts_and_data_come_back(facts, data):
    assert framing.unpack(framing.pack(facts, data)) == (facts, data)


@pytest.mark.parametrize("body", [b"", b"\0\0", b"\0\0\0\4junk", b"\0\0\0\x02[]"])
def test_junk_is_refused(body):
    with pytest.raises(framing.MalformedStream):
        framing.unpack(body)
