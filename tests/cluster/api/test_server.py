"""HTTP: what a client may send, and what it gets."""

from __future__ import annotations

import http.client
import socket

import pytest

pytest.importorskip("botocore")

from aurora_router_cluster.api import server as module
from aurora_router_cluster.api.server import LONGEST_BODY, ApiServer
from aurora_router_cluster.api.service import Response
from aurora_router_cluster.errors import AddressInUseError


class Echo:
    """Answers with what arrived."""

    def respond(self, request):
        self.request = request
        return Response(200, b"<body/>", "4711")


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def server(echo):
    server = ApiServer(echo, "127.0.0.1", 0)
    server.start()
    yield server
    server.close()


@pytest.fixture
def connection(server):
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    yield connection
    connection.close()


def test_a_connection_serves_many_requests(connection, echo):
    for number in range(3):
        connection.request("POST", f"/?a={number}", b"body", {"X-Twice": "1"})
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.getheader("x-amzn-RequestId")) == (200, b"<body/>", "4711")
        request = echo.request
        assert (request.method, request.path, request.query, request.body) == ("POST", "/", f"a={number}", b"body")
        assert request.headers["x-twice"] == "1"


def test_a_header_that_is_given_twice_is_joined(connection, echo):
    connection.putrequest("GET", "/")
    for value in ("1", "2"):
        connection.putheader("X-Twice", value)
    connection.endheaders()
    connection.getresponse().read()
    assert echo.request.headers["x-twice"] == "1,2"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Content-Length", str(LONGEST_BODY + 1), 413),
        ("Content-Length", "-1", 411),
        ("Content-Length", "many", 411),
        ("Transfer-Encoding", "chunked", 411),
    ],
)
def test_a_body_that_is_not_read_ends_the_connection(connection, name, value, status):
    connection.putrequest("POST", "/")
    connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    assert answer.status == status
    assert answer.will_close


def test_too_many_connections_are_closed_and_the_others_go_on(monkeypatch, echo):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 2)
    server = ApiServer(echo, "127.0.0.1", 0)
    server.start()
    try:
        kept = [http.client.HTTPConnection(*server.server_address, timeout=30) for _ in range(2)]
        for one in kept:
            one.request("GET", "/")
            one.getresponse().read()
        with socket.create_connection(server.server_address, timeout=30) as third:
            assert third.recv(1) == b""
        for one in kept:
            one.request("GET", "/")
            assert one.getresponse().read() == b"<body/>"
            one.close()
    finally:
        server.close()


def test_a_port_that_is_taken_is_named(server, echo):
    port = server.server_address[1]
    with pytest.raises(AddressInUseError, match=f"cannot listen on 127.0.0.1, port {port}"):
        ApiServer(echo, "127.0.0.1", port)
