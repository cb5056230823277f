from __future__ import annotations

import asyncio
import contextlib
import socket

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_router_cluster.dns.server import MOST_TCP, DnsServer
from aurora_router_cluster.dns.zone import Zone
from aurora_router_cluster.errors import AddressInUseError

NAME = "demo.cluster-cx.eu-test-1.rds.aurora.test"
READER = "demo.cluster-ro-cx.eu-test-1.rds.aurora.test"
LONG = [f"{letter * 60}.{letter * 60}.{letter * 60}.example.com" for letter in "abcd"]
ZONE = Zone(
    "eu-test-1.rds.aurora.test",
    {NAME: ("127.0.0.11",), READER: ("127.0.0.12", "127.0.0.13")},
    dict(zip(LONG, [*LONG[1:], NAME], strict=True)),
)


@pytest.fixture
async def server():
    server = DnsServer(lambda: ZONE)
    await server.start()
    yield server
    await server.close()


async def udp(server, name, kind="A", **options):
    query = dns.message.make_query(name, kind, **options)
    return await dns.asyncquery.udp(query, server.host, port=server.port, timeout=5)


async def test_udp_and_tcp_on_one_port(server):
    query = dns.message.make_query(NAME, "A")
    by_udp = await udp(server, NAME)
    by_tcp = await dns.asyncquery.tcp(query, server.host, port=server.port, timeout=5)
    assert by_udp.answer == by_tcp.answer
    assert by_udp.answer[0][0].to_text() == "127.0.0.11"


async def test_connections_that_ask_nothing_are_few(server):
    idle = [await asyncio.open_connection(server.host, server.port) for _ in range(MOST_TCP + 40)]
    query = dns.message.make_query(NAME, "A")
    answer = await dns.asyncquery.tcp(query, server.host, port=server.port, timeout=5)
    assert answer.answer[0][0].to_text() == "127.0.0.11"
    assert await asyncio.wait_for(idle[0][0].read(), 5) == b""
    assert len(server._clients) <= MOST_TCP + 1
    for _, writer in idle:
        writer.close()


async def test_readers_take_turns(server):
    seen = [(await udp(server, READER)).answer[0][0].to_text() for _ in range(4)]
    assert seen in (["127.0.0.12", "127.0.0.13"] * 2, ["127.0.0.13", "127.0.0.12"] * 2)


async def test_a_long_answer_is_truncated_and_whole_over_tcp(server):
    small = await udp(server, LONG[0])
    assert small.flags & dns.flags.TC
    assert not small.answer
    query = dns.message.make_query(LONG[0], "A")
    whole, used_tcp = await dns.asyncquery.udp_with_fallback(query, server.host, port=server.port, timeout=5)
    assert used_tcp
    assert len(whole.answer) == 5


async def test_edns_takes_a_long_answer_by_udp(server):
    response = await udp(server, LONG[0], use_edns=0, payload=1232)
    assert not response.flags & dns.flags.TC
    assert response.edns == 0
    assert len(response.answer) == 5


async def test_rubbish_gets_format_error_or_nothing_and_does_no_harm(server):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((server.host, server.port))
        await loop.sock_sendall(client, b"x")
        await loop.sock_sendall(client, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff")
        answer = await asyncio.wait_for(loop.sock_recv(client, 512), 5)
    assert answer[:2] == b"\x12\x34"
    assert answer[3] & 0x0F == dns.rcode.FORMERR
    assert (await udp(server, NAME)).answer


async def test_a_tcp_client_that_sends_half_a_query_does_no_harm(server):
    _, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"\x00\x50abc")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await udp(server, NAME)).answer


async def test_close_ends_an_idle_tcp_client():
    server = DnsServer(lambda: ZONE)
    await server.start()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"\x00")
    await writer.drain()
    while not server._clients:  # noqa: ASYNC110 - a test may poll
        await asyncio.sleep(0.001)
    await server.close()
    with contextlib.suppress(ConnectionResetError):  # what it had sent was not read to the end
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_no_packet_raises(packet):
    DnsServer(lambda: ZONE).respond(packet, 512)


def test_an_answer_is_not_answered():
    reply = dns.message.make_response(dns.message.make_query(NAME, "A"))
    assert DnsServer(lambda: ZONE).respond(reply.to_wire(), 512) is None


async def test_a_port_in_use_is_named(server):
    with pytest.raises(AddressInUseError, match=f"port {server.port}"):
        await DnsServer(lambda: ZONE, port=server.port).start()
