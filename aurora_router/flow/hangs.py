"""Sampling users' connections, pinging whom they wait for, cutting those of an instance that is hung or lost its role.

The decisions are those of `policy.suspicion`; here they meet the world.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Generic, Protocol

from aurora_router.flow.inquiry import Inquiry
from aurora_router.flow.world import Activity, ConnT, Ground
from aurora_router.model.event import ConnectionsCut, HangRefuted, HangSuspected, Starved
from aurora_router.model.instance import Role
from aurora_router.model.observation import Failure
from aurora_router.policy.suspicion import Action, Limits, Signal, Suspicion, suspicious, waiting_since
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.world import Target
    from aurora_router.policy.options import Options
    from aurora_router.policy.verdict import Fault

SILENCE = frozenset({FaultKind.TIMEOUT, FaultKind.UNREACHABLE})
"""What condemns an instance. One that refuses to be dialled is down, and its kernel tells the connections itself."""


class Judge(Protocol):
    """What sampling needs of the watch."""

    lost: set[str]

    @property
    def options(self) -> Options:
        """The watch's options."""
        ...


class Hangs(Generic[ConnT]):
    """What is known of the connections to one cluster.

    Attributes:
        inquiries: the connections on which instances are pinged.
        starved_at: when this process was last found not to have been attending, by the world's time.
        limits: how soon to suspect, and how long to listen: the strictest of all connections'.
    """

    def __init__(self, world: Ground[ConnT], cluster: Cluster, watch: Judge) -> None:
        self.world = world
        self.cluster = cluster
        self.watch = watch
        self.inquiries: dict[str, Inquiry[ConnT]] = {}
        self.starved_at = -1.0
        self._sampled_at = world.now()
        self.limits = Limits(watch.options.hang_grace, watch.options.ping_timeout)
        self._suspicions: dict[str, Suspicion] = defaultdict(Suspicion)

    def sample(self, late: float) -> None:
        """Look at all connections once, `late` seconds later than it should have been."""
        now, limits = self.world.now(), self.limits
        starved = late > limits.lateness
        self._sampled_at = now
        if starved:
            self.starved_at = now
            self.cluster.tell(Starved(late), now)
        for id_, connections in self.cluster.held().items():
            waiting = self._waiting(id_, connections, now, starved=starved)
            if waiting:
                self._suspect(id_, waiting, now)

    def _waiting(self, id_: str, connections: Iterable[Any], now: float, *, starved: bool) -> list[Any]:
        """The connections that have been waiting for the whole grace period; others that must go are cut."""
        waiting, stale = [], []
        for held in connections:
            activity = self.world.activity(held)
            if activity is Activity.BROKEN:
                self.cluster.drop(id_, held)
                self.cluster.doubt(f"a connection to {id_} broke", now)
                continue
            waits = activity is Activity.WAITING
            held.waiting_since = waiting_since(held.waiting_since, now, waits=waits, starved=starved)
            if self._must_go(id_, held, activity):
                stale.append(held)
            elif suspicious(held.waiting_since, now, held.limits):
                waiting.append(held)
        self._cut(id_, stale, "stale")
        return waiting

    def _must_go(self, id_: str, held: Any, activity: Activity) -> bool:
        """Whether a connection is of no use any more, or dangerous, whatever it does at this moment."""
        view = self.cluster.view
        if view.is_current(id_, held.generation):
            return False
        known = view.instances.get(id_)
        if held.was_writer and (known is None or known.role is not Role.WRITER):
            return True
        if known is None:
            return activity is Activity.IDLE
        return id_ in self.watch.lost and activity is not Activity.WAITING

    # ------------------------------------------------------------ suspicion

    def _suspect(self, id_: str, waiting: list[Any], now: float) -> None:
        thought = self._suspicions[id_].rested(now)
        self._suspicions[id_], action = thought.after(Signal.SUSPECTED, now)
        if action is not Action.PING:
            return
        target = next((found for held in waiting if (found := self.world.target(held, id_)) is not None), None)
        if target is None:
            self._suspicions[id_] = Suspicion()
            return
        self.cluster.tell(HangSuspected(id_, len(waiting)), now)
        self.world.spawn(self._pinged(id_, target))

    async def _pinged(self, id_: str, target: Target) -> None:
        began = self.world.now()
        inquiry = self.inquiries.setdefault(id_, Inquiry(self.world, self.cluster, id_))
        inquiry.busy = True
        try:
            fault = await inquiry.ping(target, self.limits.ping)
        finally:
            inquiry.busy = False
        now = self.world.now()
        signal = self._signal(fault, began, now)
        self._suspicions[id_], action = self._suspicions[id_].after(signal, now, self.limits.rest)
        if action is Action.CUT:
            self._condemn(id_, now)
        elif fault is None:
            self.cluster.tell(HangRefuted(id_, now - began), now)
        elif signal is not Signal.STARVED:
            self.cluster.doubt(f"a ping of {id_} failed: {fault.text}", now)

    def _signal(self, fault: Fault | None, began: float, now: float) -> Signal:
        limits = self.limits
        if fault is None or fault.kind not in SILENCE:
            return Signal.ANSWERED
        late = now - began - limits.ping > limits.lateness
        return Signal.STARVED if late or self.unattended(began, now) else Signal.SILENT

    def unattended(self, since: float, now: float) -> bool:
        """Whether this process was starved since then; also when it just woke up, and no sample has told it yet."""
        limits = self.limits
        return self.starved_at >= since or now - self._sampled_at - limits.interval > limits.lateness

    def _condemn(self, id_: str, now: float) -> None:
        """Declare an instance hung, cut its connections, and let everybody look for who is the writer."""
        known = self.cluster.view.instances.get(id_)
        reason = f"hung: no answer to a ping within {self.limits.ping:g} s"
        self.watch.lost.add(id_)
        self.cluster.hung_at = now
        if known is not None:
            self.cluster.observe(Failure(id_, known.generation, gone=True, reason=reason), now)
        self.cluster.failed(id_, now, self.watch.options.quarantine, now)
        self.cluster.doubt(f"{id_} is {reason}", now)
        self._cut(id_, self.cluster.held().get(id_, ()), reason)

    def _cut(self, id_: str, connections: Iterable[Any], reason: str) -> None:
        count = 0
        for held in connections:
            self.cluster.drop(id_, held)
            held.cut_because = reason
            count += self.world.cut(held)
        if count:
            self.cluster.tell(ConnectionsCut(id_, count, reason), self.world.now())
