"""What the monitor hears of a server while it dials it: its bytes, and not that its kernel accepts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import psycopg
import pytest

from aurora_router.flow.runtime import Target
from aurora_router.runtime.monitor_runtime import ThreadMonitorRuntime, _Own


def answer(server, text):
    """Answer the question for TLS, and say no more until the client has gone."""
    with contextlib.suppress(OSError):
        client, _ = server.accept()
        with client:
            client.settimeout(4.0)  # a dial that was given up may be closed late
            client.recv(8)
            client.sendall(text)
            while client.recv(100):
                pass


def refuse(server):
    """Answer the question for TLS, and end the connection."""
    client, _ = server.accept()
    with client:
        client.recv(8)
        client.sendall(b"N")


def dial(port, seconds):
    async def go():
        params = {"host": "127.0.0.1", "port": port, "user": "app", "dbname": "app", "gssencmode": "disable"}
        await asyncio.wait_for(_Own.connect("", **params), seconds)

    with pytest.raises((asyncio.TimeoutError, psycopg.OperationalError)):
        asyncio.run(go())


def heard_at(port):
    return ThreadMonitorRuntime.dial_heard_at(None, Target("demo-1", "demo-1", port, ("127.0.0.1",)))


def test_a_server_that_is_accepted_for_by_its_kernel_alone_is_not_heard():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        dial(port, 0.5)
        assert heard_at(port) is None


def test_a_server_that_answers_and_does_not_log_in_is_heard():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=[server, b"N"])
        thread.start()
        port, began = server.getsockname()[1], time.monotonic()
        dial(port, 3.0)
        thread.join()
        found = heard_at(port)
        assert found is not None
        assert began <= found <= time.monotonic()


def test_how_long_a_first_byte_was_waited_for_is_remembered():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        target = Target("demo-1", "demo-1", port, ("127.0.0.1",))
        assert ThreadMonitorRuntime.dial_silence(None, target) is None
        for delay in (1.0, 0.3, 0.6):
            thread = threading.Timer(delay, refuse, args=[server])
            thread.start()
            dial(port, 3.0)
            thread.join()
        assert 0.25 <= ThreadMonitorRuntime.dial_silence(None, target) < 0.6, "the least of them"


def test_a_socket_of_files_is_not_heard():
    assert ThreadMonitorRuntime.dial_heard_at(None, Target("demo-1", "/tmp", None)) is None
