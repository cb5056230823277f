"""The state of one cluster in one process: what procedures share.

Theory. What is *known* of a cluster is one immutable value, the `ClusterState`, so readers take no lock and see one
moment. `update` replaces it as a whole, under the lock, by what a transition of `policy.cluster_state` returns; then it
wakes the waiters if there is news for them, and publishes the events. What is *counted* (connections, dials under way,
permits, waiters) are objects that exist elsewhere, and is changed in place, also under the lock. The runtime provides
the lock (a thread lock, or none in a simulation); no other module takes it. Waiters are woken one by one: each is a
callable of its own.

Invariant: what a connect takes (a reservation, the permit to query the topology, a place among the waiters) is an
object that only the connect holds; the cluster refers to it weakly. An exception from a signal handler may end a
connect between any two instructions, and then no ``finally`` runs. The object is collected with the connect, which
returns what was taken. Dead weak references are dropped without the lock: the thread that collects garbage may hold it.
"""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

from aurora_router.model.bounds import MAX_NAMES, forget_empty, forget_oldest
from aurora_router.model.instance import Role
from aurora_router.policy.auto_pause import find_pause, may_have_paused
from aurora_router.policy.balance import Rankings
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.context import Load

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from typing import Concatenate

    from aurora_router.flow.source import Source
    from aurora_router.model.event import Event
    from aurora_router.model.instance import Instance
    from aurora_router.model.observation import Observation, Topology
    from aurora_router.model.view import View
    from aurora_router.policy.admission import AdmissionPolicy
    from aurora_router.policy.balance import Selection
    from aurora_router.policy.cluster_state import Transition
    from aurora_router.policy.options import Options
    from aurora_router.policy.route import Identity, Request, Route
    from aurora_router.policy.slow_start import SlowStart

P = ParamSpec("P")
NONE: frozenset[str] = frozenset()


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

    def search_by(self, request: Request, route: Route) -> None:
        """Look for the writer by the names of a connect that waits for it, too."""
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
    """Permits one connect at a time to query the topology, for as long as that connect holds it.

    Attributes:
        thread: the thread in which the connect runs; None: it does not matter.
    """

    __slots__ = ("__weakref__", "thread")

    def __init__(self, thread: int | None) -> None:
        self.thread = thread


