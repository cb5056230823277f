"""The inspection socket: what this process knows, for ``aurora-router watch`` and ``explain --last``.

Theory. With ``AURORA_ROUTER_INSPECT=DIR`` the monitor's thread listens on the Unix socket ``DIR/PID.sock``. It takes no
requests: whatever connects is sent one JSON object, a snapshot, and the connection is closed; nothing that a client
sends is read. So a client can change nothing, and can hold up nothing: answers are written on the monitor's event loop
without blocking, a few at once, each within a second, and one snapshot serves all that come within a tenth of one.

The directory has to be the user's own and writable by no other, else there is no socket; the socket has the mode 0600
from the moment on in which it exists, and where the system reports its peer, a client of another user is sent nothing.

The socket ends with the thread or at exit. The child of a fork closes what it has inherited of it: otherwise the socket
of a dead parent would still accept connections. A socket of a process that was killed stays; clients remove it.
"""

from __future__ import annotations

import _socket
import asyncio
import atexit
import contextlib
import json
import os
import socket
import stat
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router import observe
from aurora_router._version import __version__
from aurora_router.forks import UNREADABLE
from aurora_router.policy.inspection import FORMAT, ConnectRecord, show_cluster
from aurora_router.runtime.credentials import describe_caches
from aurora_router.runtime.greenlet_dispatcher import DISPATCHER
from aurora_router.runtime.registry import INSPECT, REGISTRY
from aurora_router.runtime.timeouts import wait_at_most

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster

ANSWER_SECONDS = 1.0
"""How long one client may take to read an answer."""
MOST_ANSWERS = 8
"""How many clients are answered at once; others are disconnected, and may come again."""
FRESH_SECONDS = 0.1
"""For how long a snapshot serves."""
MODE = 0o600
_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""


class UnsafeDirectory(Exception):
    """Another user could put a socket of its own in the directory, or replace ours."""


def prepare_directory(path: Path) -> Path:
    """Return a directory for sockets, made if it is missing.

    Raises:
        UnsafeDirectory: it is not the user's own, or others may write to it.
        OSError: it cannot be made or read.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectory(f"{path} is no directory (a symbolic link is none)")
    if status.st_uid != os.geteuid():
        raise UnsafeDirectory(f"{path} belongs to the user {status.st_uid}, and this process is {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeDirectory(f"others may write to {path}: chmod 700 {path}")
    return path


class Inspector:
    """The listening socket of one process, served by one event loop.

    Args:
        directory: where the socket is made.
        loop: of the monitor's thread.

    Raises:
        OSError: the socket cannot be made.
    """

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._process = os.getpid()
        self._loop = loop
        self.path = directory / f"{self._process}.sock"
        staged = self.path.with_suffix(".new")
        # Not `socket.socket`, which gevent may have replaced.
        self._listener: Any = _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._answers: dict[asyncio.Task[None], _socket.socket] = {}
        self._snapshot = b""
        self._made_at = float("-inf")
        try:
            self._listener.setblocking(False)  # noqa: FBT003 - the signature is Python's
            with contextlib.suppress(OSError):
                os.fchmod(self._listener.fileno(), MODE)  # Linux: the socket has this mode when it appears
            with contextlib.suppress(FileNotFoundError):
                staged.unlink()  # of a dead process that had the same id
            self._listener.bind(str(staged))
            staged.chmod(MODE)
            self._listener.listen(MOST_ANSWERS)
            staged.replace(self.path)  # clients take a socket that accepts nothing for that of a dead process
        except BaseException:
            self._listener.close()
            raise
        loop.add_reader(self._listener.fileno(), self._accept)
        atexit.register(self.remove)

    def _accept(self) -> None:
        try:
            number, _ = self._listener._accept()  # noqa: SLF001 - its only way to accept
        except OSError:
            return
        client = _socket.socket(fileno=number)
        client.setblocking(False)  # noqa: FBT003
        if len(self._answers) >= MOST_ANSWERS or not _is_own(client):
            client.close()
            return
        task = self._loop.create_task(self._answer(client))
        self._answers[task] = client
        task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Task[None]) -> None:
        self._answers.pop(task).close()

    async def _answer(self, client: Any) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await wait_at_most(ANSWER_SECONDS, self._loop.sock_sendall(client, self._make_snapshot()))

    def _make_snapshot(self) -> bytes:
        if time.monotonic() - self._made_at > FRESH_SECONDS:
            self._snapshot = json.dumps(take_snapshot()).encode()
            self._made_at = time.monotonic()
        return self._snapshot

    def remove(self) -> None:
        """Remove the socket's name; in the child of a fork it is the parent's."""
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def close(self) -> None:
        """End it; its event loop does not run."""
        self.remove()
        atexit.unregister(self.remove)
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for task in self._answers:
            task.cancel()
        if self._answers:
            self._loop.run_until_complete(asyncio.wait(self._answers))

    def forsake(self) -> None:
        """In the child of a fork: close the descriptors, and touch neither the loop nor the name of the socket."""
        self._listener.close()
        for client in self._answers.values():
            client.close()


def _is_own(client: _socket.socket) -> bool:
    """Whether a client is of this user, or root; where the system does not report it, the socket's mode decides."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, user, _ = _CREDENTIALS.unpack(client.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return user in {0, os.geteuid()}


def take_snapshot() -> dict[str, Any]:
    """Return what this process knows, as plain values."""
    now, unix_now = time.monotonic(), time.time()
    return {
        "format": FORMAT,
        "process": os.getpid(),
        "program": Path(sys.argv[0]).name if getattr(sys, "argv", None) else "",
        "driver": __version__,
        "at": round(unix_now, 3),
        "clusters": [
            show_cluster(
                each.name,
                each.state,
                each.loads(each.view.instances),
                _read_connects(each),
                now=now,
                unix_now=unix_now,
            )
            for each in REGISTRY.clusters()
        ],
        "credentials": describe_caches(unix_now),
    }


def _read_connects(cluster: Cluster) -> list[ConnectRecord]:
    connects = () if cluster.connects is None else tuple(cluster.connects)
    return [ConnectRecord(at, each.instance, each.role.value, each.pooled, each.reason) for at, each in connects]


_current: Inspector | None = None


def start(loop: asyncio.AbstractEventLoop) -> Inspector | None:
    """Serve the socket that the environment asks for; None, and a warning: that cannot be done."""
    global _current  # noqa: PLW0603 - for the child of a fork
    wanted = os.environ.get(INSPECT, "")
    try:
        _current = Inspector(prepare_directory(Path(wanted).absolute()), loop)
    except (UnsafeDirectory, *UNREADABLE) as refused:
        text = "%s=%s: this process cannot be inspected: %s"
        DISPATCHER.send(partial(observe.logger.warning, text, INSPECT, wanted, refused))
        return None
    return _current


def _after_fork() -> None:
    global _current  # noqa: PLW0603
    if _current is not None:
        _current.forsake()
        _current = None


os.register_at_fork(after_in_child=_after_fork)
