"""All that a process knows of one cluster, as one value of a few values, and how it changes.

Theory. Each part has transitions of its own: the `View` (evidence, changed by `reduce` alone), the `Health` of
instances, the `WriterSuspicion`, the `DialLimit`, the `RefreshDemand`, and what is known of paths. Here are the
transitions of the whole: each is a function from one state to the next state and the events that describe the change.
`flow.cluster` does them one at a time, wakes what waits, and publishes the events.

Invariants (property tests): a transition that changes nothing returns the same state; each event that a transition
returns is the newest in the trail; after a change of the writer no path counts as proven.
"""

from __future__ import annotations

from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.bounds import forget_oldest
from aurora_router.model.event import (
    ConfigurationAdvice,
    InstanceRecovered,
    WriterConfirmed,
    WriteRefused,
    WriterSuspected,
)
from aurora_router.model.observation import Topology
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View
from aurora_router.policy.health import Health
from aurora_router.policy.paths import remember
from aurora_router.policy.poll_interval import RefreshDemand
from aurora_router.policy.role_reports import RoleReports
from aurora_router.policy.slow_start import DialLimit
from aurora_router.policy.suspicion import WriterSuspicion

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aurora_router.model.event import Event
    from aurora_router.model.observation import Observation
    from aurora_router.policy.paths import End, Known
    from aurora_router.policy.role_reports import Path, RoleCheck

TRAIL = 64
"""How many recent events of a cluster are remembered."""


