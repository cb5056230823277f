"""Which faults there are, what each may be done to and with which parameters, and which are in force. No I/O.

A fault is *momentary* (it happens, the cluster deals with it, nothing is left to heal) or it is *in force* until it is
healed. At most one fault of a kind is in force on one target.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

INSTANCE, NODE, ZONE, NOTHING = "instance", "node", "zone", "nothing"
NODE_PREFIX = "node:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        targets: what it can be done to.
        does: what it does, in a few words.
        parameters: name -> unit or meaning; all are optional unless in `needs`.
        needs: parameters of which at least one has to be given.
        relayed: instances and zones need the cluster to be started with faults (the relay).
    """

    targets: tuple[str, ...]
    does: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    relayed: bool = False


KINDS: Mapping[str, Kind] = {
    "kill": Kind((INSTANCE,), "SIGKILL to every process", {"hold": "leave it down until healed"}),
    "hang": Kind((INSTANCE,), "SIGSTOP to every process: sockets stay open, nothing answers"),
    "slow": Kind(
        (INSTANCE, NODE),
        "latency and a narrow line",
        {"latency": "seconds, each way", "bandwidth": "KiB/s, each way, per connection"},
        needs=("latency", "bandwidth"),
        relayed=True,
    ),
    "partition": Kind(
        (INSTANCE, NODE, ZONE),
        "all packets are dropped, nothing is reset",
        {
            "clients_only": "the control plane and the storage still reach the instance",
            "heartbeat_only": "clients and the storage do: the control plane takes it for dead, wrongly",
        },
        relayed=True,
    ),
    "zone-down": Kind((ZONE,), "its instances are killed, its nodes go down"),
    "node-down": Kind((NODE,), "the storage node is gone, its disk stays"),
    "corrupt": Kind((NODE,), "one byte of its log is flipped on the disk", {"offset": "bytes from the file's start"}),
    "torn-tail": Kind((NODE,), "power is lost in the middle of a write; it comes up again at once"),
    "clock-skew": Kind(
        (INSTANCE,), "its row's last_update_timestamp is wrong", {"seconds": "ahead; negative: behind"}, ("seconds",)
    ),
    "stale-view": Kind((INSTANCE,), "its aurora_replica_status() keeps the picture of now"),
    "dns-stale": Kind((NOTHING,), "the name server keeps the picture of now"),
    "dns-down": Kind((NOTHING,), "the name server does not answer", {"refuse": "it answers SERVFAIL"}),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault.

    Attributes:
        id: number in its cluster, from 1.
        kind: see `KINDS`.
        target: name of the instance, ``node:<number>``, name of the zone, or empty.
        parameters: as given, see `KINDS`.
        in_force: False: it was momentary, there is nothing to heal.
    """

    id: int
    kind: str
    target: str
    parameters: dict[str, Any]
    in_force: bool = True

    def as_dict(self) -> dict[str, Any]:
        """As a dict that JSON can hold."""
        return asdict(self)

    @property
    def text(self) -> str:
        """In words, e.g. ``2 slow demo-1 latency=0.1``."""
        shown = [name if value is True else f"{name}={value}" for name, value in self.parameters.items()]
        return " ".join([str(self.id), self.kind, *([self.target] if self.target else []), *shown])

    def value(self, name: str) -> float:
        """A number among the parameters; 0.0 where it was not given."""
        return float(self.parameters.get(name) or 0.0)


def target_of(kind: str, target: str) -> str:
    """What sort of thing `target` is, for a fault of this kind.

    Raises:
        RequestError: there is no such kind, or it cannot be done to that.
    """
    known = KINDS.get(kind)
    if known is None:
        raise RequestError(f"there is no fault {kind!r}; there are {', '.join(KINDS)}")
    if known.targets == (NOTHING,):
        if target:
            raise RequestError(f"the fault {kind} concerns the name server and takes no target, not {target!r}")
        return NOTHING
    if not target:
        raise RequestError(f"the fault {kind} needs a target: {' or '.join(known.targets)}")
    if NODE in known.targets and target.startswith(NODE_PREFIX):
        return NODE
    return known.targets[0] if known.targets != (NODE,) else NODE


def check_parameters(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a fault, without those that were left out.

    Raises:
        RequestError: one that the kind does not have, one out of range, or a missing one.
    """
    known = KINDS[kind]
    chosen = {name: value for name, value in given.items() if value not in {None, False}}
    for name, value in chosen.items():
        if name not in known.parameters:
            has = ", ".join(known.parameters) or "none"
            raise RequestError(f"the fault {kind} has no parameter {name!r}; it has: {has}")
        if name in {"latency", "bandwidth", "offset"} and value < 0:
            raise RequestError(f"{name}={value}: it cannot be negative")
    if "clients_only" in chosen and "heartbeat_only" in chosen:
        raise RequestError("clients_only and heartbeat_only exclude each other; leave both out for a whole partition")
    if known.needs and not any(name in chosen for name in known.needs):
        raise RequestError(f"the fault {kind} needs {' or '.join(known.needs)}")
    return chosen


class Registry:
    """The faults in force, by number."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._made = 0

    def __iter__(self) -> Any:
        return iter(tuple(self._faults.values()))

    def make(self, kind: str, target: str, parameters: Mapping[str, Any], *, in_force: bool = True) -> Fault:
        """A new fault; with `in_force` it is entered.

        Raises:
            RequestError: one of that kind is in force on the target.
        """
        same = [fault for fault in self._faults.values() if (fault.kind, fault.target) == (kind, target)]
        if same:
            raise RequestError(
                f"that fault is in force already: {same[0].text}; heal it first (fault heal {same[0].id})"
            )
        self._made += 1
        fault = Fault(self._made, kind, target, dict(parameters), in_force)
        if in_force:
            self._faults[fault.id] = fault
        return fault

    def get(self, number: int) -> Fault:
        """The fault of that number.

        Raises:
            RequestError: it is not in force.
        """
        if number not in self._faults:
            known = "; ".join(fault.text for fault in self._faults.values()) or "none"
            raise RequestError(f"no fault {number} is in force; in force are: {known}")
        return self._faults[number]

    def restore(self, fault: Fault) -> None:
        """Enter a fault again that could not be healed."""
        self._faults[fault.id] = fault

    def drop(self, fault: Fault) -> None:
        """Remove a fault that is healed; does nothing if it is not in force."""
        self._faults.pop(fault.id, None)

    def on(self, kinds: Collection[str], *targets: str) -> list[Fault]:
        """Those of some kinds that are in force on any of some targets."""
        return [fault for fault in self._faults.values() if fault.kind in kinds and fault.target in targets]
