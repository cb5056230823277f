"""As much of LDAP as PostgreSQL needs to ask whether a password is right (RFC 4511: a simple bind, its answer, unbind).

PostgreSQL's method ``ldap`` sends name and password of a user who logs in to a server of our choice, so an unmodified
PostgreSQL asks us about tokens. Every message is a sequence of elements: a tag, a length, and so many bytes (BER).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aurora_router_cluster.rpc.streams import StreamServer
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
LONGEST = 1 << 17
"""Bytes of a message; PostgreSQL takes passwords of 64 KiB at most."""
LOGIN_SECONDS = 10.0
"""For which one connection is served: a login sends one request."""
SEQUENCE, INTEGER, TEXT, ENUMERATED, BIND, BIND_ANSWER, SIMPLE = 0x30, 0x02, 0x04, 0x0A, 0x60, 0x61, 0x80
SUCCESS, INVALID_CREDENTIALS = 0, 49


def encode(tag: int, content: bytes) -> bytes:
    """One element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def decode(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what follows it.

    Raises:
        ValueError: it is cut short.
    """
    if len(data) < 2:
        raise ValueError("an element is cut short")
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise ValueError("an element is cut short")
    return tag, data[start : start + size], data[start + size :]


def parse_bind(message: bytes) -> tuple[bytes, str, str] | None:
    """Message id, name and password of a simple bind; None: it asks for something else.

    Raises:
        ValueError: it is malformed.
    """
    _, number, rest = decode(message)
    operation, content, _ = decode(rest)
    if operation != BIND:
        return None
    _, _, rest = decode(content)  # the protocol's version
    _, name, rest = decode(rest)
    method, password, _ = decode(rest)
    return (number, name.decode(), password.decode()) if method == SIMPLE else None


def answer_bind(number: bytes, code: int, text: str) -> bytes:
    """The answer to a bind."""
    result = encode(ENUMERATED, bytes([code])) + encode(TEXT, b"") + encode(TEXT, text.encode())
    return encode(SEQUENCE, encode(INTEGER, number) + encode(BIND_ANSWER, result))


class LdapServer(StreamServer):
    """Answers binds on a loopback port.

    Args:
        judge: called with name and password; returns why they are rejected, or None.
    """

    def __init__(self, judge: Callable[[str, str], str | None]) -> None:
        super().__init__()
        self._judge = judge
        self.port = 0

    async def start(self) -> None:
        """Listen on any free port."""
        server = self._listening = await asyncio.start_server(self.accept, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the binds of one client, for `LOGIN_SECONDS` at most."""
        with contextlib.suppress(asyncio.TimeoutError, asyncio.IncompleteReadError, OSError, ValueError):
            await wait_at_most(LOGIN_SECONDS, self._answer_binds(reader, writer))

    async def _answer_binds(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (bind := parse_bind(await _read_message(reader))) is not None:
            number, name, password = bind
            why = self._judge(name, password)
            code = SUCCESS if why is None else INVALID_CREDENTIALS
            writer.write(answer_bind(number, code, why or ""))
            await writer.drain()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """The content of the next message.

    Raises:
        ValueError: it is too long, or none.
        IncompleteReadError: there is none.
    """
    tag, size = await reader.readexactly(2)
    if size & 0x80:
        size = int.from_bytes(await reader.readexactly(size & 0x7F), "big")
    if tag != SEQUENCE or size > LONGEST:
        raise ValueError("no LDAP message")
    return await reader.readexactly(size)
