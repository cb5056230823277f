"""Sessions of the monitor's: MySQL's protocol on its event loop, for service queries alone.

PyMySQL blocks, and the monitor has one thread for all clusters: a server that hangs would stop it. So its own sessions
are spoken here, as far as it needs them: the handshake, TLS, the authentication that a user's connection has passed
just before, and statements with rows of text. What a connection of PyMySQL's was given (user, password, TLS context,
character set) and PyMySQL's functions for passwords and packets are used as they are.

Sources: MySQL and MariaDB documentation, "Client/Server Protocol", "Connection Phase", "COM_QUERY Response".
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalOperand=false
# pyright: reportArgumentType=false
# The stubs that pyright brings with it are of an older PyMySQL.

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from pymysql import _auth
from pymysql.charset import charset_by_name
from pymysql.constants import CLIENT, COMMAND, CR
from pymysql.err import InternalError, OperationalError, raise_mysql_exception
from pymysql.protocol import MysqlPacket

from aurora_router.runtime import sockets
from aurora_router.runtime.loop_monitoring import note_bytes
from aurora_router_mysql.dial import new_connect_error

if TYPE_CHECKING:
    from pymysql.connections import Connection

    from aurora_router.flow.runtime import Rows, Target

SESSION_NAME = "aurora-router monitor"
"""``program_name`` of the monitor's sessions, in ``performance_schema.session_connect_attrs``."""
_OK, _EXTRA, _LOCAL_INFILE, _SWITCH, _ERROR = 0x00, 0x01, 0xFB, 0xFE, 0xFF
_WANTED = CLIENT.CAPABILITIES & ~(CLIENT.MULTI_STATEMENTS | CLIENT.LOCAL_FILES)
_MOST = 0xFFFFFF
_FAST, _FULL, _KEY = 3, 4, b"\x02"
"""Of caching_sha2_password: the cache knew the password; it did not; the request for the server's public key."""


