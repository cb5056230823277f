"""The relay's process in front of servers of the test's own: nothing here is a PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aurora_router_cluster import faults

MAIN = Path(faults.__file__).parent / "__main__.py"
QUIET = 0.3  # seconds of silence that we call silence


class Control:
    """A relay's process and its socket."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen([sys.executable, "-I", "-S", str(MAIN)], stdin=theirs.fileno())
        self.stream = self.ours.makefile("rb")

    def ask(self, do, **arguments):
        self.ours.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        answer = json.loads(self.stream.readline())
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["result"]

    def close(self):
        self.stream.close()
        self.ours.close()
        assert self.process.wait(30) == 0


@pytest.fixture
def control():
    made = Control()
    yield made
    made.close()


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self.place = ("127.0.0.1", 0)
        self.peers: list[socket.socket] = []
        self.start()

    def start(self):
        self.listener = socket.create_server(self.place)
        self.place = self.listener.getsockname()
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                self.peers.append(peer)
                threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        with contextlib.suppress(OSError), peer:
            while data := peer.recv(1 << 16):
                peer.sendall(data)

    def stop(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        self.peers.clear()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.stop()


@pytest.fixture
def place(control, echo):
    return tuple(control.ask("open", name="r", listen=["127.0.0.1", 0], target=list(echo.place)))


def dial(place, timeout=30.0):
    return socket.create_connection(tuple(place), timeout)


def silent(client):
    client.settimeout(QUIET)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(30)


def eventually(condition, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exactly(client, count):
    data = bytearray()
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return bytes(data)


def refuses(place):
    try:
        with dial(place) as client:
            client.recv(1)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


def test_what_is_sent_comes_back_whole(place):
    data = os.urandom(3 << 20)
    with dial(place) as client:
        threading.Thread(target=client.sendall, args=(data,)).start()
        assert exactly(client, len(data)) == data


def test_the_end_is_passed_on_in_both_directions(control, echo, place):
    with dial(place) as client:
        client.sendall(b"x")
        assert exactly(client, 1) == b"x"
        assert control.ask("count") == {"r": 1}
        echo.peers[0].shutdown(socket.SHUT_RDWR)
        assert client.recv(1) == b""
    with dial(place) as client:
        client.sendall(b"x")
        assert exactly(client, 1) == b"x"
    eventually(lambda: control.ask("count") == {"r": 0})


def test_held_is_silence_and_nothing_is_lost(control, place):
    with dial(place) as client:
        client.sendall(b"before")
        assert exactly(client, 6) == b"before"
        control.ask("shape", name="r", held=True)
        client.sendall(b"during")
        silent(client)
        control.ask("shape", name="r")
        assert exactly(client, 6) == b"during"


def test_the_end_of_a_client_is_not_passed_on_while_held(control, echo, place):
    client = dial(place)
    client.sendall(b"x")
    assert exactly(client, 1) == b"x"
    control.ask("shape", name="r", held=True)
    client.close()
    time.sleep(QUIET)
    assert control.ask("count") == {"r": 1}
    control.ask("shape", name="r")
    eventually(lambda: control.ask("count") == {"r": 0})


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the kernel completes the connection, which then is silent"
)
def test_new_connections_hang_while_held_and_come_through_afterwards(control, place):
    control.ask("shape", name="r", held=True)
    with pytest.raises(TimeoutError):
        dial(place, QUIET)
    waiting = threading.Thread(target=lambda: results.append(dial(place)))
    results: list[socket.socket] = []
    waiting.start()
    time.sleep(QUIET)
    control.ask("shape", name="r")
    waiting.join(30)  # the kernel tries again after 1, 2, 4 s
    with results[0] as client:
        client.sendall(b"x")
        assert exactly(client, 1) == b"x"


def test_a_target_that_is_down_refuses_and_comes_back(control, echo, place):
    with dial(place) as client:
        client.sendall(b"x")
        assert exactly(client, 1) == b"x"
        echo.stop()
        assert client.recv(1) == b""
        eventually(lambda: refuses(place))
    echo.start()

    def answers():
        with contextlib.suppress(OSError), dial(place) as again:
            again.sendall(b"y")
            return exactly(again, 1) == b"y"
        return False

    eventually(answers)


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_who_is_down_and_cut_off_does_not_refuse(control, echo, place):
    echo.stop()
    eventually(lambda: refuses(place))
    control.ask("shape", name="r", held=True)
    with pytest.raises(TimeoutError):
        dial(place, QUIET)
    control.ask("shape", name="r")
    eventually(lambda: refuses(place))


def test_last_words_come_through(control, tmp_path):
    """A server that says why it ends the connection while the client is still sending."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = control.ask("open", name="w", listen=["127.0.0.1", 0], target=list(server.getsockname()))
        with dial(place) as client:
            peer, _ = server.accept()
            client.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            peer.sendall(b"terminated")
            peer.close()
            assert exactly(client, 10) == b"terminated"
            assert client.recv(1) == b""


def test_slow_is_slow_and_in_order(control, place):
    data = os.urandom(20_000)
    with dial(place) as client:
        control.ask("shape", name="r", delay=0.1, rate=100_000.0)
        began = time.monotonic()
        client.sendall(data)
        assert exactly(client, len(data)) == data
        assert time.monotonic() - began >= 0.2 + len(data) / 100_000.0
        control.ask("shape", name="r")
        client.sendall(b"fast")
        assert exactly(client, 4) == b"fast"


def test_unix_sockets_are_relayed_too(control, echo, tmp_path):
    path = str(tmp_path / "s")
    control.ask("open", name="u", listen=[path, 0], target=list(echo.place))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.settimeout(30)
        client.sendall(b"x")
        assert exactly(client, 1) == b"x"
    control.ask("close", name="u")
    assert not Path(path).exists()


def test_a_route_can_be_led_elsewhere(control, echo, place):
    other = Echo()
    control.ask("open", name="r", listen=list(place), target=list(other.place))
    with dial(place) as client:
        client.sendall(b"x")
        assert exactly(client, 1) == b"x"
    assert len(other.peers) == 1
    other.stop()


def test_an_address_that_is_taken_is_an_error(control, echo):
    with pytest.raises(OSError, match="Address already in use"):
        control.ask("open", name="x", listen=list(echo.place), target=list(echo.place))


def test_many_connections_and_no_thread(control, place):
    clients = [dial(place) for _ in range(200)]
    for client in clients:
        client.sendall(b"x")
    for client in clients:
        assert exactly(client, 1) == b"x"
    if sys.platform == "linux":
        status = Path(f"/proc/{control.process.pid}/status").read_text(encoding="utf-8")
        assert "Threads:\t1\n" in status
    for client in clients:
        client.close()
    eventually(lambda: control.ask("count") == {"r": 0})


def test_it_imports_neither_the_package_above_nor_asyncio():
    """It starts with every cluster that has faults."""
    code = (
        f"import runpy, sys; runpy.run_path({str(MAIN)!r})['prepare'](); import aurora_router_cluster.faults.relay; "
        "print(*sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "aurora_router_cluster.faults.links" in loaded
    assert not {"asyncio", "aurora_router_cluster.client.cluster", "aurora_router_cluster.errors"} & set(loaded)
