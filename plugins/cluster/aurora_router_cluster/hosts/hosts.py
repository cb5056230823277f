"""The hosts of a cluster: which there are, and which instance is on which."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import AddressInUseError, RequestError
from aurora_router_cluster.hosts.archive import Packer
from aurora_router_cluster.hosts.engine import RemoteEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = "AURORA_ROUTER_SECRET"  # noqa: S105 - the name of a variable
PATIENCE = 60.0
"""Seconds that the hosts may take to come up."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where an agent or a storage node listens, e.g. ``eu-test-1a=10.0.0.4:7432``."""

    zone: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Host:
        """Read ``[ZONE=]ADDRESS:PORT``.

        Raises:
            RequestError: it is not of that form, or the address is a name.
        """
        zone, _, where = text.rpartition("=")
        host, _, port = where.rpartition(":")
        try:
            ipaddress.IPv4Address(host)
            return cls(zone, host, int(port))
        except ValueError:
            raise RequestError(
                f"{text!r} is no host: want ZONE=ADDRESS:PORT such as eu-test-1a=10.0.0.4:7432"
            ) from None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which hosts a cluster is spread over.

    Attributes:
        secret: what all of them know each other by.
        advertise: the control plane's address, where instances read the log.
        instances: hosts of instances; the first one's is the writer to begin with.
        nodes: hosts of storage nodes, at least six; those after are for replacements.
        name_server: host of the name server; None: the control plane is it.
    """

    secret: str
    advertise: str
    instances: tuple[Host, ...]
    nodes: tuple[Host, ...]
    name_server: Host | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Plan:
        """Read `options.ClusterOptions.remote`; the secret is in the environment, ``AURORA_ROUTER_SECRET``.

        Raises:
            RequestError: something is missing or wrong.
        """
        unknown = sorted(set(options) - {"advertise", "instances", "nodes", "name_server"})
        if unknown:
            raise RequestError(
                f"remote: there is no {', '.join(unknown)}; there are advertise, instances, nodes, name_server"
            )
        secret = os.environ.get(SECRET, "")
        if not secret or not secret.isascii() or not secret.isprintable():
            raise RequestError(f"set {SECRET} to the secret of the cluster's hosts: printable ASCII")
        instances = tuple(Host.parse(text) for text in options.get("instances", ()))
        nodes = tuple(Host.parse(text) for text in options.get("nodes", ()))
        if not instances or len(nodes) < 6:
            raise RequestError(f"remote: {len(instances)} instances and {len(nodes)} nodes; want 1 and 6 at least")
        if not all(host.zone for host in (*instances, *nodes)):
            raise RequestError("remote: each host of an instance or a node needs its zone: ZONE=ADDRESS:PORT")
        server = options.get("name_server")
        return cls(
            secret, str(options.get("advertise", "127.0.0.1")), instances, nodes, Host.parse(server) if server else None
        )

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones of the instances and nodes, each once."""
        return tuple(dict.fromkeys(host.zone for host in (*self.instances, *self.nodes)))


class AgentHosts:
    """`control.hosting.Hosts`: the hosts of a plan.

    Args:
        plan: the plan.
        port: port of PostgreSQL on all of them.
    """

    def __init__(self, plan: Plan, port: int) -> None:
        cluster, packer = secrets.token_hex(8), Packer()
        self._hosts = [
            (host, RemoteEngine(host.host, host.port, port, plan.secret, cluster, packer)) for host in plan.instances
        ]

    async def start(self, timeout: float = PATIENCE) -> None:
        """Connect to all agents.

        Raises:
            EngineError: one does not answer within `timeout` seconds.
        """
        for _, engine in self._hosts:
            engine.link.start()
        await asyncio.gather(*(engine.link.await_connection(timeout) for _, engine in self._hosts))

    def place(self, name: str, zone: str | None) -> tuple[RemoteEngine, str]:
        """See `control.hosting.Hosts.place`."""
        for host, engine in self._hosts:
            if not engine.used and zone in {None, host.zone}:
                engine.assign(name)
                return engine, host.zone
        where = f" in {zone}" if zone else ""
        raise AddressInUseError(
            f"no host{where} is free for {name}; start the cluster with more, or remove an instance"
        )

    async def close(self) -> None:
        """Disconnect from the agents once they have done what was requested."""
        await asyncio.gather(*(engine.link.close() for _, engine in self._hosts))

    def engine(self, name: str) -> RemoteEngine:
        """The engine of an instance."""
        return next(engine for _, engine in self._hosts if engine.name == name)
