"""One dial of PyMySQL's with a deadline: its own handshake, over a socket that was opened to one address.

PyMySQL reads by a buffered file, whose time limit counts for each read. Until a connection is handed out, its bytes are
read here instead: so the limit is one for all of a dial, and a dial that is not wanted any more ends. The protocol has
the server speak only when it is asked, so that nothing is left unread when the buffered file goes on.
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalOperand=false
# pyright: reportArgumentType=false
# The stubs that pyright brings with it are of an older PyMySQL.

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.constants import CR
from pymysql.err import OperationalError

from aurora_router.flow.runtime import GLANCE_SECONDS
from aurora_router.runtime import sockets
from aurora_router_mysql.arguments import duplicate

if TYPE_CHECKING:
    from pymysql.connections import Connection

    from aurora_router.flow.runtime import Rows, Target, Wanted

STOCK: Any = pymysql.connections.Connection
PIECE = 1 << 16
_OF_DIAL = frozenset({"decoders", "_read_timeout", "_write_timeout", "_read_bytes"})
"""What a dial has otherwise than the connection that it is for."""


class Patience:
    """For how long bytes are waited for: until when, and whether they are still wanted.

    Args:
        seconds: from now on.
        wanted: None: they are, for all of the time.
    """

    def __init__(self, seconds: float, wanted: Wanted | None) -> None:
        self.seconds = seconds
        self.until = time.monotonic() + seconds
        self.wanted = wanted

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.until - time.monotonic())

    def wait(self, fd: int, events: int) -> None:
        """Wait until a descriptor is ready.

        Raises:
            TimeoutError: it is not in time, or what is waited for is not wanted any more.
        """
        while True:
            left = self.left  # what is there when the time is over counts
            glance = left if self.wanted is None else min(left, GLANCE_SECONDS)
            if sockets.wait(fd, events, glance):
                return
            if glance == left or not (self.wanted is None or self.wanted()):
                raise self.over()

    def over(self) -> TimeoutError:
        """The error for a wait that took too long."""
        return TimeoutError(errno.ETIMEDOUT, f"timed out after {self.seconds:.1f} s")


class Dial:
    """A connection that is being made, and asked, before it is handed out.

    Args:
        wanted: the connection that is to be placed.
        target: where the dial leads: one address.
        own: the names of what is that connection's own, and no part of a session.

    Attributes:
        connection: a copy of the connection, with a session.
    """

    def __init__(self, wanted: Connection[Any], target: Target, own: frozenset[str]) -> None:
        self.connection: Any = duplicate(wanted)
        for name in own:
            vars(self.connection).pop(name, None)
        self.connection.decoders = {}
        self.connection._read_bytes = self._read
        self.target = target
        self._patience = Patience(0.0, None)
        self._received = bytearray()

    def open(self, seconds: float) -> None:
        """Connect.

        Raises:
            pymysql.err.Error: it failed, as PyMySQL says it.
        """
        target, connection = self.target, self.connection
        patience = self._patience = Patience(seconds, target.wanted)
        connection._read_timeout = connection._write_timeout = seconds
        if target.host is not None:
            connection.host = target.host
        if target.port is not None:
            connection.port = target.port
        try:
            sock = open_socket(target, patience, connection.bind_address)
        except OSError as error:
            raise new_connect_error(target, error) from error
        is_local = sock.family == socket.AF_UNIX
        remote = f"socket {connection.host}:{connection.port}"
        connection.host_info = "Localhost via UNIX socket" if is_local else remote
        connection._secure = is_local
        STOCK.connect(connection, sock)

    def ask(self, sql: str, seconds: float, wanted: Wanted | None) -> Rows:
        """Send one service query; the rows are text.

        Raises:
            pymysql.err.Error: the server refused it, or the connection broke.
            OSError: it broke, or the time is over.
        """
        self._patience, connection = Patience(seconds, wanted), self.connection
        STOCK.query(connection, sql)
        rows = connection._result.rows or ()
        return [tuple(None if value is None else _text(value) for value in row) for row in rows]

    def _read(self, count: int) -> bytes:
        """Read exactly so many bytes, in the place of PyMySQL's `_read_bytes`.

        Raises:
            OperationalError: the server has closed the connection.
            OSError: it broke, or the time is over.
        """
        received, sock, patience = self._received, self.connection._sock, self._patience
        while len(received) < count:
            left = patience.left
            glance = left if patience.wanted is None else min(left, GLANCE_SECONDS)
            sock.settimeout(max(0.001, glance))
            try:
                piece = sock.recv(PIECE)
            except TimeoutError:
                if glance == left or not (patience.wanted is None or patience.wanted()):
                    raise patience.over() from None
                continue
            if not piece:
                self.connection._force_close()
                raise OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
            received += piece
        found = bytes(received[:count])
        del received[:count]
        return found

    def hand_over(self, to: Connection[Any], own: frozenset[str]) -> None:
        """Give the session to the connection that it is for, which keeps what is its `own`."""
        assert not self._received, "a server sends nothing that was not asked for"
        kept = own | _OF_DIAL
        state = {name: value for name, value in vars(self.connection).items() if name not in kept}
        self.connection._sock = self.connection._rfile = None
        self.connection.__dict__.pop("_read_bytes", None)
        vars(to).update(state)

    def close(self) -> None:
        """Close it, if it is open."""
        self.connection.__dict__.pop("_read_bytes", None)
        if self.connection._sock is not None:
            STOCK.close(self.connection)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def new_connect_error(target: Target, error: OSError) -> OperationalError:
    """The error that PyMySQL raises for one of the system's."""
    where = target.host or target.name
    made = OperationalError(CR.CR_CONN_HOST_ERROR, f"Can't connect to MySQL server on {where!r} ({error})")
    made.original_exception = error
    return made


def open_socket(target: Target, patience: Patience, bind_address: str | None = None) -> socket.socket:
    """Open a socket to the one address of a target.

    Raises:
        OSError: it failed, or the time is over.
    """
    if not target.addresses:
        path = target.host or ""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place: Any = path
    else:
        address = target.addresses[0]
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        place = (address, target.port or 3306)
    try:
        if target.addresses:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if bind_address is not None:
                sock.bind((bind_address, 0))
        sock.settimeout(0.0)
        code = sock.connect_ex(place)
        if code in {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR}:
            patience.wait(sock.fileno(), select.POLLOUT)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))  # noqa: TRY301 - the socket is closed below
        sock.settimeout(max(0.001, patience.left))
    except BaseException:
        sock.close()
        raise
    return sock
