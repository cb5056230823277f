"""Where simulated instances listen, and what happens to a dial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from aurora_router.flow.runtime import GLANCE_SECONDS, DialFailed
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime import libpq
from aurora_router.runtime.faults import fault_of
from aurora_router.runtime.simulated.connection import Relay, SimulatedConnection
from aurora_router.runtime.simulated.instance import Condition
from aurora_router.runtime.simulated.names import SimulatedDns

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.runtime import Wanted
    from aurora_router.runtime.simulated.instance import ServingCluster, SimulatedInstance
    from aurora_router.runtime.simulated.scheduler import Simulation

_SENTENCES = {
    Condition.REFUSING: "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
    Condition.UNREACHABLE: "No route to host\n\tIs the server running on that host and accepting TCP/IP connections?",
    Condition.STARTING: "FATAL:  the database system is starting up",
    Condition.STOPPING: "FATAL:  the database system is shutting down",
    Condition.FULL: "FATAL:  sorry, too many clients already",
    Condition.REJECTING: 'FATAL:  password authentication failed for user "app"',
    Condition.BARRED: 'FATAL:  PAM authentication failed for user "app"',
    Condition.UNVERIFIED: 'server certificate for "demo" does not match host name "orders"',
    Condition.RESETTING: "server closed the connection unexpectedly\n\tThis probably means the server terminated "
    "abnormally\n\tbefore or while processing the request.",
    Condition.UNKNOWN: "FATAL:  not today",
    Condition.WITHOUT_TLS: "server does not support SSL, but SSL was required",
    Condition.EXHAUSTED: "Cannot assign requested address\n\tIs the server running on that host and accepting TCP/IP "
    "connections?",
}
"""What libpq says of each, so that its sentences are read here as they are in production."""


RESENT_SECONDS = 1.0
"""When a kernel sends the first packet of a connection again that got no answer."""


class Network:
    """The addresses of a simulation, and its name server.

    Attributes:
        simulation: the clock and the seed.
        dns: the name server.
        relays: what is in between, by address and port; most have nothing.
        losses: how many of the next dials lose their first packet, which is sent again `RESENT_SECONDS` later.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.dns = SimulatedDns(simulation)
        self.relays: dict[tuple[str, int], Relay] = {}
        self._listening: dict[tuple[str, int], tuple[ServingCluster, SimulatedInstance]] = {}
        self.losses = 0
        self._addresses = 0
        self._pids = 0

    def free_address(self) -> str:
        """An address that was not used before."""
        self._addresses += 1
        return f"10.{self._addresses >> 16 & 255}.{self._addresses >> 8 & 255}.{self._addresses & 255}"

    def next_pid(self) -> int:
        """A process id that no backend has had."""
        self._pids += 1
        return self._pids

    def listen(self, address: str, port: int, cluster: ServingCluster, instance: SimulatedInstance) -> None:
        """Lead dials of an address to an instance: its own, a tunnel, a load balancer."""
        self._listening[address, port] = cluster, instance

    def leave(self, address: str, port: int) -> None:
        """No server listens there any more."""
        self._listening.pop((address, port), None)

    async def wait(self, seconds: float, wanted: Wanted | None) -> bool:
        """Let time pass for as long as what is waited for is wanted; whether it was until the end."""
        until = self.simulation.now + seconds
        while self.simulation.now < until:
            left = until - self.simulation.now
            await self.simulation.sleep(left if wanted is None else min(left, GLANCE_SECONDS))
            if wanted is not None and not wanted():
                return False
        return True

    async def dial(
        self,
        address: str,
        port: int,
        seconds: float,
        wanted: Wanted | None = None,
        note_bytes: Callable[[str, int, float], None] = lambda _address, _port, _waited: None,
    ) -> SimulatedConnection:
        """Open a connection; `note_bytes` is called when the server sends something.

        It takes the address, the port, and how long its first byte was waited for; 0.0: not the first.

        Raises:
            DialFailed: as libpq would report it.
        """
        self.simulation.counts["dial"] += 1
        began = self.simulation.now
        cluster, instance = self._listening.get((address, port), (None, None))
        if instance is None or cluster is None:
            await self.simulation.sleep(0.0005)
            raise new_dial_failure(address, port, Condition.REFUSING)
        if self.losses:
            self.losses -= 1
            if not await self.wait(min(seconds, RESENT_SECONDS), wanted) or seconds <= RESENT_SECONDS:
                raise libpq.new_timeout(f"connecting to {address}", seconds)
            seconds -= RESENT_SECONDS
        in_time = await self.wait(min(_duration(instance), seconds), wanted)
        condition = instance.condition if (address, port) in self._listening else Condition.RESETTING
        if condition is Condition.HANGING or instance.accept_latency > seconds or not in_time:
            if in_time:
                await self.wait(seconds - min(_duration(instance), seconds), wanted)
            raise libpq.new_timeout(f"connecting to {address}", seconds)
        if condition not in {Condition.REFUSING, Condition.UNREACHABLE}:
            note_bytes(address, port, self.simulation.now - began)
        if condition is not Condition.WELL:
            raise new_dial_failure(address, port, condition)
        await self._log_in(instance, (address, port), seconds, wanted)
        note_bytes(address, port, 0.0)
        return SimulatedConnection(cluster, instance, address, port, self.relays.get((address, port)))

    async def _log_in(
        self, instance: SimulatedInstance, path: tuple[str, int], seconds: float, wanted: Wanted | None
    ) -> None:
        """The rest of a dial of at most `seconds`, after the first bytes of the server's.

        Raises:
            DialFailed: as libpq would report it.
        """
        latency, left = instance.login_latency, seconds - _duration(instance)
        if not latency:
            return
        in_time = await self.wait(min(latency, left), wanted) and latency <= left
        if in_time and instance.condition is Condition.HANGING:
            await self.wait(left - latency, wanted)
            in_time = False
        if not in_time:
            raise libpq.new_timeout(f"connecting to {path[0]}", seconds)
        if instance.condition is not Condition.WELL:
            raise new_dial_failure(*path, Condition.RESETTING)


def _duration(instance: SimulatedInstance) -> float:
    quick = instance.condition in {Condition.REFUSING, Condition.UNREACHABLE, Condition.EXHAUSTED}
    return instance.latency if quick else instance.accept_latency


def new_dial_failure(address: str, port: int, condition: Condition) -> DialFailed:
    """A dial that ended as libpq would report it in that condition."""
    text = f'connection failed: connection to server at "{address}", port {port} failed: {_SENTENCES[condition]}'
    error = psycopg.OperationalError(text)
    return DialFailed(fault_of(error), error)


def new_connection_lost() -> DialFailed:
    """A connection that broke before its answer came."""
    text = "server closed the connection unexpectedly"
    return DialFailed(Fault(FaultKind.RESET, None, text), psycopg.OperationalError(text))
