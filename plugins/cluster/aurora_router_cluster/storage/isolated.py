"""Storage nodes in processes of their own on this machine: each can be killed as a machine can be lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import limits
from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.core.errors import NodeUnavailable
from aurora_router_cluster.storage.remote import RemoteNode
from aurora_router_cluster.storage.scrubbing import scrub
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aurora_router_cluster.storage.protocols import NodeHandle
    from aurora_router_cluster.storage.scrubbing import ScrubReport

START_SECONDS = 30.0
POLL_SECONDS = 0.01
LOOK_SECONDS = 0.5
HUNG_SECONDS = 2.0
"""A process that is to be started, runs, and cannot be spoken to for so long hangs."""
PACKAGES = Path(__file__).parents[2]


class IsolatedNode(RemoteNode):
    """A node of a process of its own: what `local.LocalNode` is, behind a loopback socket.

    Args:
        node: its number.
        zone: availability zone, e.g. ``eu-test-1a``.
        directory: of its journal; what it prints goes to ``log`` there.
        secret: the cluster's.
        sync: whether its disk is synced.
        up_again: called with the number each time that it can be reached again.
    """

    def __init__(
        self,
        node: int,
        zone: str,
        directory: Path,
        secret: str,
        *,
        sync: bool = True,
        up_again: Callable[[int], None] = lambda _node: None,
    ) -> None:
        super().__init__(node, secret, up_again)
        self.zone = zone
        self.directory = directory
        self._sync = sync
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._starting = asyncio.Lock()

    @property
    def up(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def lost(self) -> bool:
        """Whether it was started and not stopped, and has no process: that ended, perhaps before it answered."""
        return self._wanted and not self.up

    @property
    def pid(self) -> int | None:
        """Its process id; None: it is down."""
        return self._process.pid if self._process is not None and self.up else None

    async def start(self) -> None:
        """Start its process over the files that are there; returns when it answers. One that hangs is replaced.

        Raises:
            NodeUnavailable: it ended, or did not answer in time; with what it said. It is `lost` then.
        """
        self._wanted = True
        async with self._starting:
            if self.up and await self._answers():
                return
            await self._end()
            if not self._wanted:
                raise NodeUnavailable(f"node {self.node} in {self.zone} was taken down while it started")
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                with socket.create_server(("127.0.0.1", 0)) as listening:
                    address = listening.getsockname()
                    self._process = self._spawn(listening.fileno())
            except OSError as error:
                raise NodeUnavailable(f"node {self.node} in {self.zone} did not start: {error}") from error
            self.connect(*address)
            await self._await_ready()

    async def _answers(self) -> bool:
        """Whether its process can be spoken to, at once or soon."""
        try:
            await wait_at_most(HUNG_SECONDS, self.wait_connected())
        except asyncio.TimeoutError:
            return False
        return True

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        words = ["--node", str(self.node), "--directory", str(self.directory), "--listen-fd", str(descriptor)]
        command = [
            sys.executable, "-S", "-m", "aurora_router_cluster.storage.nodeserver", *words,
            "--parent", str(os.getpid()), *([] if self._sync else ["--no-sync"]),
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(PACKAGES)},
                pass_fds=[descriptor],
                start_new_session=True,
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it may have ended already, and said why
            pipe.write(f"{self.secret}\n".encode())
        return process

    async def _await_ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS
        while not self.connected:
            if not self.up or loop.time() > deadline:
                status = self._process.poll() if self._process is not None else None
                said = self._last_words()
                if status is not None and (status < 0 or not said):
                    said = limits.explain_status(status, said)
                await self._end()
                raise NodeUnavailable(f"node {self.node} in {self.zone} did not start: {said or 'it said nothing'}")
            await asyncio.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        text = (self.directory / "log").read_text(encoding="utf-8", errors="replace")
        return "; ".join(text.splitlines()[-3:])

    async def stop(self) -> None:
        """Take it down as the loss of its machine would: SIGKILL, no last word."""
        self._wanted = False
        await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        await self.disconnect()
        if process is not None:
            await asyncio.to_thread(process.wait)

    async def reopen(self) -> bool:
        """Its process does that by itself, and is reached again afterwards."""
        return False

    async def look(self) -> None:
        """Ask how it is, so that `describe` is fresh; a node that says nothing is not waited for."""
        if self.connected:
            await asyncio.wait([asyncio.ensure_future(self._look())], timeout=LOOK_SECONDS)

    async def _look(self) -> None:
        try:
            await self.state()
        except Exception:  # noqa: BLE001  # whatever it is, `describe` returns what was known before
            return

    async def scrub(self, peers: Mapping[int, NodeHandle]) -> ScrubReport:
        """Check its disk and refill from `peers` what is damaged; see `scrubbing.scrub`."""
        return await scrub(self, self, peers)

    @property
    def size(self) -> int:
        """Bytes of its files on disk."""
        return sum(path.stat().st_size for path in self.directory.glob("*.frames"))

    def groups(self) -> dict[int, int]:
        """Protection group -> SCL, in bytes, as last known."""
        return dict(self.scls)

    def describe(self) -> dict[str, Any]:
        """What ``status`` shows of it."""
        about: dict[str, Any] = {"node": self.node, "zone": self.zone, "up": self.up and self.connected}
        about |= {"pid": self.pid, "address": self.address, "failure": self.failure}
        if self.last is not None and about["up"]:
            about["epoch"] = self.last.promised
            about["scl"] = format_lsn(max(self.scls.values(), default=self.last.base))
            about["holes"] = self.last.holes
        return about