class Cluster:
    """What this process knows of one cluster, and its connections to it.

    Attributes:
        identity: what the user named.
        state: all that is known, as one value; `update` replaces it.
        news: how many times there was news for waiters.
        source: how the topology was read last; None: it was not read yet.
        monitor: the monitor of the cluster; None: it has none.
        used_at: when a connect last began, by the runtime's clock.
        members_asked_at: when the manager of the cluster was last asked for its members, by the runtime's clock.
        log_advanced_at: when the log of an instance was last made to grow, by id and the runtime's clock.
        turn: how many connects have chosen an instance, from a random number on.
        is_crowded: whether the monitor has to close its sessions, because an instance has no connection slot left.
        rankings: what the policy made of the view for the last connects.
        dial_permits: what the dials under way in the present slow start hold.
        connects: the last connects, each with its time; None: they are not remembered.
    """

    def __init__(self, identity: Identity, registry: ClusterRegistry, lock: AbstractContextManager[Any]) -> None:
        self.identity = identity
        self.registry = registry
        self._lock = lock
        self.state = ClusterState()
        self.news = 0
        self.source: Source | None = None
        self.monitor: Monitor | None = None
        self.admission: AdmissionPolicy | None = None
        self.used_at = math.inf
        self.members_asked_at = -math.inf
        self.log_advanced_at: dict[str, float] = {}
        self.turn = 0
        self.is_crowded = False
        self.rankings = Rankings()
        self.dial_permits: weakref.WeakSet[Any] = weakref.WeakSet()
        self.connects: deque[tuple[float, Any]] | None = None
        self._topology_permit: weakref.ref[TopologyPermit] | None = None
        self._waiters: weakref.WeakKeyDictionary[Callable[[], None], None] = weakref.WeakKeyDictionary()
        self._dialling: dict[str, weakref.WeakSet[Reservation]] = {}
        self._connections: dict[str, weakref.WeakKeyDictionary[Any, None]] = {}
        self._latency: dict[str, float] = {}
        self._held_at: dict[str, float] = {}

    @property
    def name(self) -> str:
        """The cluster's name, for people."""
        return self.identity.name or self.identity.scope

    # ------------------------------------------------------------ state

    def update(
        self, transition: Callable[Concatenate[ClusterState, P], Transition], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Event, ...]:
        """Replace the state, wake the waiters if there is news, and publish the events; returns the events.

        Args:
            transition: returns the next state, and the events. It runs under the lock, so what is counted may be
                changed in the same step; it runs again where a signal handler has changed the state meanwhile.
            args: what the transition takes after the state.
            kwargs: the same, by name.
        """
        with self._lock:
            before = self.state
            after, events = transition(before, *args, **kwargs)
            while self.state is not before:  # a signal handler has changed it meanwhile
                before = self.state
                after, events = transition(before, *args, **kwargs)
            self.state = after
            is_news = self.state.is_news(before)
        if is_news:
            self.wake()
        for event in events:
            self.registry.publish(self, event)
        return events

    @property
    def temporary_refusals(self) -> frozenset[str]:
        """SQLSTATEs with which its servers refuse logins for as long as they restart; see `Source.temporary`."""
        return NONE if self.source is None else self.source.temporary

    @property
    def view(self) -> View:
        """The evidence: instances, their roles, the accepted writer."""
        return self.state.view

    @property
    def suspected_at(self) -> float | None:
        """Since when the writer is suspected; None: it is not."""
        return self.state.suspicion.since

    @property
    def slow_start(self) -> SlowStart | None:
        """The slow start of the writer; None: its dials are not limited."""
        return self.state.dial_limit.slow_start

    @property
    def limits_dials(self) -> bool:
        """Whether dials of the writer need a `DialPermit`: it is a new one, or its slow start goes on."""
        limit = self.state.dial_limit
        return limit.slow_start is not None or self.state.view.epoch > limit.epoch

    def observe(self, observation: Observation, now: float) -> tuple[Event, ...]:
        """Change the view by an observation. Returns the events."""
        return self.update(ClusterState.observe, observation, now)

    def report(self, event: Event, now: float) -> None:
        """Remember an event and publish it."""
        self.update(ClusterState.record_events, now, event)

    def record_failure(self, instance: str, now: float, base: float, began: float) -> None:
        """Avoid an instance for a while; see `Quarantine.record_failure`."""
        self.update(ClusterState.record_failure, instance, now, base, began)

    def record_success(self, instance: str, latency: float, now: float) -> None:
        """Record that an instance answered a dial within `latency` seconds."""
        health = self.state.health
        if instance in health.failed_at or instance in health.quarantine.terms:
            self.update(ClusterState.record_success, instance, now)
        with self._lock:
            self._held_at[instance] = now
            known = self._latency.get(instance)
            self._latency[instance] = latency if known is None else 0.8 * known + 0.2 * latency
            if len(self._latency) > MAX_NAMES:
                forget_oldest(self._latency)
                forget_oldest(self._held_at)

    # ------------------------------------------------------------ waiters

    def change_admission(self, policy: AdmissionPolicy | None) -> None:
        """Let a policy decide about the connects from now on, and about those that are held; None: each may begin."""
        self.admission = policy
        self.wake()

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

    # ------------------------------------------------------------ the monitor, and suspicion of the writer

    @property
    def is_monitored(self) -> bool:
        """Whether a monitor finds out about changes of the cluster by itself."""
        return self.monitor is not None and self.monitor.can_ask

    def is_news_for_monitor(self, request: Request, route: Route, params: Any) -> bool:
        """Whether the monitor has to be started, or has to learn how a user connected."""
        return self.monitor is None or self.monitor.settled != (request, route, params)

    def is_known_down(self, instance: str) -> bool:
        """Whether an instance is a reader that failed before, and has not answered since.

        That it still does not answer is no reason to suspect the writer.
        """
        known = self.view.instances.get(instance)
        return instance in self.state.health.failed_at and known is not None and known.role is Role.READER

    def suspect_writer(self, reason: str, now: float) -> None:
        """Suspect the writer, so that the monitor asks all instances at once. Without a monitor nothing happens."""
        if self.suspected_at is None:
            self.update(lambda state: state.suspect_writer(reason, now) if self.is_monitored else (state, ()))

    def record_refused_write(self, instance: str, generation: int, now: float) -> None:
        """Check the writer after a 25006 on a connection to it; without a monitor the next connect does that."""
        is_monitored = self.is_monitored
        if self.update(ClusterState.record_refused_write, instance, generation, now, is_monitored=is_monitored):
            self.suspect_writer(f"{instance} refused to write", now)

    def make_room(self) -> bool:
        """Make the monitor close its sessions: an instance has no connection slot left. Returns whether it has any."""
        if self.monitor is None or not self.monitor.has_sessions:
            return False
        self.is_crowded = True
        self.wake()
        return True

    def on_monitor_stopped(self) -> None:
        """End a suspicion that the monitor cannot resolve: connects that wait have to find the writer themselves."""
        self.update(ClusterState.end_suspicion)
        self.wake()  # also without a suspicion: there is no monitor to wait for any more

    def reset_after_fork(self, lock: AbstractContextManager[Any]) -> None:
        """Forget, in the child of a fork, what is the parent's: connections, waiters, monitor, a held lock."""
        self._lock = lock
        self.monitor = None
        self.state, _ = self.state.end_suspicion()
        self._waiters = weakref.WeakKeyDictionary()
        self._connections = {}

    # ------------------------------------------------------------ topology queries

    @property
    def is_querying_topology(self) -> bool:
        """Whether a connect holds the permit to query the topology."""
        return self.topology_permit is not None

    @property
    def topology_permit(self) -> TopologyPermit | None:
        """The permit to query the topology, if a connect holds it."""
        permit = self._topology_permit
        return None if permit is None else permit()

    def begin_topology_query(self, thread: int | None = None) -> TopologyPermit | None:
        """Permit the caller to query the topology, until `end_topology_query` or until it drops the result.

        None: another connect does.
        """
        with self._lock:
            if self.is_querying_topology:
                return None
            permit = TopologyPermit(thread)
            self._topology_permit = weakref.ref(permit)
            return permit

    def end_topology_query(self) -> None:
        """Release the permit, whether or not the query succeeded."""
        with self._lock:
            self._topology_permit = None
        self.wake()

    # ------------------------------------------------------------ connections and dials

    @property
    def needed(self) -> bool:
        """Whether this process has, opens or waits for a connection."""
        with self._lock:
            return (
                bool(self._waiters)
                or any(map(len, list(self._dialling.values())))
                or any(map(len, list(self._connections.values())))
            )

    def loads(self, ids: Iterable[str]) -> dict[str, Load]:
        """Connections in use or being made, and dial latency, of each instance."""
        held, reserved, latency = self._connections, self._dialling, self._latency
        return {id_: Load(len(held.get(id_, ())) + len(reserved.get(id_, ())), latency.get(id_)) for id_ in ids}

    @property
    def usual_latency(self) -> float | None:
        """How long a dial usually takes at best, in seconds; None: no dial has succeeded yet."""
        return min(self._latency.values(), default=None)

    def connections(self, instance: str) -> int:
        """How many connections of this process are open, or being opened, to `instance`."""
        return self.loads([instance])[instance].connections

    def note_held(self, now: float) -> None:
        """Note the time for each instance to which this process has a connection; see `may_have_paused`."""
        self._held_at.update(dict.fromkeys(self.held_instances(), now))

    def held_instances(self) -> set[str]:
        """The instances to which this process has an open connection."""
        with self._lock:
            return {id_ for id_, held in self._connections.items() if len(held)}

    def may_have_paused(self, instance: str | None, options: Options, now: float) -> bool:
        """Whether an instance may have paused, see `policy.auto_pause`; None: each of those that are known."""
        pause = find_pause(options, self.view)
        if pause is None:
            return False
        self.note_held(now)
        ids = self.view.instances if instance is None else (instance,)
        return all(may_have_paused(pause, self._used_at(id_), now) for id_ in ids)

    def _used_at(self, instance: str) -> float | None:
        known, held = self.view.instances.get(instance), self._held_at.get(instance)
        times = [each for each in (held, None if known is None else known.heard_at) if each is not None]
        return max(times, default=None)

    @property
    def has_writer_connection(self) -> bool:
        """Whether this process has an open connection to the writer."""
        return bool(self._connections.get(self.view.writer or ""))

    def next_turn(self) -> int:
        """Return a number that no other connect of this process has had."""
        with self._lock:
            self.turn += 1
            return self.turn - 1

    def choose(
        self, choice: Callable[[], tuple[Selection, Instance | None]], *, is_atomic: bool = True
    ) -> tuple[Selection, Instance | None, Reservation | None]:
        """Choose an instance, and count a connection to it; both in one step, so that concurrent connects spread.

        Args:
            choice: returns a selection, and the instance to count; None: no connection is counted.
            is_atomic: whether it is called under the lock. False: concurrent connects may see the same counts.

        Returns:
            What `choice` returned, and what counts the connection.
        """
        if not is_atomic:
            selection, instance = choice()
            return selection, instance, None if instance is None else self.reserve(instance.id)
        with self._lock:
            selection, instance = choice()
            return selection, instance, None if instance is None else self._reserve(instance.id)

    def reserve(self, instance: str) -> Reservation:
        """Count a dial that begins, until `release` or until the result is dropped."""
        with self._lock:
            return self._reserve(instance)

    def _reserve(self, instance: str) -> Reservation:
        reservation = Reservation(self, instance)
        reserved = self._dialling.get(instance)
        if reserved is None:
            forget_empty(self._dialling)
            reserved = self._dialling.setdefault(instance, weakref.WeakSet())
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
                forget_empty(self._connections)
                held = self._connections.setdefault(instance, weakref.WeakKeyDictionary())
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
            refs = {id_: held.keyrefs() for id_, held in list(self._connections.items())}
        living = {id_: [each for ref in those if (each := ref()) is not None] for id_, those in refs.items()}
        return {id_: those for id_, those in living.items() if those}
