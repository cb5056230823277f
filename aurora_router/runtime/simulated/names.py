"""Simulated DNS: records with a TTL, names that rotate, aliases, stale answers, a name server that fails."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

import psycopg

from aurora_router.flow.runtime import DialFailed, Resolution
from aurora_router.model.endpoint import EndpointKind, parse_endpoint
from aurora_router.policy.verdict import Fault, FaultKind

if TYPE_CHECKING:
    from aurora_router.runtime.simulated.scheduler import Simulation

NEGATIVE_SECONDS = 1.0
"""How long a process remembers that a name has no address, as in `runtime.dns`."""
_LONGEST_CHAIN = 8


class NameServer(enum.Enum):
    """How the name server is."""

    WELL = "answers"
    SILENT = "does not answer"
    FAILING = "answers SERVFAIL"


class Zone(Protocol):
    """A cluster, or what else knows names."""

    def addresses(self, name: str, turn: int) -> tuple[str, ...] | None:
        """The addresses of a canonical name at its `turn`-th question; None: no such name."""
        ...


class SimulatedDns:
    """The name server of a simulation.

    Attributes:
        ttl: time to live of every record, in seconds; Aurora's own is 5.
        latency: of an answer, in seconds.
        state: whether it answers.
        lifetime: after how many seconds a process stops waiting for a silent one.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.ttl = 5.0
        self.latency = 0.001
        self.state = NameServer.WELL
        self.lifetime = 1.0
        self._zones: list[Zone] = []
        self._aliases: dict[str, str] = {}
        self._pinned: dict[str, tuple[str, ...]] = {}
        self._turns: dict[str, int] = {}

    def serve(self, zone: Zone) -> None:
        """Answer for a zone as well."""
        self._zones.append(zone)

    def alias(self, name: str, target: str) -> None:
        """Make `name` a CNAME of `target`."""
        self._aliases[name.lower()] = target.lower()

    def pin(self, name: str, *addresses: str) -> None:
        """Answer with these addresses, whatever the zone says: a stale or a forged answer; none: as the zone says."""
        self._pinned.pop(name.lower(), None)
        if addresses:
            self._pinned[name.lower()] = addresses

    async def answer(self, host: str) -> Resolution:
        """Ask the name server.

        Raises:
            DialFailed: it has no address for the name, or does not answer.
        """
        self.simulation.counts["resolve"] += 1
        if self.state is NameServer.SILENT:
            await self.simulation.sleep(self.lifetime)
            raise new_name_failure(host, f"the name server did not answer within {self.lifetime:g} s")
        await self.simulation.sleep(self.latency)
        if self.state is NameServer.FAILING:
            raise new_name_failure(host, "the name server answered SERVFAIL")
        canonical = self._canonical(parse_endpoint(host).host)
        addresses = self._addresses(canonical)
        if not addresses:
            raise new_name_failure(host, "the name does not exist")
        return Resolution(addresses, canonical)

    def _canonical(self, name: str) -> str:
        for _ in range(_LONGEST_CHAIN):
            if name not in self._aliases:
                break
            name = self._aliases[name]
        return name

    def _addresses(self, name: str) -> tuple[str, ...]:
        if name in self._pinned:
            return self._pinned[name]
        turn = self._turns[name] = self._turns.get(name, -1) + 1
        found = (zone.addresses(name, turn) for zone in self._zones)
        return next((each for each in found if each is not None), ())


class Memory:
    """What one process remembers of names."""

    def __init__(self, dns: SimulatedDns) -> None:
        self._dns = dns
        self._known: dict[str, tuple[float, Resolution | DialFailed]] = {}
        self._last: dict[str, Resolution] = {}

    async def resolve(self, host: str, *, fresh: bool) -> Resolution:
        """Resolve a name, from memory where its TTL allows; a failure is remembered even if `fresh`.

        Raises:
            DialFailed: it has no address, or the name server failed.
        """
        if parse_endpoint(host).kind is EndpointKind.IP:
            return Resolution((host,), host)
        now = self._dns.simulation.now
        until, known = self._known.get(host, (-1.0, None))
        if now < until and known is not None:
            if isinstance(known, DialFailed):
                raise DialFailed(known.fault, known.cause)
            if not fresh:
                return known
        try:
            found = await self._dns.answer(host)
        except DialFailed as failed:
            self._known[host] = self._dns.simulation.now + NEGATIVE_SECONDS, failed
            raise
        self._known[host] = self._dns.simulation.now + self._dns.ttl, found
        self._last[host] = found
        return found

    def last(self, host: str) -> Resolution | None:
        """The last answer about a name, however old."""
        return self._last.get(host)


def new_name_failure(host: str, text: str) -> DialFailed:
    """A name that has no address (now)."""
    whole = f"could not resolve host {host!r}: {text} (asked: the simulated name server)"
    return DialFailed(Fault(FaultKind.NAME, None, whole), psycopg.OperationalError(whole))
