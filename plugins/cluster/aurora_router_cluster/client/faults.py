"""``cluster.faults``: break a running cluster from Python, and heal it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from aurora_router_cluster.faults.catalog import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from aurora_router_cluster.control.status import InstanceName


@final
class Injected:
    """A fault that was done; as a context manager it is healed at the end of the block."""

    def __init__(self, faults: Faults, fault: Fault) -> None:
        self._faults = faults
        self.fault = fault

    @property
    def id(self) -> int:
        """Its number."""
        return self.fault.id

    def heal(self) -> None:
        """Heal it; nothing where it was momentary, or is healed already."""
        if any(fault.id == self.id for fault in self._faults.list()):
            self._faults.heal(self.id)

    def __enter__(self) -> Injected:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()

    def __repr__(self) -> str:
        return f"<fault {self.fault.text}>"


class Faults:
    """What can be broken. Every method returns when the fault is in force (or, if it is momentary, has happened).

    Raises (all methods):
        RequestError: no such target or parameter, a fault of that kind is in force on it already, or it needs a
            cluster started with ``faults=True``.
        UnknownInstanceError: there is no such instance.
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def inject(self, kind: str, target: InstanceName = "", **parameters: object) -> Injected:
        """Do a fault by its name, as the command line has it; see `catalog.KINDS`."""
        return Injected(self, Fault(**self._ask("inject", kind=kind, target=target, **parameters)))

    def heal(self, which: int | None = None) -> list[Fault]:
        """Heal the fault of that number, or all; returns those healed."""
        return [Fault(**each) for each in self._ask("heal", which=which)]

    def list(self) -> list[Fault]:
        """The faults in force."""
        return [Fault(**each) for each in self._ask("list_faults")]

    def kill(self, instance: InstanceName, *, hold: bool = False) -> Injected:
        """SIGKILL to every process of an instance; `hold`: it stays down until healed."""
        return self.inject("kill", instance, hold=hold)

    def hang(self, instance: InstanceName) -> Injected:
        """SIGSTOP to every process of an instance: its sockets stay open, it answers nothing."""
        return self.inject("hang", instance)

    def slow(self, target: InstanceName, *, latency: float | None = None, bandwidth: float | None = None) -> Injected:
        """Slow the line to an instance (or ``node:N``).

        Args:
            target: which.
            latency: seconds added, in each direction.
            bandwidth: KiB per second, in each direction and per connection.
        """
        return self.inject("slow", target, latency=latency, bandwidth=bandwidth)

    def partition(self, target: InstanceName, *, clients_only: bool = False, heartbeat_only: bool = False) -> Injected:
        """Drop all packets to and from an instance, ``node:N`` or zone; nothing is reset, new connects hang.

        Args:
            target: which.
            clients_only: the control plane and the storage still reach the instance, so it is not failed over.
            heartbeat_only: clients and the storage still reach it, the control plane does not: a writer is failed
                over while it goes on serving its clients (a zombie).
        """
        return self.inject("partition", target, clients_only=clients_only, heartbeat_only=heartbeat_only)

    def zone_down(self, zone: str) -> Injected:
        """Kill the instances of a zone and take its storage nodes down, until healed."""
        return self.inject("zone-down", zone)

    def node_down(self, node: int) -> Injected:
        """Take a storage node down, until healed; its disk stays."""
        return self.inject("node-down", f"node:{node}")

    def corrupt(self, node: int, *, offset: int | None = None) -> Injected:
        """Flip one byte on a storage node's disk: at `offset` of its newest file, or in the middle of its log."""
        return self.inject("corrupt", f"node:{node}", offset=offset)

    def torn_tail(self, node: int) -> Injected:
        """Let a storage node lose its power in the middle of a write, and come up again."""
        return self.inject("torn-tail", f"node:{node}")

    def clock_skew(self, instance: InstanceName, seconds: float) -> Injected:
        """Let the time stamp of an instance's row in ``aurora_replica_status()`` be wrong; negative: behind."""
        return self.inject("clock-skew", instance, seconds=seconds)

    def stale_view(self, instance: InstanceName) -> Injected:
        """Let an instance's ``aurora_replica_status()`` go on showing the picture of now."""
        return self.inject("stale-view", instance)

    def dns_stale(self) -> Injected:
        """Let the name server go on giving the answers of now."""
        return self.inject("dns-stale")

    def dns_down(self, *, refuse: bool = False) -> Injected:
        """Let the name server be silent, or answer SERVFAIL (`refuse`)."""
        return self.inject("dns-down", refuse=refuse)