class Session:
    """One session with one server. Use `open_session`.

    Attributes:
        target: where it leads.
        fd: the descriptor of its socket.
        thread_id: the number of the server's thread, as reported in its greeting.
    """

    def __init__(self, target: Target, sock: socket.socket, template: Connection[Any]) -> None:
        self.target = target
        self.thread_id = 0
        self.fd = sock.fileno()
        self._raw = sock
        self._template: Any = template
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._sequence = 0
        self._secure = sock.family == socket.AF_UNIX
        self._password: bytes = self._template.password

    # ------------------------------------------------------------ packets

    async def _read_exactly(self, count: int) -> bytes:
        if self._streams is not None:
            return await self._streams[0].readexactly(count)
        loop, found = asyncio.get_running_loop(), bytearray()
        while len(found) < count:
            piece = await loop.sock_recv(self._raw, count - len(found))
            if not piece:
                raise asyncio.IncompleteReadError(bytes(found), count)
            found += piece
        return bytes(found)

    async def _read_packet(self) -> bytes:
        """The payload of the next packet.

        Raises:
            pymysql.err.Error: it is an error of the server's.
            OperationalError: the server has closed the connection.
        """
        payload = bytearray()
        while True:
            head = await self._read_exactly(4)
            length = int.from_bytes(head[:3], "little")
            self._sequence = (head[3] + 1) % 256
            payload += await self._read_exactly(length)
            if length < _MOST:
                break
        if payload[:1] == b"\xff":
            raise_mysql_exception(bytes(payload))
        return bytes(payload)

    async def _send(self, payload: bytes) -> None:
        data = struct.pack("<I", len(payload))[:3] + bytes([self._sequence]) + payload
        self._sequence = (self._sequence + 1) % 256
        if self._streams is not None:
            self._streams[1].write(data)
            await self._streams[1].drain()
        else:
            await asyncio.get_running_loop().sock_sendall(self._raw, data)

    # ------------------------------------------------------------ the handshake

    async def log_in(self, began: float) -> None:
        """Do the handshake; `began`: when the dial did, for what is noted of the server's first bytes.

        Raises:
            pymysql.err.Error: the server refuses, or the password is of a kind that is not served here.
            OSError: the connection broke, or is none of TLS.
        """
        greeting = await self._read_packet()
        if self.target.addresses and self.target.port:
            note_bytes((self.target.addresses[0], self.target.port), time.monotonic(), began)
        template, offered, plugin, salt = self._template, *self._read_greeting(greeting)
        flags = _WANTED | CLIENT.PLUGIN_AUTH | (CLIENT.CONNECT_WITH_DB if template.db else 0)
        flags &= offered | CLIENT.SECURE_CONNECTION
        start = struct.pack("<iB23s", flags, charset_by_name(template.charset).id, b"")
        head = struct.pack("<i", flags) + struct.pack("<I", _MOST) + start[4:]
        if template.ssl and offered & CLIENT.SSL:
            flags |= CLIENT.SSL
            head = struct.pack("<I", flags) + head[4:]
            await self._send(head)
            host = template.host if self.target.host is None else self.target.host
            await self._begin_streams(ssl=template.ctx, server_hostname=host)
            self._secure = True
        elif template.ssl and template._ssl_required:
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, "SSL is required but the server doesn't support it")
        else:
            await self._begin_streams()
        await self._send(head + self._identify(flags, offered, plugin, salt))
        await self._authenticate(plugin, salt)

    async def _begin_streams(self, **tls: Any) -> None:
        self._streams = await asyncio.open_connection(sock=self._raw, **tls)

    def _read_greeting(self, data: bytes) -> tuple[int, bytes, bytes]:
        """The server's capabilities, the plugin that it names, and the salt."""
        if data[0] != 10:
            raise InternalError(f"the server speaks version {data[0]} of the protocol, and not 10")
        at = data.index(b"\0", 1) + 1
        (self.thread_id,) = struct.unpack_from("<I", data, at)
        salt = data[at + 4 : at + 12]
        offered = struct.unpack_from("<H", data, at + 13)[0] | struct.unpack_from("<H", data, at + 18)[0] << 16
        more = max(13, data[at + 20] - 8)
        salt += data[at + 31 : at + 31 + more].rstrip(b"\0")
        plugin = data[at + 31 + more :].rstrip(b"\0") if offered & CLIENT.PLUGIN_AUTH else b""
        return offered, plugin or b"mysql_native_password", salt

    def _identify(self, flags: int, offered: int, plugin: bytes, salt: bytes) -> bytes:
        """What follows the flags in the answer to the greeting: user, first answer to the salt, database, plugin."""
        template = self._template
        user = template.user.encode(template.encoding) if isinstance(template.user, str) else template.user
        answer = self._answer_salt(plugin, salt) if plugin in _BY_SALT else b""
        data = user + b"\0" + bytes([len(answer)]) + answer
        if flags & CLIENT.CONNECT_WITH_DB:
            name = template.db.encode(template.encoding) if isinstance(template.db, str) else template.db
            data += name + b"\0"
        data += (plugin if plugin in _BY_SALT else b"mysql_native_password") + b"\0"
        if offered & flags & CLIENT.CONNECT_ATTRS:
            pairs = {"_client_name": "pymysql", "_pid": str(os.getpid()), "program_name": SESSION_NAME}
            packed = b"".join(_with_length(text.encode()) for pair in pairs.items() for text in pair)
            data += _with_length(packed)
        return data

    async def _authenticate(self, plugin: bytes, salt: bytes) -> None:
        while True:
            packet = await self._read_packet()
            if packet[0] == _OK:
                return
            if packet[0] == _SWITCH:
                plugin, _, salt = packet[1:].partition(b"\0")
                salt = salt.removesuffix(b"\0")
                await self._send(await self._first_answer(plugin, salt))
            elif packet[0] == _EXTRA and plugin == b"caching_sha2_password":
                if packet[1] == _FULL:
                    await self._send_whole_password(_KEY, salt)
            elif packet[0] == _EXTRA and plugin == b"sha256_password":
                await self._send(_auth.sha2_rsa_encrypt(self._password, salt, packet[1:]))
            else:
                raise OperationalError(CR.CR_AUTH_PLUGIN_ERR, f"unexpected answer during authentication ({plugin!r})")

    async def _first_answer(self, plugin: bytes, salt: bytes) -> bytes:
        if plugin in _BY_SALT:
            return self._answer_salt(plugin, salt)
        if plugin == b"client_ed25519":
            answer: bytes = _auth.ed25519_password(self._password, salt)
            return answer
        if plugin == b"mysql_clear_password" or (plugin == b"sha256_password" and self._secure):
            return self._password + b"\0"
        if plugin == b"sha256_password":
            return b"\1" if self._password else b"\0"
        name = plugin.decode(errors="replace")
        raise OperationalError(
            CR.CR_AUTH_PLUGIN_CANNOT_LOAD, f"the monitor does not speak the authentication plugin {name!r}"
        )

    def _answer_salt(self, plugin: bytes, salt: bytes) -> bytes:
        answer: bytes = _BY_SALT[plugin](self._password, salt) if self._password else b""
        return answer

    async def _send_whole_password(self, request: bytes, salt: bytes) -> None:
        """Send the password itself: as it is where no one can read it, else encrypted for the server alone."""
        if self._secure:
            await self._send(self._password + b"\0")
            return
        key = self._template.server_public_key
        if key is None:
            await self._send(request)
            key = (await self._read_packet())[1:]
        await self._send(_auth.sha2_rsa_encrypt(self._password, salt, key))

    # ------------------------------------------------------------ statements

    async def query(self, sql: str) -> Rows:
        """Send one statement; the rows are text.

        Raises:
            pymysql.err.Error: the server refused it, or the connection broke.
        """
        try:
            self._sequence = 0
            await self._send(bytes([COMMAND.COM_QUERY]) + sql.encode())
            head = await self._read_packet()
            if head[0] in {_OK, _LOCAL_INFILE}:
                return []
            columns = MysqlPacket(head, "utf8").read_length_encoded_integer()
            for _ in range(columns + 1):  # and the packet that ends them
                await self._read_packet()
            rows: Rows = []
            while True:
                packet = await self._read_packet()
                if packet[0] == _SWITCH and len(packet) < 9:
                    return rows
                reader = MysqlPacket(packet, "utf8")
                cells = [reader.read_length_coded_string() for _ in range(columns)]
                rows.append(tuple(None if each is None else each.decode(errors="replace") for each in cells))
        except (OSError, EOFError) as error:
            raise OperationalError(
                CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({error})"
            ) from None

    async def close(self) -> None:
        """Say that it ends, and close it; never waits."""
        if self._streams is not None and not self._streams[1].is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                self._streams[1].write(b"\1\0\0\0" + bytes([COMMAND.COM_QUIT]))
        self.drop()

    def drop(self) -> None:
        """Close it at once."""
        if self._streams is not None:
            self._streams[1].transport.abort()  # what was written is sent; `close` would wait for the end of TLS
        else:
            self._raw.close()

    def ends(self) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """This end and the other end; None: a local socket."""
        return sockets.ends_of(self.fd)


