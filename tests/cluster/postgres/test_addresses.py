from __future__ import annotations

import socket
import sys

import pytest

from aurora_router_cluster.errors import AddressInUseError
from aurora_router_cluster.postgres.addresses import Address, Allocator

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs the whole of 127.0.0.0/8")


@linux
def test_each_instance_gets_an_address_of_its_own_and_the_common_port():
    allocator = Allocator(shared=False)
    taken: set[Address] = set()
    for _ in range(20):
        taken.add(allocator.take(taken))
    assert len({address.host for address in taken}) == 20
    assert {address.port for address in taken} == {allocator.port}
    assert all(address.host.startswith("127.") for address in taken)


def test_where_there_is_one_address_ports_differ():
    allocator = Allocator(shared=True)
    taken: set[Address] = set()
    for _ in range(5):
        taken.add(allocator.take(taken))
    assert {address.host for address in taken} == {"127.0.0.1"}
    assert len({address.port for address in taken}) == 5


def test_a_common_port_on_one_address_is_impossible():
    with pytest.raises(AddressInUseError, match=r"only 127\.0\.0\.1"):
        Allocator(shared=True, port=5432)


@linux
def test_addresses_count_upwards_from_the_one_asked_for():
    allocator = Allocator(shared=False, first="127.77.3.255")
    first = allocator.take(())
    assert first.host == "127.77.3.255"
    assert allocator.take({first}).host == "127.77.4.0"


@linux
def test_an_address_in_use_is_named():
    with socket.create_server(("127.78.9.10", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(AddressInUseError, match=rf"127\.78\.9\.10:{port} is taken"):
            Allocator(shared=False, first="127.78.9.10", port=port).take(())


@linux
def test_a_port_in_use_everywhere_is_named():
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(AddressInUseError, match=f"port {port} is taken"):
            Allocator(shared=False, port=port).take(())


@linux
def test_an_address_of_another_machine_is_refused():
    with pytest.raises(AddressInUseError, match="not an address of this machine"):
        Allocator(shared=False, first="192.0.2.1", port=5432).take(())
