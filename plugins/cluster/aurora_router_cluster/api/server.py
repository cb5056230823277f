"""HTTP on loopback: a thread for each connection, which a client keeps open for its next requests."""

from __future__ import annotations

import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

from aurora_router_cluster.api.signature import Request
from aurora_router_cluster.errors import AddressInUseError

if TYPE_CHECKING:
    import socket

    from aurora_router_cluster.api.service import Service

log = logging.getLogger(__name__)

LONGEST_BODY = 1 << 20  # bytes
MOST_CONNECTIONS = 256  # beyond that new ones are closed, for anyone on this machine can make them
IDLE = 60.0  # seconds after which a silent connection is closed


class ApiServer(ThreadingHTTPServer):
    """Serves `service` on an address, from `start` to `close`.

    Args:
        service: answers the requests.
        host: address.
        port: 0 for any free one.

    Raises:
        AddressInUseError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, service: Service, host: str, port: int) -> None:
        self.service = service
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="api")
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise AddressInUseError(f"the RDS API cannot listen on {host}, port {port}: {error.strerror}") from error

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, unless there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's
        """Note that a connection failed: most often a client that went away."""
        log.debug("the connection from %s failed: %r", client_address, sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "aurora-router"
    timeout = IDLE
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        service = cast("ApiServer", self.server).service
        body = self._read_body()
        if body is None:
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            low = name.lower()
            headers[low] = f"{headers[low]},{value}" if low in headers else value
        answer = service.respond(Request(self.command, path, query, headers, body))
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("x-amzn-RequestId", answer.request_id)
        self.end_headers()
        self.wfile.write(answer.body)

    def _read_body(self) -> bytes | None:
        """The body; None: it was refused, and the client knows."""
        length = self.headers.get("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding") or not length.isdecimal():
            self.send_error(411, "a body needs a Content-Length")
            return None
        if int(length) > LONGEST_BODY:
            self.send_error(413, f"a body has at most {LONGEST_BODY} bytes")
            return None
        return self.rfile.read(int(length))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        log.debug(format, *args)  # not the default: standard error
