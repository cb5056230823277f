"""An instance on another host, as the control plane sees it: `control.hosting.AnyEngine` over its agent."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import ClusterError, EngineError
from aurora_router_cluster.hosts.link import HostLink
from aurora_router_cluster.postgres import settings
from aurora_router_cluster.postgres.endpoints import EngineAddress
from aurora_router_cluster.postgres.engine import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aurora_router_cluster.hosts.archive import Packer
    from aurora_router_cluster.postgres.endpoints import RecoveryPoint
    from aurora_router_cluster.rpc.framing import Reply

log = logging.getLogger(__name__)

MARGIN = 5.0  # seconds that an answer may take beyond the deadline that the agent was given
CLONE_SECONDS = 120.0


class RemoteEngine:
    """One host, and the instance that is on it.

    The state of an instance whose agent is silent is unknown: it counts as alive as long as it was when it was
    last heard of, and shows by not answering queries. One whose agent is gone is down, for the agent takes it along.

    Args:
        host: the host's address; the agent and PostgreSQL listen there.
        agent: port of the agent.
        port: port of PostgreSQL.
        secret: the cluster's.
        cluster: what distinguishes this cluster from one that had the host before.
        packer: makes archives of what is sent there.
    """

    here = False

    def __init__(self, host: str, agent: int, port: int, secret: str, cluster: str, packer: Packer) -> None:
        self.name = ""
        self.host, self.port = host, port
        self.home = Path("/nonexistent")
        self.frozen = False
        self.cpu: float | None = None
        self._alive = False
        self._was_writer = True
        self._pid: int | None = None
        self._trouble: ClusterError | None = None
        self._secret, self._cluster, self._packer = secret, cluster, packer
        self.link = HostLink(
            host, agent, secret, introduced=self._assign, reported=self._on_report, lost=self._on_link_change
        )

    @property
    def used(self) -> bool:
        """Whether an instance is placed here."""
        return bool(self.name)

    def assign(self, name: str) -> None:
        """Let the host be that of a new instance."""
        self.name = name
        self._alive, self.frozen, self._was_writer = False, False, True
        self._assign()

    def _assign(self) -> None:
        if self.used:
            facts = {"cluster": self._cluster, "name": self.name, "port": self.port}
            self.link.post("assign", facts).add_done_callback(self._on_assigned)

    def _on_assigned(self, answer: asyncio.Future[Reply]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self.home = Path(answer.result().facts["home"])

    def _on_report(self, report: dict[str, Any]) -> None:
        self._alive, self._pid, self.frozen = report["alive"], report["pid"], report["frozen"]
        self._was_writer, self.cpu = report["was_writer"], report["cpu"]

    def _on_link_change(self, gone: bool) -> None:  # noqa: FBT001  # what `HostLink` reports
        if gone:
            self._alive, self._was_writer, self._pid = False, True, None

    def _post(self, op: str, **facts: Any) -> None:
        def on_done(answer: asyncio.Future[Reply]) -> None:
            error = None if answer.cancelled() else answer.exception()
            if isinstance(error, ClusterError):
                log.log(logging.DEBUG if op == "write_status" else logging.INFO, "%s: %s: %s", self.name, op, error)
                self._trouble = error

        self.link.post(op, facts).add_done_callback(on_done)

    # What it is

    @property
    def data(self) -> Path:
        """Its data directory, on its host."""
        return self.home / "data"

    @property
    def where(self) -> EngineAddress:
        """How the storage reaches it."""
        return EngineAddress(self.name, self.home, self.port, settings.SUPERUSER, self.data, self.host, self._secret)

    @property
    def pid(self) -> int | None:
        """Process id of its postmaster, on its host."""
        return self._pid if self._alive else None

    @property
    def alive(self) -> bool:
        """Whether its postmaster runs, as far as known."""
        return self._alive

    @property
    def was_writer(self) -> bool:
        """Whether its data directory belongs to a writer, or there is none."""
        return self._was_writer

    # The requests; see `control.hosting.AnyEngine`

    def make_home(self) -> None:
        """The agent does."""

    async def clone(self, source: Path) -> None:
        """Send it a copy of `source`.

        Raises:
            EngineError: it did not take it.
        """
        data = await asyncio.to_thread(self._packer.pack, source)
        await self.link.ask("clone", data=data, timeout=CLONE_SECONDS)

    def configure(self, extra: Mapping[str, str], *, standby: bool) -> None:
        """Write the configuration."""
        self._was_writer = not standby
        self._post("configure", extra=dict(extra), standby=standby)

    def follow(self, extra: Mapping[str, str]) -> None:
        """Change the configuration of a running standby."""
        self._post("follow", extra=dict(extra))

    def write_status(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace what ``aurora_replica_status()`` shows."""
        if self.link.connected:
            self._post("write_status", rows=[dict(row) for row in rows])

    def erase(self) -> None:
        """Delete the data directory."""
        self._was_writer = True
        self._post("erase")

    def remove(self) -> None:
        """Delete everything of it; the host is free for another one."""
        self._post("remove")
        self.name, self._alive = "", False

    def start(self) -> None:
        """Start the server."""
        self._trouble = None
        self._alive, self.frozen = self.link.connected, False
        self._post("start")

    async def wait(self, *wanted: State, timeout: float = 30.0) -> State:
        """Wait for a state.

        Raises:
            EngineError: it ended, took longer, or cannot be asked; or an earlier request failed.
        """
        names = [state.value for state in wanted or (State.READY, State.STANDBY)]
        try:
            answer = await self.link.ask("wait", {"wanted": names, "timeout": timeout}, timeout=timeout + MARGIN)
        except EngineError as error:
            if self._trouble is not None:
                raise EngineError(f"{self._trouble}; then {error}") from error
            raise
        return State(answer.facts["state"])

    def reload(self) -> None:
        """Make the server read its configuration again."""
        self._post("reload")

    def leave_out(self, point: RecoveryPoint) -> None:
        """Make a standby that is promoted at `point` leave timelines out."""
        self._post("leave_out", point=asdict(point))

    async def promote(self, timeout: float = 30.0) -> None:
        """Turn a standby into a writer."""
        await self.link.ask("promote", {"timeout": timeout}, timeout=timeout + MARGIN)

    async def stop(self, *, immediate: bool = False, timeout: float = 15.0) -> None:
        """End the server in order; one that cannot be asked is left to its host."""
        facts = {"immediate": immediate, "timeout": timeout}
        try:
            await self.link.ask("stop", facts, timeout=timeout + MARGIN)
        except ClusterError as error:
            log.info("%s was not stopped: %s", self.name, error)

    def kill(self) -> None:
        """SIGKILL to every process of it."""
        if self.link.connected:
            self._alive = self.frozen = False
            self._post("kill")

    def freeze(self) -> None:
        """SIGSTOP to every process of it."""
        self.frozen = self._alive
        self._post("freeze")

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        self._post("thaw")

    def log_tail(self, lines: int = 12) -> str:  # noqa: ARG002  # the agent puts it into what it says went wrong
        """Where to look."""
        return f"(its log is on its host, {self.host}: {self.home / 'log'})"
