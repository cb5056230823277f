"""The control socket: one JSON object per line in each direction.

Request ``{"command": name, "arguments": {...}}``; answer ``{"result": ...}`` or ``{"error": class, "message": ...}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import errors
from aurora_router_cluster.errors import ClusterError, ClusterNotFoundError, RequestError, SupervisorError
from aurora_router_cluster.rpc.streams import StreamServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

LONGEST_LINE = 1 << 20


class ControlServer(StreamServer):
    """Serves `commands` on the Unix socket `path`; each takes keyword arguments and returns what JSON can hold."""

    def __init__(self, path: Path, commands: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
        super().__init__()
        self._path = path
        self._commands = commands

    async def start(self) -> None:
        """Listen."""
        self._listening = await asyncio.start_unix_server(self.accept, path=str(self._path), limit=LONGEST_LINE)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests."""
        with contextlib.suppress(ConnectionError, asyncio.LimitOverrunError, ValueError):
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return {"result": await self._dispatch(line)}
        except ClusterError as error:
            return {"error": type(error).__name__, "message": str(error)}
        except Exception as error:
            log.exception("a request failed: %s", line)
            return {"error": "SupervisorError", "message": f"the supervisor failed: {type(error).__name__}: {error}"}

    async def _dispatch(self, line: bytes) -> Any:
        try:
            request = json.loads(line)
            name, arguments = request["command"], request.get("arguments", {})
            command = self._commands[name]
        except (ValueError, KeyError, TypeError) as error:
            known = ", ".join(self._commands)
            raise RequestError(f"not a request: {error!r}; commands are {known}") from error
        return await command(**arguments)


def request(path: Path, command: str, arguments: Mapping[str, Any], timeout: float | None) -> Any:
    """Send one request to the supervisor behind the socket `path` and return its result.

    Raises:
        ClusterNotFoundError: no supervisor listens there.
        SupervisorError: the supervisor ended meanwhile, or did not answer within `timeout` seconds.
        ClusterError: whatever the supervisor answered, as its own class.
    """
    message = encode_request(command, arguments)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise ClusterNotFoundError(f"no cluster answers at {path}: {error.strerror or error}") from error
        try:
            connection.sendall(message)
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError:
            raise SupervisorError(f"the supervisor did not answer {command!r} within {timeout:g} s") from None
        except OSError as error:
            raise SupervisorError(f"the supervisor ended while it worked on {command!r}: {error}") from error
    if not line.endswith(b"\n"):
        raise SupervisorError(f"the supervisor ended while it worked on {command!r}")
    return decode_result(line)


def encode_request(command: str, arguments: Mapping[str, Any]) -> bytes:
    """A request as a line."""
    return json.dumps({"command": command, "arguments": dict(arguments)}).encode() + b"\n"


def decode_result(line: bytes | str) -> Any:
    """The result in an answer's line.

    Raises:
        ClusterError: the answer is an error, as its own class.
    """
    answer = json.loads(line)
    if "error" in answer:
        raise errors.by_name(answer["error"])(answer["message"])
    return answer["result"]