def _with_length(text: bytes) -> bytes:
    """A text with its length in front; up to 65,535 bytes."""
    return (bytes([len(text)]) if len(text) < 251 else b"\xfc" + struct.pack("<H", len(text))) + text


_BY_SALT: dict[bytes, Any] = {
    b"mysql_native_password": _auth.scramble_native_password,
    b"caching_sha2_password": _auth.scramble_caching_sha2,
}
"""The authentication plugins whose first answer follows from password and salt."""


async def open_session(target: Target, template: Connection[Any]) -> Session:
    """Open a session at the one address of a target, as a connection of PyMySQL's would.

    Raises:
        pymysql.err.Error: it failed, in PyMySQL's words.
    """
    began, loop = time.monotonic(), asyncio.get_running_loop()
    session = None
    if target.addresses:
        address: Any = (target.addresses[0], target.port or 3306)
        family = socket.AF_INET6 if ":" in target.addresses[0] else socket.AF_INET
    else:
        address, family = target.host or "", socket.AF_UNIX
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(0.0)
            if target.addresses:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await loop.sock_connect(sock, address)
            session = Session(target, sock, template)
            await session.log_in(began)
        except BaseException:
            if session is None:
                sock.close()
            else:
                session.drop()
            raise
    except asyncio.IncompleteReadError as error:
        lost = ConnectionResetError(errno.ECONNRESET, "the server closed the connection during the handshake")
        raise new_connect_error(target, lost) from error
    except OSError as error:
        raise new_connect_error(target, error) from error
    return session