@frozen
class ClusterState:
    """What is known of one cluster; each method returns the next state, and the events that describe the change.

    Attributes:
        view: the evidence: instances, their roles, the accepted writer.
        health: which instances failed.
        suspicion: whether the writer is suspected.
        dial_limit: whether dials of the writer are limited, after a failover.
        demand: what connects want to know sooner than the next refresh.
        role_reports: which reports of servers about their role are believed, by path.
        paths: which paths are known to be direct; see `policy.paths`.
        by_address: which instance a connection to ``address:port`` led to last.
        advised: the keys of the advices that were given, each of them once.
        trail: the last events, oldest first, each with its time.
    """

    view: View = field(default_factory=View)
    health: Health = field(default_factory=Health)
    suspicion: WriterSuspicion = field(default_factory=WriterSuspicion)
    dial_limit: DialLimit = field(default_factory=DialLimit)
    demand: RefreshDemand = field(default_factory=RefreshDemand)
    role_reports: RoleReports = field(default_factory=RoleReports)
    paths: Mapping[End, Known] = field(default_factory=lambda: MappingProxyType({}))
    by_address: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    advised: frozenset[str] = frozenset()
    trail: tuple[tuple[float, Event], ...] = ()

    def is_news(self, before: ClusterState) -> bool:
        """Whether what waits for the cluster has to look again: the view or the suspicion has changed."""
        return self.view is not before.view or self.suspicion.since != before.suspicion.since

    def record_events(self, now: float, *events: Event) -> Transition:
        """Remember events."""
        trail = (*self.trail, *((now, each) for each in events))[-TRAIL:]
        return replace(self, trail=trail) if events else self, events

    # ------------------------------------------------------------ evidence

    def observe(self, observation: Observation, now: float) -> Transition:
        """Change the view by an observation."""
        view, events = reduce(self.view, observation, now)
        reports = self.role_reports if view.writer == self.view.writer else self.role_reports.record_writer_change()
        advised = self.advised
        if isinstance(observation, Topology) and observation.malformed and "rows" not in advised:
            advised |= {"rows"}
            events += (ConfigurationAdvice(_describe_malformed(observation)),)
        health = self.health.follow(events, now)
        if view is self.view and not events:
            return self, events
        after = replace(self, view=view, role_reports=reports, health=health, advised=advised)
        return after.record_events(now, *events)

    def record_role_check(self, path: Path, check: RoleCheck, now: float) -> Transition:
        """Record the answer to a role query on a path; see `RoleReports.record_check`."""
        return self._with_reports(self.role_reports.record_check(path, check, now))

    def record_dial_failure(self, addresses: Collection[str]) -> Transition:
        """Record a failed dial of some addresses; see `RoleReports.record_dial_failure`."""
        return self._with_reports(self.role_reports.record_dial_failure(addresses))

    def _with_reports(self, reports: RoleReports) -> Transition:
        return (self if reports is self.role_reports else replace(self, role_reports=reports)), ()

    def record_path(self, path: End, known: Known) -> Transition:
        """Record whether a path is direct."""
        return replace(self, paths=MappingProxyType(remember(self.paths, path, known))), ()

    def record_address(self, address: str, instance: str) -> Transition:
        """Record which instance a connection to an address led to."""
        by_address = {**{each: id_ for each, id_ in self.by_address.items() if each != address}, address: instance}
        forget_oldest(by_address)
        return replace(self, by_address=MappingProxyType(by_address)), ()

    def advise(self, key: str, text: str, now: float) -> Transition:
        """Advise a change of the configuration, once for each `key`."""
        if key in self.advised:
            return self, ()
        return replace(self, advised=self.advised | {key}).record_events(now, ConfigurationAdvice(text))

    # ------------------------------------------------------------ suspicion of the writer

    def suspect_writer(self, reason: str, now: float) -> Transition:
        """Suspect the writer, unless it is suspected already."""
        suspicion = self.suspicion.begin(reason, now)
        if suspicion is self.suspicion:
            return self, ()
        return replace(self, suspicion=suspicion).record_events(now, WriterSuspected(reason))

    def confirm_writer(self, asked_at: float, now: float) -> Transition:
        """End the suspicion: the accepted writer was asked at `asked_at`, and reported that it is the writer."""
        since, writer = self.suspicion.since, self.view.writer
        if since is None or writer is None or not self.suspicion.is_answered(asked_at):
            return self, ()
        return replace(self, suspicion=self.suspicion.end()).record_events(now, WriterConfirmed(writer, now - since))

    def end_suspicion(self) -> Transition:
        """End a suspicion that nothing will confirm."""
        suspicion = self.suspicion.end()
        return (self if suspicion is self.suspicion else replace(self, suspicion=suspicion)), ()

    def record_refused_write(self, instance: str, generation: int, now: float, *, is_monitored: bool) -> Transition:
        """Record that the writer refused to write (25006): a hint, and no proof.

        A transaction may be read-only because the user chose that. It is no hint if the view has changed since the
        connection was made. Without a monitor the next connect has to query the topology.
        """
        if self.view.writer != instance or not self.view.is_current(instance, generation):
            return self, ()
        suspicion = self.suspicion.record_refused_write(now)
        if suspicion is self.suspicion:
            return self, ()
        demand = self.demand.set_overdue(overdue=not is_monitored)
        return replace(self, suspicion=suspicion, demand=demand).record_events(now, WriteRefused(instance))

    # ------------------------------------------------------------ refreshes and slow starts

    def bound_lag(self, bound: float, now: float) -> Transition:
        """A connect bounds the lag of readers; see `RefreshDemand.bound_lag`."""
        return self._with_demand(self.demand.bound_lag(bound, now))

    def miss_reader(self, now: float) -> Transition:
        """A connect wanted a reader, and none was known."""
        return self._with_demand(self.demand.miss_reader(now))

    def begin_refresh(self) -> Transition:
        """A connect queries the topology now."""
        return self._with_demand(self.demand.set_overdue(overdue=False))

    def begin_survey(self, now: float) -> Transition:
        """The monitor asks all instances one by one."""
        return self._with_demand(self.demand.begin_survey(now))

    def plan_count(self, at: float) -> Transition:
        """The monitor asks instances for their client connections at some time."""
        return self._with_demand(self.demand.plan_count(at))

    def _with_demand(self, demand: RefreshDemand) -> Transition:
        return (self if demand is self.demand else replace(self, demand=demand)), ()

    def change_dial_limit(self, limit: DialLimit) -> Transition:
        """Replace the limit of dials of the writer."""
        return (self if limit is self.dial_limit else replace(self, dial_limit=limit)), ()

    def record_probe(self, seconds: float, now: float) -> Transition:
        """Record that the monitor dialled the accepted writer within `seconds`; see `SlowStart.record_probe`."""
        return self.change_dial_limit(self.dial_limit.record_probe(self.view.epoch, seconds, now))

    # ------------------------------------------------------------ health of instances

    def record_failure(self, instance: str, now: float, base: float, began: float) -> Transition:
        """Avoid an instance for a while; see `Quarantine.record_failure`."""
        return self._with_health(self.health.record_failure(instance, now, base, began)), ()

    def prolong_failure(self, instance: str, now: float, seconds: float) -> Transition:
        """Go on to avoid a silent instance while it is asked; see `Quarantine.prolong`."""
        return self._with_health(self.health.prolong(instance, now, seconds)), ()

    def record_success(self, instance: str, now: float) -> Transition:
        """Record that an instance answered: it is not avoided any more."""
        failed_at = self.health.failed_at.get(instance)
        after = self._with_health(self.health.record_success(instance))
        return (
            (after, ()) if failed_at is None else after.record_events(now, InstanceRecovered(instance, now - failed_at))
        )

    def record_hang(self, now: float) -> Transition:
        """Record that an instance was found hung."""
        return self._with_health(self.health.record_hang(now)), ()

    def _with_health(self, health: Health) -> ClusterState:
        return self if health is self.health else replace(self, health=health)


Transition = tuple[ClusterState, tuple["Event", ...]]
"""The next state, and the events that describe the change, oldest first."""


def _describe_malformed(topology: Topology) -> str:
    ids, observer = ", ".join(topology.malformed[:3]), topology.observer or "an instance"
    return (
        f"{observer} lists instances whose ids cannot be read ({ids}): these rows are left out, and no instance is "
        "taken for removed by such an answer"
    )
