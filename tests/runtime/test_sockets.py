"""Shutting down exactly one socket, whatever its number is used for by then."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
import time

import pytest

from aurora_router.runtime import sockets


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    yield client, peer
    client.close()
    peer.close()


def test_a_shut_down_wakes_who_waits_and_leaves_the_descriptor(pair):
    client, peer = pair
    known = sockets.identify(client.fileno())
    assert known is not None
    assert not sockets.end_of(client.fileno())()
    assert sockets.shut_down(client.fileno(), known)
    assert client.recv(1) == b""
    assert peer.recv(1) == b""
    os.fstat(client.fileno())


def test_only_bytes_are_bytes(pair):
    """An accept is none, the end is none, and an error is none."""
    client, peer = pair
    assert not sockets.has_bytes(client.fileno())
    peer.send(b"x")
    assert sockets.wait(client.fileno(), select.POLLIN, 5.0)
    assert sockets.has_bytes(client.fileno())
    assert client.recv(1) == b"x"
    assert not sockets.has_bytes(client.fileno())
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()  # a reset
    assert sockets.wait(client.fileno(), select.POLLIN, 5.0)
    assert not sockets.has_bytes(client.fileno())
    number = client.fileno()
    client.close()
    assert not sockets.has_bytes(number)


def test_a_number_that_was_given_anew_is_left_alone(pair):
    client, _ = pair
    known, fd = sockets.identify(client.fileno()), client.fileno()
    one, other = socket.socketpair()
    client.close()
    with one, other:
        os.dup2(one.fileno(), fd)
        assert not sockets.shut_down(fd, known)
        os.close(fd)


def test_a_file_of_that_number_keeps_its_locks(pair, tmp_path):
    client, _ = pair
    known, fd = sockets.identify(client.fileno()), client.fileno()
    with (tmp_path / "locked").open("w") as file:
        client.close()
        fcntl.lockf(file, fcntl.LOCK_EX)
        os.dup2(file.fileno(), fd)
        assert not sockets.shut_down(fd, known)
        child = os.fork()
        if child == 0:
            with (tmp_path / "locked").open("w") as again:
                try:
                    fcntl.lockf(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os._exit(0)
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "the lock was lost"
        os.close(fd)


def test_what_is_no_connected_socket_has_no_identity(tmp_path):
    with (tmp_path / "file").open("w") as file, socket.socket() as unconnected:
        assert sockets.identify(file.fileno()) is None
        assert sockets.identify(unconnected.fileno()) is None
    assert sockets.identify(12345) is None


def test_sockets_of_files_are_told_apart(tmp_path):
    """Their addresses are all alike."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(2)
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
            one.connect(str(tmp_path / "s"))
            other.connect(str(tmp_path / "s"))
            known = sockets.identify(one.fileno())
            assert known != sockets.identify(other.fileno())
            assert not sockets.shut_down(other.fileno(), known)


def test_an_end_is_seen_without_asking(pair):
    client, peer = pair
    peer.sendall(b"a last word")
    assert not sockets.end_of(client.fileno())()
    peer.close()
    assert sockets.end_of(client.fileno())()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO as Linux has it")
def test_the_kernel_knows_when_data_came_whether_read_or_not(pair):
    client, peer = pair
    known = sockets.identify(client.fileno())
    time.sleep(0.3)
    silent = sockets.since_data(client.fileno(), known)
    assert silent >= 0.25
    assert not sockets.has_unread(client.fileno(), known)
    peer.sendall(b"x")
    assert sockets.since_data(client.fileno(), known) < 0.25
    assert sockets.has_unread(client.fileno(), known)
    client.recv(1)
    assert not sockets.has_unread(client.fileno(), known)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO as Linux has it")
def test_answers_to_keepalive_probes_are_no_data(pair):
    client, _ = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    known, last_ack = sockets.identify(client.fileno()), "=I"
    time.sleep(1.6)
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert struct.unpack_from(last_ack, info, 56)[0] < 1000, "a probe was answered"
    assert sockets.since_data(client.fileno(), known) > 1.4


def test_what_is_no_tcp_or_another_socket_tells_nothing(pair):
    one, other = socket.socketpair()
    with one, other:
        assert sockets.since_data(one.fileno(), sockets.identify(one.fileno())) is None
        assert sockets.ends_of(one.fileno()) == (None, None)
        client, _ = pair
        assert sockets.since_data(client.fileno(), sockets.identify(one.fileno())) is None
        other.sendall(b"x")
        assert not sockets.has_unread(one.fileno(), sockets.identify(client.fileno()))
        assert sockets.ends_of(client.fileno()) == (client.getsockname(), client.getpeername())


@pytest.mark.parametrize("info", [b"", b"\1" * 55, b"\0" * 104])
def test_a_structure_that_is_short_or_empty_tells_nothing(info):
    assert sockets._since_data(info) is None
