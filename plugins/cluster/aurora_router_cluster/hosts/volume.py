"""The quorum volume of a cluster over several hosts: nodes at given addresses, copies sent to where instances run."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from aurora_router_cluster.hosts.node import HostedNode
from aurora_router_cluster.postgres import settings, template
from aurora_router_cluster.storage.bases import copy_base
from aurora_router_cluster.storage.history import RETENTION
from aurora_router_cluster.storage.quorum import QuorumVolume

if TYPE_CHECKING:
    from pathlib import Path

    from aurora_router_cluster.hosts.hosts import AgentHosts, Plan
    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries
    from aurora_router_cluster.postgres.endpoints import EngineAddress


class HostedVolume(QuorumVolume):
    """A `QuorumVolume` over the hosts of `plan`.

    Args:
        binaries: which PostgreSQL.
        account: the user that the servers run as.
        directory: of the base.
        plan: the hosts.
        hosts: those of the instances.
        group_bytes: size of a protection group; None: the volume is one group.
        retention: length of the window that can be gone back to, in seconds.
    """

    compress_from = None
    """Never: a base is packed when it is sent to a host."""
    one_build = False
    """Each host has programs of its own."""

    def __init__(
        self,
        binaries: Binaries,
        account: Account,
        directory: Path,
        plan: Plan,
        hosts: AgentHosts,
        *,
        group_bytes: int | None = None,
        retention: float = RETENTION,
    ) -> None:
        super().__init__(
            binaries,
            account,
            directory,
            group_bytes=group_bytes,
            retention=retention,
            secret=plan.secret,
            listen=plan.advertise,
            hosted=lambda number, up_again: (
                HostedNode(number, plan.nodes[number], directory / f"node-{number}", plan.secret, up_again)
                if number < len(plan.nodes)
                else None
            ),
        )
        self._hosts = hosts
        self._plan = plan

    async def open(self, template: Path) -> Path:
        """See `QuorumVolume.open`; the copies have a superuser's password, which the storage needs from elsewhere."""
        self._directory.mkdir(parents=True, exist_ok=True)
        prepared = self._directory / "template"
        await asyncio.to_thread(self._prepare, template, prepared)
        base = await super().open(prepared)
        await asyncio.to_thread(shutil.rmtree, prepared, ignore_errors=True)
        return base

    def _prepare(self, source: Path, target: Path) -> None:
        copy_base(self._account, source, target)
        password = self._plan.secret.replace("'", "''")
        template.single_user(
            self._binaries, self._account, target, f"ALTER ROLE {settings.SUPERUSER} PASSWORD '{password}'"
        )
        template.keep_redo_segment(self._binaries, self._account, target)

    async def seed(self, reader: EngineAddress, writer: EngineAddress | None) -> None:  # noqa: ARG002  # as above
        """Send the base to the reader's host."""
        async with self._base_lock:
            await self._hosts.engine(reader.name).clone(self.base)
