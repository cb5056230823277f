"""The injector: does faults to a running cluster, and heals them.

What a fault means for the network and for the rows that instances show is *derived* from the faults in force, after
every change: overlapping faults need no order of healing, and an instance that joins a cut-off zone is cut off.
"""

from __future__ import annotations

import contextlib
from itertools import chain
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import ClusterError, RequestError
from aurora_router_cluster.faults.catalog import (
    INSTANCE,
    KINDS,
    NODE,
    NODE_PREFIX,
    ZONE,
    Registry,
    check_parameters,
    target_of,
)
from aurora_router_cluster.faults.nodes import NodeFaults
from aurora_router_cluster.faults.relay_client import BEAT, CLIENTS, RelayClient, Shape
from aurora_router_cluster.faults.status_distortion import Picture
from aurora_router_cluster.rpc.served import served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aurora_router_cluster.control.directory import Directory
    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.plane import ControlPlane
    from aurora_router_cluster.dns.zone import Zone
    from aurora_router_cluster.faults.catalog import Fault
    from aurora_router_cluster.faults.relay_client import Relayed

KIB = 1024


class Injector:
    """Faults of one cluster.

    Args:
        plane: its control plane.
        directory: its names.
        relayed: start with a relay in front of the instances.

    Attributes:
        registry: the faults in force.
        relay_client: the relay; None: there is none.
    """

    def __init__(self, plane: ControlPlane, directory: Directory, *, relayed: bool) -> None:
        self._plane = plane
        self._state = plane.state
        self._directory = directory
        self._picture = Picture()
        self._zone: Zone | None = None
        self.registry = Registry()
        self.relay_client = RelayClient(self._shape) if relayed else None
        self._nodes = NodeFaults(self._state.volume, self.registry, gated=relayed)
        self._state.relay_client = self.relay_client
        self._state.shown = self._picture.distort
        self._do: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "hang": self._hang,
            "slow": self._reshape,
            "partition": self._partition,
            "zone-down": self._zone_down,
            "node-down": lambda fault: self._nodes.down(self._nodes.number(fault.target)),
            "corrupt": self._nodes.corrupt,
            "torn-tail": self._nodes.tear,
            "clock-skew": self._repaint,
            "stale-view": self._repaint,
            "dns-stale": self._keep_zone,
            "dns-down": self._nothing,
        }
        self._undo: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._revive,
            "hang": self._wake,
            "slow": self._reshape,
            "partition": self._partition,
            "zone-down": self._zone_up,
            "node-down": lambda fault: self._nodes.up(int(fault.target.removeprefix(NODE_PREFIX))),
            "corrupt": self._nodes.scrub,
            "clock-skew": self._repaint,
            "stale-view": self._repaint,
            "dns-stale": self._drop_zone,
            "dns-down": self._nothing,
        }

    @served
    async def inject(self, kind: str, target: str = "", **parameters: Any) -> dict[str, Any]:
        """Do a fault; returns it as a dict.

        Raises:
            RequestError: there is no such kind, target or parameter, the fault is in force already, or it needs a
                cluster that was started with faults.
            UnknownInstanceError: there is no such instance.
        """
        sort = target_of(kind, target)
        chosen = check_parameters(kind, parameters)
        if kind == "partition" and sort == INSTANCE and target in self._state.zones:
            sort = ZONE
        self._check(kind, sort, target)
        in_force = bool(chosen.get("hold")) if kind == "kill" else kind != "torn-tail"
        fault = self.registry.make(kind, target, chosen, in_force=in_force)
        try:
            await self._do[kind](fault)
        except BaseException:
            self.registry.drop(fault)
            raise
        return fault.as_dict()

    def _check(self, kind: str, sort: str, target: str) -> None:
        if sort == INSTANCE:
            instance = self._state.get(target)
            if kind == "hang" and not instance.engine.alive:
                raise RequestError(f"{target} is not running; start it first")
        if sort == NODE:
            self._nodes.number(target)
            if KINDS[kind].relayed:
                self._nodes.check_links()
        if sort == ZONE and target not in self._state.zones:
            raise RequestError(f"unknown zone {target!r}; this cluster has {', '.join(self._state.zones)}")
        if KINDS[kind].relayed and sort != NODE and self.relay_client is None:
            raise RequestError(
                f"the fault {kind} needs the relay in front of the instances: start the cluster with faults=True "
                "(cluster up --faults, pytest --aurora-faults)"
            )

    @served
    async def heal(self, which: int | None = None) -> list[dict[str, Any]]:
        """Heal one fault, or all of them; returns those that were healed.

        One that cannot be healed as a whole is healed as far as possible, and stays in force: it can be healed again.

        Raises:
            RequestError: it is not in force.
            ClusterError: by one that could not be healed; the others are.
        """
        faults = list(self.registry) if which is None else [self.registry.get(which)]
        await _do_all(self._heal(fault) for fault in reversed(faults))
        return [fault.as_dict() for fault in faults]

    async def _heal(self, fault: Fault) -> None:
        self.registry.drop(fault)  # first: what is left of the faults in force decides what it comes to
        try:
            await self._undo[fault.kind](fault)
        except BaseException:
            self.registry.restore(fault)
            raise

    def list(self) -> list[dict[str, Any]]:
        """The faults in force."""
        return [fault.as_dict() for fault in self.registry]

    # -- the network ---------------------------------------------------------------------------------------

    def _shape(self, instance: Relayed, route: str) -> Shape:
        """What the faults in force make of one route of an instance."""
        cuts = self.registry.on({"partition"}, instance.name, instance.zone)
        slow = self.registry.on({"slow"}, instance.name)
        rates = [fault.value("bandwidth") * KIB for fault in slow if fault.value("bandwidth")]
        return Shape(
            held=any(_cuts(fault, route) for fault in cuts),
            delay=sum(fault.value("latency") for fault in slow),
            rate=min(rates, default=None),
        )

    async def _reshape(self, _: Fault | None = None) -> None:
        await self._nodes.refresh()
        if self.relay_client is not None:
            for instance in list(self._state.instances.values()):
                await self.relay_client.refresh(instance)

    async def _partition(self, fault: Fault) -> None:
        await self._reshape()
        await self._repaint(fault)

    async def _repaint(self, _: Fault | None = None) -> None:
        """Instances that are cut off from the control plane, or stale, keep the rows that they have now."""
        skews = self.registry.on({"clock-skew"}, *self._state.instances)
        self._picture.skews = {fault.target: fault.value("seconds") for fault in skews}
        before, rows = self._picture.kept, self._state.rows()
        keeping = [one.name for one in self._state.instances.values() if self._keeps(one)]
        self._picture.kept = {name: before.get(name, rows) for name in keeping}
        self._state.write_status()

    def _keeps(self, instance: Instance) -> bool:
        cuts = self.registry.on({"partition"}, instance.name, instance.zone)
        return bool(self.registry.on({"stale-view"}, instance.name)) or any(_cuts(fault, BEAT) for fault in cuts)

    # -- names ---------------------------------------------------------------------------------------------

    def zone(self) -> Zone:
        """The names as the name server answers them."""
        return self._zone or self._directory.picture()

    def mute(self) -> str | None:
        """How the name server fails: ``silent``, ``refuses``, or None: it does not."""
        for fault in self.registry.on({"dns-down"}, ""):
            return "refuses" if fault.parameters.get("refuse") else "silent"
        return None

    async def _keep_zone(self, _: Fault) -> None:
        self._zone = self._directory.picture()

    async def _drop_zone(self, _: Fault) -> None:
        self._zone = None

    async def _nothing(self, _: Fault) -> None:
        pass

    # -- processes -----------------------------------------------------------------------------------------

    async def _kill(self, fault: Fault) -> None:
        self._plane.kill(fault.target, hold=fault.in_force)

    async def _revive(self, fault: Fault) -> None:
        instance = self._state.instances.get(fault.target)
        if instance is not None and not self.registry.on({"zone-down"}, instance.zone):
            await self._start(instance)

    async def _start(self, instance: Instance) -> None:
        instance.stopped_by_request = False
        with contextlib.suppress(RequestError):  # the heartbeat was faster
            await self._plane.start(instance.name)

    async def _zone_down(self, fault: Fault) -> None:
        for instance in self._state.instances.values():
            if instance.zone == fault.target:
                self._plane.kill(instance.name, hold=True)
        for number in self._nodes.in_zone(fault.target):
            await self._nodes.down(number)

    async def _zone_up(self, fault: Fault) -> None:
        on, zone = self.registry.on, fault.target
        numbers = [each for each in self._nodes.in_zone(zone) if not on({"node-down"}, f"{NODE_PREFIX}{each}")]
        instances = [
            each for each in self._state.instances.values() if each.zone == zone and not on({"kill"}, each.name)
        ]
        await _do_all(chain(map(self._nodes.up, numbers), map(self._start, instances)))

    async def _hang(self, fault: Fault) -> None:
        self._plane.freeze(fault.target)

    async def _wake(self, fault: Fault) -> None:
        with contextlib.suppress(RequestError):  # it was removed, or ended
            self._plane.thaw(fault.target)


def _cuts(fault: Fault, route: str) -> bool:
    """Whether a partition cuts that route of an instance."""
    if fault.parameters.get("clients_only"):
        return route == CLIENTS
    return route == BEAT or not fault.parameters.get("heartbeat_only")


async def _do_all(works: Iterable[Awaitable[object]]) -> None:
    """Do one work after the other, also those after one that fails.

    Raises:
        ClusterError: the first failure, once all were tried.
    """
    failures: list[ClusterError] = []
    for work in works:
        try:
            await work
        except ClusterError as error:
            failures.append(error)
    if failures:
        raise failures[0]
