"""The control socket: one JSON object per line in each direction.

Request ``{"command": name, "arguments": {...}}``; answer ``{"result": ...}`` or ``{"error": class, "message": ...}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import shutil
import socket
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import errors, limits
from aurora_router_cluster.control.status import InstanceStatus
from aurora_router_cluster.errors import (
    ClusterError,
    ClusterNotFoundError,
    DirectoryError,
    RequestError,
    SupervisorError,
    explain_os_error,
)
from aurora_router_cluster.rpc.streams import StreamServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

LONGEST_LINE = 1 << 20


class ControlServer(StreamServer):
    """Serves `commands` on the Unix socket `path`; each takes keyword arguments and returns what JSON can hold.

    `directories` hold the cluster's files: an error that names no file is one of theirs.
    """

    def __init__(
        self, path: Path, commands: Mapping[str, Callable[..., Awaitable[Any]]], directories: Sequence[Path] = ()
    ) -> None:
        super().__init__()
        self._path = path
        self._commands = commands
        self._directories = directories

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
            kind, message = explain_failure(error, self._directories)
            return {"error": kind, "message": message}

    async def _dispatch(self, line: bytes) -> Any:
        try:
            request = json.loads(line)
            name, arguments = request["command"], request.get("arguments", {})
            command = self._commands[name]
        except (ValueError, KeyError, TypeError) as error:
            known = ", ".join(self._commands)
            raise RequestError(f"not a request: {error!r}; commands are {known}") from error
        return await command(**arguments)


def explain_failure(error: Exception, directories: Sequence[Path]) -> tuple[str, str]:
    """What is said of a request that failed without a sentence: the class of the error for the client, and a sentence.

    An error of the operating system is none of the supervisor, which goes on. One of a full disk often comes without a
    path, since it is met by a write: then it is the directory without room.
    """
    if gone := [directory for directory in directories if not directory.exists()]:
        return DirectoryError.__name__, (
            f"{gone[0]}, where the cluster's files are kept, is not there any more ({error}): it was moved or deleted "
            "while the cluster runs; put it back, or end the cluster (cluster down)"
        )
    if (limit := limits.explain(error)) is not None:
        return SupervisorError.__name__, f"the request failed, and the cluster goes on: {limit}"
    if not isinstance(error, OSError) or error.errno is None:
        return SupervisorError.__name__, f"the supervisor failed: {type(error).__name__}: {error}"
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return SupervisorError.__name__, f"the request failed, and the cluster goes on: {explain_os_error(error)}"
    if error.filename is not None:
        where = str(error.filename)
    else:
        fullest = min(directories, key=lambda directory: shutil.disk_usage(directory).free, default=None)
        where = str(fullest) if fullest is not None else "one of the cluster's directories"
    return DirectoryError.__name__, (
        f"the request failed, and the cluster goes on: {where}: {error.strerror}; free some room there and try again"
    )


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
    """A request as a line; an instance may stand for its name.

    Raises:
        RequestError: a value that means nothing to a supervisor.
    """

    def as_name(value: object) -> str:
        if isinstance(value, InstanceStatus):
            return value.name
        raise RequestError(f"{command} does not take {value!r}: give the name of an instance, or what `instances` has")

    return json.dumps({"command": command, "arguments": dict(arguments)}, default=as_name).encode() + b"\n"


def decode_result(line: bytes | str) -> Any:
    """The result in an answer's line.

    Raises:
        ClusterError: the answer is an error, as its own class.
    """
    answer = json.loads(line)
    if "error" in answer:
        raise errors.by_name(answer["error"])(answer["message"])
    return answer["result"]
