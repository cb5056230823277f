"""Shutting down exactly one socket, whatever became of its number."""

from __future__ import annotations

import fcntl
import os
import socket

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
