"""The cluster of containers as the object that a local cluster is: the same tests run on both."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql

from aurora_router.runtime import dns
from aurora_router.runtime.registry import REGISTRY
from aurora_router_cluster.client.running import RunningCluster
from aurora_router_cluster.control import channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.control.status import ClusterStatus, InstanceStatus
    from tests.docker.stack import Stack

T = TypeVar("T")

WHOLE = {"demo-1": "eu-test-1a", "demo-2": "eu-test-1b", "demo-3": "eu-test-1c"}
"""The instances and their zones when nothing is missing; a zone has one host for an instance."""

ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as control:
    control.connect("/run/aurora-router/demo/control.sock")
    control.sendall(sys.stdin.buffer.read())
    print(control.makefile().readline())
"""
"""Run beside the supervisor: a request comes in, the answer goes out."""


class ContainerCluster(RunningCluster):
    """Names by the published name server, which returns the loopback addresses of the instances; faults by docker.

    Args:
        stack: the running compose project.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._heals: dict[str, Callable[[], object]] = {}
        super().__init__()

    def _ask(self, command: str, **arguments: object) -> Any:
        asked = channel.encode_request(command, arguments).decode()
        return channel.decode_result(self._stack.inside("control", "python3", "-c", ASK, input=asked))

    # -- where it is reached

    def status(self) -> ClusterStatus:
        """As the control plane has it, with the addresses and the port that lead to the instances from here."""
        told = super().status()
        seen = (replace(one, host=self._stack.published(one.host), port=self.port) for one in told.instances)
        return replace(told, instances=tuple(seen))

    @property
    def port(self) -> int:
        return self._stack.port

    @property
    def dns(self) -> str:
        return self._stack.name_server

    def inner_conninfo(self, target: str = "writer") -> str:
        """From a container: nothing but the endpoint; the container's resolver knows it."""
        return self.conninfo(target, aurora_dns=None, port=None)

    # -- waiting

    def settled(self) -> bool:
        """Whether nothing is missing."""
        status = self.status()
        nodes = all(node["up"] for node in status.volume["nodes"]) and status.volume["attached"]
        return bool(nodes and status.writer and all(one.state == "available" for one in status.instances))

    def eventually(self, condition: Callable[[], T], timeout: float = 120.0) -> T:
        """Wait until `condition` holds; returns what it returned."""
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"the condition never came true; {self.status()}")
            time.sleep(0.05)
        return result

    # -- changing it

    def add_reader(self, name: str | None = None, *, zone: str | None = None, tier: int = 1) -> InstanceStatus:
        """Add a reader on a host that is free; it has the name that goes with that host."""
        free = sorted(WHOLE.keys() - {each.name for each in self.instances})
        chosen = name or free[0]
        return super().add_reader(chosen, zone=zone or WHOLE[chosen], tier=tier)

    def kill(self, name: str, *, hold: bool = False) -> None:
        """Lose the host of an instance; unless `hold`, it comes up again at once, and empty."""
        self._heals[name] = self._stack.kill(self._stack.service_of(name))
        if not hold:
            self.heal(name)

    def freeze(self, name: str) -> None:
        self._heals[name] = self._stack.pause(self._stack.service_of(name))

    def thaw(self, name: str) -> None:
        self.heal(name)

    def heal(self, name: str) -> None:
        """Undo what was done to the host of an instance, if anything was."""
        self._heals.pop(name, lambda: None)()

    # -- between tests

    def begin(self) -> None:
        """Be whole, without a table of the application, and unknown to this process."""
        self.eventually(self.settled)
        REGISTRY.reset()
        dns.forget()
        self._clear()

    def end(self) -> None:
        """Be whole again."""
        for name in list(self._heals):
            self.heal(name)
        self.eventually(self.settled)
        while len(self.instances) < len(WHOLE):
            self.add_reader()
        self.eventually(self.settled)

    def _clear(self) -> None:
        mine = "select schemaname, tablename from pg_tables where tableowner = %s"
        with psycopg.connect(self.plain_conninfo(), autocommit=True) as connection:
            for name in connection.execute(mine, (self.user,)).fetchall():
                connection.execute(sql.SQL("drop table if exists {} cascade").format(sql.Identifier(*name)))
