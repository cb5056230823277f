"""What a supervisor needs to run a cluster over several hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.hosts.hosts import AgentHosts, Plan
from aurora_router_cluster.hosts.nameserver import RemoteDns
from aurora_router_cluster.hosts.volume import HostedVolume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.control.directory import Directory
    from aurora_router_cluster.options import ClusterOptions
    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries

PORT = 5432


@dataclass(frozen=True, slots=True)
class Spread:
    """The hosts of one cluster.

    Attributes:
        plan: which there are.
        hosts: those of the instances.
    """

    plan: Plan
    hosts: AgentHosts

    @classmethod
    def over(cls, remote: Mapping[str, Any], port: int | None) -> Spread:
        """Read the options `remote` and `port` of a cluster.

        Raises:
            RequestError: see `Plan.from_options`.
        """
        plan = Plan.from_options(remote)
        return cls(plan, AgentHosts(plan, port or PORT))

    def volume(self, found: Binaries, account: Account, directory: Path, options: ClusterOptions) -> HostedVolume:
        """The volume over the plan's storage nodes."""
        return HostedVolume(
            found,
            account,
            directory,
            self.plan,
            self.hosts,
            group_bytes=options.segment_size,
            retention=options.retention,
        )

    def name_server(self, directory: Directory) -> RemoteDns | None:
        """The name server on its own host, which gets every change; None: the plan has none."""
        if self.plan.name_server is None:
            return None
        server = RemoteDns(directory.picture, self.plan.name_server, self.plan.secret)
        directory.published = server.send_zone
        return server
