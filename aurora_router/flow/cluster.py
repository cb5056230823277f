"""The state of one cluster in one process: what procedures share.

The view is immutable and replaced as a whole, so readers take no lock. Only `reduce` makes a new one. Changes take the
lock, which the runtime provides (a thread lock, or none in a simulation); no other module takes it. Waiters are woken
one by one: each is a callable of its own.

Invariant: what a connect takes (a reservation, the permit to query the topology, a place among the waiters) is an
object that only the connect holds; the cluster refers to it weakly. An exception from a signal handler may end a
connect between any two instructions, and then no ``finally`` runs. The object is collected with the connect, which
returns what was taken. Dead weak references are dropped without the lock: the thread that collects garbage may hold it.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from aurora_router.model.bounds import MAX_NAMES, forget_oldest
from aurora_router.model.event import (
    ConfigurationAdvice,
    InstanceFailed,
    InstanceRecovered,
    InstanceRemoved,
    WriterConfirmed,
    WriteRefused,
    WriterSuspected,
)
from aurora_router.model.observation import Topology
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View
from aurora_router.policy import poll_interval
from aurora_router.policy.context import Load
from aurora_router.policy.quarantine import Quarantine
from aurora_router.policy.role_reports import RoleReports

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from contextlib import AbstractContextManager

    from aurora_router.flow.dial_limiter import DialPermit
    from aurora_router.flow.source import Source
    from aurora_router.model.event import Event
    from aurora_router.model.observation import Observation
    from aurora_router.policy.balance import Selection
    from aurora_router.policy.paths import End, Known
    from aurora_router.policy.role_reports import Path, RoleCheck
    from aurora_router.policy.route import Identity, Request, Route
    from aurora_router.policy.slow_start import SlowStart


REFUSAL_SECONDS = 1.0
"""Statements that the writer refuses as read-only start one check per so many seconds: some sessions are read-only."""

TRAIL = 64
"""How many recent events a cluster remembers."""


class Monitor(Protocol):
    """The background monitor of a cluster, as far as connects use it.

    Attributes:
        settled: the request, the route and the parameters of the last connect, if another one like it is no news; None:
            the monitor waits for the next connect.
    """

    settled: tuple[Request, Route, Any] | None

    @property
    def can_ask(self) -> bool:
        """Whether it can query the instances: it can log in, and knows their addresses."""
        ...

    @property
    def has_sessions(self) -> bool:
        """Whether it has a session with any instance."""
        ...

    def has_stalled(self, since: float, now: float) -> bool:
        """Whether this process was stalled at some time since then."""
        ...


class ClusterRegistry(Protocol):
    """The clusters of a process, by name."""

    def match_cluster(self, cluster: Cluster, key: Identity, topology: Topology) -> Cluster:
        """Return the cluster that an answer through the name `key` describes; so far the name stood for `cluster`."""
        ...

    def publish(self, cluster: Cluster, event: Event) -> None:
        """Pass an event to the subscribers."""
        ...


class Reservation:
    """A dial that has begun, counted as a connection to its instance until it is released or gone."""

    __slots__ = ("__weakref__", "cluster", "instance")

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self.cluster = cluster
        self.instance = instance


class TopologyPermit:
    """Permits one connect at a time to query the topology, for as long as that connect holds it."""

    __slots__ = ("__weakref__",)


class Cluster:
    """What this process knows of one cluster, and its connections to it."""

    def __init__(self, identity: Identity, registry: ClusterRegistry, lock: AbstractContextManager[Any]) -> None:
        self.identity = identity
        self.registry = registry
        self._lock = lock
        self.view = View()
        self.quarantine = Quarantine()
        self.source: Source | None = None
        self.role_reports = RoleReports()
        self.turn = 0
        self.by_address: dict[str, str] = {}
        self.max_lag: tuple[float, float] | None = None
        self.reader_missed_at: float | None = None
        self.paths: dict[End, Known] = {}
        self.warned: set[str] = set()
        self.news = 0
        self.monitor: Monitor | None = None
        self.suspected_at: float | None = None
        self.slow_start: SlowStart | None = None
        self.slow_start_epoch = 1
        self.dial_permits: weakref.WeakSet[DialPermit] = weakref.WeakSet()
        self.hung_at = -1.0
        self.used_at = math.inf
        self.overdue = False
        self.surveyed_at = -math.inf
        self.is_crowded = False
        self._refused_at = -REFUSAL_SECONDS
        self.trail: deque[tuple[float, Event]] = deque(maxlen=TRAIL)
        self._topology_permit: weakref.ref[TopologyPermit] | None = None
        self._waiters: weakref.WeakKeyDictionary[Callable[[], None], None] = weakref.WeakKeyDictionary()
        self._dialling: dict[str, weakref.WeakSet[Reservation]] = {}
        self._latency: dict[str, float] = {}
        self._failed_at: dict[str, float] = {}
        self._connections: dict[str, weakref.WeakKeyDictionary[Any, None]] = {}

    @property
    def name(self) -> str:
        """The cluster's name, for people."""
        return self.identity.name or self.identity.scope

    # ------------------------------------------------------------ the view

    def observe(self, observation: Observation, now: float) -> tuple[Event, ...]:
        """Change the view by an observation; wake the waiters and publish the events. Returns the events."""
        with self._lock:
            before = self.view
            self.view, events = reduce(before, observation, now)
            changed = self.view is not before
            if self.view.writer != before.writer:
                self.role_reports = self.role_reports.writer_changed()
        if changed:
            self.wake()
        if isinstance(observation, Topology) and observation.malformed and "rows" not in self.warned:
            self.warned.add("rows")
            events += (ConfigurationAdvice(_describe_malformed(observation)),)
        for event in events:
            self.report(event, now)
        return events

    def note_max_lag(self, bound: float, now: float) -> None:
        """Note that a connect bounds the lag of readers: the lowest bound in use sets the monitor's pace."""
        known = self.max_lag
        if known is None or bound <= known[0] or now - known[1] > poll_interval.IN_USE_SECONDS:
            self.max_lag = bound, now

    def record_role_check(self, path: Path, check: RoleCheck, now: float) -> None:
        """Record the answer to a role query on a path; see `RoleReports.checked`."""
        with self._lock:
            self.role_reports = self.role_reports.checked(path, check, now)

    def record_dial_failure(self, addresses: Collection[str]) -> None:
        """Record a failed dial of some addresses; see `RoleReports.dial_failed`."""
        with self._lock:
            self.role_reports = self.role_reports.dial_failed(addresses)

    def report(self, event: Event, now: float) -> None:
        """Remember an event and publish it."""
        if isinstance(event, InstanceFailed):
            self._failed_at.setdefault(event.id, now)
            forget_oldest(self._failed_at)
        elif isinstance(event, InstanceRemoved):
            self._failed_at.pop(event.id, None)
        self.trail.append((now, event))
        self.registry.publish(self, event)

    def wake(self) -> None:
        """Wake every procedure that waits for a change."""
        with self._lock:
            self.news += 1
            waiters, self._waiters = self._waiters, weakref.WeakKeyDictionary()
        for waiter in list(waiters):
            waiter()

    def add_waiter(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once, from any thread, at the next change, if its owner still holds it then."""
        with self._lock:
            self._waiters[waiter] = None

    def drop_waiter(self, waiter: Callable[[], None]) -> None:
        """Forget a waiter that no longer waits."""
        with self._lock:
            self._waiters.pop(waiter, None)

    # ------------------------------------------------------------ suspicion of the writer

    @property
    def is_monitored(self) -> bool:
        """Whether a monitor finds out about changes of the cluster by itself."""
        return self.monitor is not None and self.monitor.can_ask

    def is_news_for_monitor(self, request: Request, route: Route, params: Any) -> bool:
        """Whether the monitor has to be started, or has to learn how a user connected."""
        return self.monitor is None or self.monitor.settled != (request, route, params)

    def suspect_writer(self, reason: str, now: float) -> None:
        """Suspect the writer, so that the monitor asks all instances at once. Without a monitor nothing happens."""
        with self._lock:
            if self.suspected_at is not None or not self.is_monitored:
                return
            self.suspected_at = now
        self.report(WriterSuspected(reason), now)
        self.wake()

    def record_refused_write(self, instance: str, generation: int, now: float) -> None:
        """Check the writer after a 25006 on a connection to it; without a monitor the next connect does that.

        The error is a hint and no proof: a transaction may be read-only because the user chose that. It is no hint if
        the view has changed since the connection was made.
        """
        with self._lock:
            if self.view.writer != instance or not self.view.is_current(instance, generation):
                return
            if now - self._refused_at < REFUSAL_SECONDS:
                return
            self._refused_at = now
            self.overdue = not self.is_monitored
        self.report(WriteRefused(instance), now)
        self.suspect_writer(f"{instance} refused to write", now)

    def confirm_writer(self, asked_at: float, now: float) -> None:
        """End a suspicion that is older than `asked_at`, when the accepted writer was asked and confirmed its role."""
        with self._lock:
            since, writer = self.suspected_at, self.view.writer
            if since is None or asked_at < since or writer is None:
                return
            self.suspected_at = None
        self.report(WriterConfirmed(writer, now - since), now)
        self.wake()

    def make_room(self) -> bool:
        """Make the monitor close its sessions: an instance has no connection slot left. Returns whether it has any."""
        if self.monitor is None or not self.monitor.has_sessions:
            return False
        self.is_crowded = True
        self.wake()
        return True

    def on_monitor_stopped(self) -> None:
        """End a suspicion that the monitor cannot resolve: connects that wait have to find the writer themselves."""
        self.suspected_at = None
        self.wake()

    def reset_after_fork(self, lock: AbstractContextManager[Any]) -> None:
        """Forget, in the child of a fork, what is the parent's: connections, waiters, monitor, a held lock."""
        self._lock = lock
        self.monitor, self.suspected_at = None, None
        self._waiters = weakref.WeakKeyDictionary()
        self._connections = {}

    def note_address(self, address: str, instance: str) -> None:
        """Note which instance a connection to an address led to."""
        self.by_address.pop(address, None)
        self.by_address[address] = instance
        forget_oldest(self.by_address)

    @property
    def needed(self) -> bool:
        """Whether this process has, opens or waits for a connection."""
        with self._lock:
            return (
                bool(self._waiters)
                or any(map(len, self._dialling.values()))
                or any(map(len, self._connections.values()))
            )

    def has_stalled(self, since: float, now: float) -> bool:
        """Whether this process was stalled at some time since then, as far as the monitor's samples show it."""
        monitor = self.monitor
        return monitor is not None and monitor.has_stalled(since, now)

    @property
    def limits_dials(self) -> bool:
        """Whether dials of the writer need a `DialPermit`: it is a new one, or its slow start goes on."""
        return self.slow_start is not None or self.view.epoch > self.slow_start_epoch

    def begin_slow_start(self, begin: Callable[[], SlowStart]) -> None:
        """Begin the slow start of a new writer, unless another connect did."""
        with self._lock:
            if self.slow_start_epoch < self.view.epoch:
                self.slow_start_epoch = self.view.epoch
                self.dial_permits = weakref.WeakSet()
                self.slow_start = begin()

    def end_slow_start(self, slow_start: SlowStart) -> None:
        """End a slow start that has expired, unless it has changed meanwhile."""
        with self._lock:
            if self.slow_start is slow_start:
                self.slow_start = None

    def begin_dial(self, permit: DialPermit) -> int | None:
        """Count a dial in the slow start; returns the writer's epoch, or None if there is no slow start."""
        with self._lock:
            if self.slow_start is None:
                return None
            self.dial_permits.add(permit)
            self.slow_start = self.slow_start.add_dial()
            return self.slow_start_epoch

    def end_dial(self, permit: DialPermit, epoch: int, follow: Callable[[SlowStart], SlowStart]) -> None:
        """Record the end of a dial in the slow start of its epoch; one of a former writer shows nothing."""
        with self._lock:
            self.dial_permits.discard(permit)
            if self.slow_start_epoch != epoch:
                return
            following = None if self.slow_start is None else follow(self.slow_start)
            self.slow_start = None if following is None or following.over else following
        self.wake()

    def record_probe(self, seconds: float, now: float) -> None:
        """Record that the monitor dialled the accepted writer within `seconds`; see `SlowStart.record_probe`."""
        with self._lock:
            if self.slow_start is not None and self.slow_start_epoch == self.view.epoch:
                self.slow_start = self.slow_start.record_probe(seconds, now)

    # ------------------------------------------------------------ topology queries

    @property
    def is_querying_topology(self) -> bool:
        """Whether a connect holds the permit to query the topology."""
        permit = self._topology_permit
        return permit is not None and permit() is not None

    def begin_topology_query(self) -> TopologyPermit | None:
        """Permit the caller to query the topology, until `end_topology_query` or until it drops the result.

        None: another connect does.
        """
        with self._lock:
            if self.is_querying_topology:
                return None
            permit = TopologyPermit()
            self._topology_permit = weakref.ref(permit)
            return permit

    def end_topology_query(self) -> None:
        """Release the permit, whether or not the query succeeded."""
        with self._lock:
            self._topology_permit = None
        self.wake()

    # ------------------------------------------------------------ success and failure

    def record_failure(self, instance: str, now: float, base: float, began: float) -> None:
        """Avoid an instance for a while; see `Quarantine.record_failure`."""
        with self._lock:
            self.quarantine = self.quarantine.record_failure(instance, now, base, began)

    def record_success(self, instance: str, latency: float, now: float) -> None:
        """Record that an instance answered a dial within `latency` seconds."""
        failed_at = self._failed_at.pop(instance, None) if self._failed_at else None
        if failed_at is not None:
            self.report(InstanceRecovered(instance, now - failed_at), now)
        with self._lock:
            if instance in self.quarantine.terms:
                self.quarantine = self.quarantine.record_success(instance)
            known = self._latency.get(instance)
            self._latency[instance] = latency if known is None else 0.8 * known + 0.2 * latency
            if len(self._latency) > MAX_NAMES:
                forget_oldest(self._latency)

    # ------------------------------------------------------------ load

    def loads(self, ids: Iterable[str]) -> dict[str, Load]:
        """Connections in use or being made, and dial latency, of each instance."""
        return {id_: Load(self.connections(id_), self._latency.get(id_)) for id_ in ids}

    @property
    def usual_latency(self) -> float | None:
        """How long a dial usually takes at best, in seconds; None: no dial has succeeded yet."""
        return min(self._latency.values(), default=None)

    def connections(self, instance: str) -> int:
        """How many connections of this process are open, or being opened, to `instance`."""
        held, reserved = self._connections.get(instance), self._dialling.get(instance)
        return (0 if reserved is None else len(reserved)) + (0 if held is None else len(held))

    @property
    def has_writer_connection(self) -> bool:
        """Whether this process has an open connection to the writer."""
        return bool(self._connections.get(self.view.writer or ""))

    def next_turn(self) -> int:
        """Return a number that no other connect of this process has had."""
        with self._lock:
            self.turn += 1
            return self.turn - 1

    def choose(self, choice: Callable[[], tuple[Selection, str | None]]) -> tuple[Selection, Reservation | None]:
        """Choose an instance, and count a connection to it; both in one step, so that concurrent connects spread.

        Args:
            choice: returns a selection, and the id of the instance to count; None: no connection is counted.
        """
        with self._lock:
            selection, instance = choice()
            return selection, None if instance is None else self._reserve(instance)

    def reserve(self, instance: str) -> Reservation:
        """Count a dial that begins, until `release` or until the result is dropped."""
        with self._lock:
            return self._reserve(instance)

    def _reserve(self, instance: str) -> Reservation:
        reservation = Reservation(self, instance)
        reserved = self._dialling.get(instance)
        if reserved is None:
            _forget_empty(self._dialling)
            reserved = self._dialling[instance] = weakref.WeakSet()
        reserved.add(reservation)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Undo `reserve`."""
        with self._lock:
            self._unreserve(reservation)

    def _unreserve(self, reservation: Reservation) -> None:
        reserved = self._dialling.get(reservation.instance)
        if reserved is not None:
            reserved.discard(reservation)

    def track(self, instance: str, connection: Any, *, reservation: Reservation | None = None) -> None:
        """Count an open connection until `untrack`, or until it is garbage; it replaces the reservation, if any."""
        with self._lock:
            if reservation is not None:
                self._unreserve(reservation)
            held = self._connections.get(instance)
            if held is None:
                _forget_empty(self._connections)
                held = self._connections[instance] = weakref.WeakKeyDictionary()
            held[connection] = None

    def untrack(self, instance: str, connection: Any) -> None:
        """Stop counting a connection: it was closed."""
        with self._lock:
            held = self._connections.get(instance)
            if held is not None:
                held.pop(connection, None)

    def tracked_connections(self) -> dict[str, list[Any]]:
        """Return the open connections, by instance."""
        with self._lock:
            refs = {id_: held.keyrefs() for id_, held in self._connections.items()}
        living = {id_: [each for ref in those if (each := ref()) is not None] for id_, those in refs.items()}
        return {id_: those for id_, those in living.items() if those}


def _forget_empty(counted: dict[str, Any]) -> None:
    """Forget instances without connections if there are too many."""
    if len(counted) >= MAX_NAMES:
        for instance in [each for each, those in counted.items() if not len(those)]:
            del counted[instance]


def _describe_malformed(topology: Topology) -> str:
    ids, observer = ", ".join(topology.malformed[:3]), topology.observer or "an instance"
    return (
        f"{observer} lists instances whose ids cannot be read ({ids}): these rows are left out, and no instance is "
        "taken for removed by such an answer"
    )
