"""The name server as a process: what it answers inside, and outside of the hosts' network."""

from __future__ import annotations

import asyncio

import dns.message
import dns.query
import pytest

from aurora_router_cluster.dns.zone import Zone
from aurora_router_cluster.hosts.hosts import Host as Place
from aurora_router_cluster.hosts.nameserver import RemoteDns, addresses
from tests.cluster.hosts.conftest import NAMES, Host, free_port

NAME = "demo.cluster-c1.eu-test-1.rds.aurora.test"
ZONE = Zone("eu-test-1.rds.aurora.test", {NAME: ("172.31.83.11",), f"other.{NAME}": ("172.31.83.99",)})


@pytest.fixture
def outside():
    return free_port("127.0.0.1")


@pytest.fixture
def served(tmp_path, outside):
    words = [
        "--dns",
        "{self.address}:0",
        "--outside",
        f"127.0.0.1:{outside}",
        "--published",
        "172.31.83.11=127.31.83.11",
    ]
    host = Host(NAMES, "eu-test-1a", tmp_path, "between us", words)
    host.start()
    yield host
    host.end()


async def test_outside_it_tells_where_hosts_are_published(served, outside):
    async def told(name, host, port):
        query = dns.message.make_query(name, "A")
        answer = await asyncio.to_thread(dns.query.udp, query, host, port=port, timeout=30)
        return [each.to_text() for each in answer.answer[0]]

    control = RemoteDns(lambda: ZONE, Place("eu-test-1a", served.address, served.port), "between us")
    await control.start()  # a name server that is connected has the zone
    try:
        assert await told(NAME, served.address, control.port) == ["172.31.83.11"]
        assert await told(NAME, "127.0.0.1", outside) == ["127.31.83.11"]
        assert await told(f"other.{NAME}", "127.0.0.1", outside) == ["172.31.83.99"]
    finally:
        await control.close()


@pytest.mark.parametrize("text", ["", "172.31.83.11", "172.31.83.11=elsewhere", "172.31.83.11=127.0.0.1=127.0.0.2"])
def test_what_is_published_has_to_be_pairs_of_addresses(text):
    with pytest.raises(ValueError):
        addresses(text)
