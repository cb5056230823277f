"""A TCP relay in front of a PostgreSQL server that cuts a client's COMMIT off at a chosen message boundary."""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import struct
import threading
from collections import Counter


class Cut(enum.Enum):
    """Where the next COMMIT is cut off."""

    BEFORE_SEND = "before COMMIT reaches the server"
    AFTER_SEND = "as soon as COMMIT was passed on"
    AFTER_ACK = "when the server has answered, before the client hears of it"
    SILENT = "before COMMIT reaches the server, which does not learn that the client is gone"
    ANSWERED_FATAL = "as after the answer, and then the relay says FATAL 58000 and stays, as a pooler does"
    ANSWERED_ERROR = "the same with ERROR 58000"
    ANSWERED_CONFLICT = "the same with ERROR 40001"
    STAY = "COMMIT is kept back while the connection stays open, until `let_go`"


ANSWERS = {
    Cut.ANSWERED_FATAL: ("FATAL", "58000"),
    Cut.ANSWERED_ERROR: ("ERROR", "58000"),
    Cut.ANSWERED_CONFLICT: ("ERROR", "40001"),
}
"""Severity and SQLSTATE with which the relay answers for the server that it lost."""


def _is_commit(payload: bytes) -> bool:
    """The last message of a user's transaction; the resolver's own transactions come in one message with BEGIN."""
    return payload.endswith(b"COMMIT\0") and not payload.startswith(b"BEGIN")


class Relay:
    """Listens on a port of 127.0.0.1 and passes everything on to another one."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.done = threading.Event()
        self.choose = lambda: None
        """Asked at each COMMIT where to cut it off, if nothing is armed."""
        self.cuts: Counter[Cut] = Counter()
        self._cut: Cut | None = None
        self._pausing = False
        self._gate = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._closing = False
        self._start(self._accept)

    def arm(self, cut: Cut, *, closing: bool = False) -> None:
        """Cut the next COMMIT off; `done` is set once that has happened. `closing`: and `pause`, in the same moment."""
        self.done.clear()
        self._pausing = closing
        self._gate.clear()
        self._cut = cut

    def let_go(self) -> None:
        """Pass a COMMIT on that was kept back."""
        self._gate.set()

    def pause(self) -> None:
        """Accept no client until `resume`: new connections wait."""
        self._open.clear()

    def resume(self) -> None:
        """Let clients in again."""
        self._open.set()

    def close(self) -> None:
        """Close everything; returns when no thread is left."""
        self._closing = True
        self._gate.set()
        self._open.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            self._end(each)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.wait()
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, EOFError, ValueError):  # ValueError: closed by `close`
                self._pass_startup(client, server)
                self._pass_messages(client, server)
        finally:
            for each in (client, server):
                self._end(each)

    def _pass_startup(self, client: socket.socket, server: socket.socket) -> None:
        head = _exactly(client, 4)
        server.sendall(head + _exactly(client, struct.unpack("!I", head)[0] - 4))

    def _pass_messages(self, client: socket.socket, server: socket.socket) -> None:
        """Both directions in one thread: client's messages whole, the server's bytes as they come."""
        while True:
            readable, _, _ = select.select([client, server], [], [], 1.0)
            if self._closing:
                return
            if server in readable:
                data = server.recv(65536)
                if not data:
                    return
                client.sendall(data)
            if client in readable and not self._pass_message(client, server):
                return

    def _pass_message(self, client: socket.socket, server: socket.socket) -> bool:
        head = _exactly(client, 5)
        payload = _exactly(client, struct.unpack("!I", head[1:])[0] - 4)
        cut = None
        if head[:1] == b"Q" and _is_commit(payload):
            cut = self._cut or self.choose()
        if cut is None:
            server.sendall(head + payload)
            return True
        self.cuts[cut] += 1
        self._cut = None
        if self._pausing:
            self.pause()
        if cut is Cut.STAY:
            self.done.set()
            self._gate.wait()
            server.sendall(head + payload)
            return True
        if cut in {Cut.AFTER_SEND, Cut.AFTER_ACK, *ANSWERS}:
            server.sendall(head + payload)
        if cut in {Cut.AFTER_ACK, *ANSWERS}:
            _until_ready(server)
        if cut in ANSWERS:
            self._end(server)
            client.sendall(_error(*ANSWERS[cut]) + READY)
            self.done.set()
            _exactly(client, 1)  # until the client closes it, or asks what no server is left for
        if cut is Cut.SILENT:
            self._end(client)
            self.done.set()
            _drain(server)
            return False
        self.done.set()
        return False

    def _end(self, each: socket.socket) -> None:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(each)
        each.close()


READY = b"Z" + struct.pack("!ic", 5, b"I")


def _error(severity: str, sqlstate: str) -> bytes:
    fields = f"S{severity}\0V{severity}\0C{sqlstate}\0Mthe server is lost\0\0".encode()
    return b"E" + struct.pack("!i", len(fields) + 4) + fields


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _until_ready(server: socket.socket) -> None:
    """Read whole messages of the server up to ReadyForQuery."""
    while True:
        head = _exactly(server, 5)
        _exactly(server, struct.unpack("!I", head[1:])[0] - 4)
        if head[:1] == b"Z":
            return


def _drain(server: socket.socket) -> None:
    while server.recv(65536):
        pass
