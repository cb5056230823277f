"""The state of one cluster in one process: what procedures share.

The view is immutable and swapped as a whole, so readers take no lock; changes take `lock`, which the runtime gives
(a thread lock, or nothing in a simulation). Waiters are woken one by one: each is a callable of its own.

Invariant: what a connect takes (a reservation, the right to learn, a place among the waiters) is an object that the
connect alone holds; the cluster refers to it weakly. An exception from a signal handler may end a connect between any
two instructions, and then no ``finally`` gives back what was taken: the object goes with the connect, which does. Weak
references are let go of without the lock, which the thread that collects garbage may hold.
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
from aurora_router.policy.balance import Load
from aurora_router.policy.quarantine import Quarantine
from aurora_router.policy.role_reports import RoleReports

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from contextlib import AbstractContextManager

    from aurora_router.flow.dial_limiter import DialPermit
    from aurora_router.flow.source import Source
    from aurora_router.model.event import Event
    from aurora_router.model.observation import Observation
    from aurora_router.policy.paths import End, Known
    from aurora_router.policy.role_reports import Path, RoleCheck
    from aurora_router.policy.route import Identity
    from aurora_router.policy.slow_start import SlowStart


REFUSAL_SECONDS = 1.0
"""A statement that the writer refuses as read-only is looked into once in so many seconds: some sessions are."""

TRAIL = 64
"""How many recent events a cluster remembers."""


class Watcher(Protocol):
    """Who looks after a cluster in the background."""

    @property
    def sighted(self) -> bool:
        """Whether it can ask the instances: it was let in, and knows where they are."""
        ...

    @property
    def has_sessions(self) -> bool:
        """Whether it has a session with any instance."""
        ...

    def is_unattended(self, since: float, now: float) -> bool:
        """Whether this process was not attending at some time since then."""
        ...


class Home(Protocol):
    """Where the clusters of a process are kept."""

    def settle(self, cluster: Cluster, key: Identity, topology: Topology) -> Cluster:
        """The cluster that an answer through the name `key` is of; so far the name stood for `cluster`."""
        ...

    def publish(self, cluster: Cluster, event: Event) -> None:
        """Tell whoever listens."""
        ...


class Reservation:
    """A dial that has begun, counted as a connection to its instance until it is released or gone."""

    __slots__ = ("__weakref__", "cluster", "instance")

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self.cluster = cluster
        self.instance = instance


class Learner:
    """The right to learn the topology, for as long as its owner has it."""

    __slots__ = ("__weakref__",)


class Cluster:
    """What this process knows of one cluster, and its connections to it."""

    def __init__(self, identity: Identity, home: Home, lock: AbstractContextManager[Any]) -> None:
        self.identity = identity
        self.home = home
        self.lock = lock
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
        self.watcher: Watcher | None = None
        self.doubted_at: float | None = None
        self.slow_start: SlowStart | None = None
        self.slow_start_epoch = 1
        self.turns: weakref.WeakSet[DialPermit] = weakref.WeakSet()
        self.hung_at = -1.0
        self.used_at = math.inf
        self.overdue = False
        self.surveyed_at = -math.inf
        self.is_crowded = False
        self._refused_at = -REFUSAL_SECONDS
        self.trail: deque[tuple[float, Event]] = deque(maxlen=TRAIL)
        self._learner: weakref.ref[Learner] | None = None
        self._waiters: weakref.WeakKeyDictionary[Callable[[], None], None] = weakref.WeakKeyDictionary()
        self._dialling: dict[str, weakref.WeakSet[Reservation]] = {}
        self._latency: dict[str, float] = {}
        self._failed_at: dict[str, float] = {}
        self._connections: dict[str, weakref.WeakKeyDictionary[Any, None]] = {}

    @property
    def name(self) -> str:
        """The cluster, as people would call it."""
        return self.identity.name or self.identity.scope

    # ------------------------------------------------------------ the view

    def observe(self, observation: Observation, now: float) -> tuple[Event, ...]:
        """Let an observation change the view; wakes the waiters and publishes what happened."""
        with self.lock:
            before = self.view
            self.view, events = reduce(before, observation, now)
            changed = self.view is not before
            if self.view.writer != before.writer:
                self.role_reports = self.role_reports.writer_changed()
        if changed:
            self.wake()
        if isinstance(observation, Topology) and observation.malformed and "rows" not in self.warned:
            self.warned.add("rows")
            events += (ConfigurationAdvice(_unreadable(observation)),)
        for event in events:
            self.tell(event, now)
        return events

    def note_max_lag(self, bound: float, now: float) -> None:
        """Note that a connect bounds the lag of readers: the lowest bound in use sets the watch's pace."""
        known = self.max_lag
        if known is None or bound <= known[0] or now - known[1] > poll_interval.IN_USE_SECONDS:
            self.max_lag = bound, now

    def role_checked(self, path: Path, check: RoleCheck, now: float) -> None:
        """A server was asked for its role on a session of a path; see `RoleReports.checked`."""
        with self.lock:
            self.role_reports = self.role_reports.checked(path, check, now)

    def dial_failed(self, addresses: Collection[str]) -> None:
        """A dial of some addresses failed; see `RoleReports.dial_failed`."""
        with self.lock:
            self.role_reports = self.role_reports.dial_failed(addresses)

    def tell(self, event: Event, now: float) -> None:
        """Remember an event and publish it."""
        if isinstance(event, InstanceFailed):
            self._failed_at.setdefault(event.id, now)
            forget_oldest(self._failed_at)
        elif isinstance(event, InstanceRemoved):
            self._failed_at.pop(event.id, None)
        self.trail.append((now, event))
        self.home.publish(self, event)

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        with self.lock:
            self.news += 1
            waiters, self._waiters = self._waiters, weakref.WeakKeyDictionary()
        for waiter in list(waiters):
            waiter()

    def add_waiter(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once, from any thread, at the next change, if its owner still has it then."""
        with self.lock:
            self._waiters[waiter] = None

    def drop_waiter(self, waiter: Callable[[], None]) -> None:
        """Forget a waiter that no longer waits."""
        with self.lock:
            self._waiters.pop(waiter, None)

    # ------------------------------------------------------------ doubt

    @property
    def watched(self) -> bool:
        """Whether somebody finds out by himself what became of the cluster."""
        return self.watcher is not None and self.watcher.sighted

    def doubt(self, reason: str, now: float) -> None:
        """Something is wrong: let whoever watches ask all instances at once. Nobody watches: nothing happens."""
        with self.lock:
            if self.doubted_at is not None or not self.watched:
                return
            self.doubted_at = now
        self.tell(WriterSuspected(reason), now)
        self.wake()

    def write_refused(self, instance: str, generation: int, now: float) -> None:
        """Look into a 25006 on a connection to the writer: ask all instances, or with the next connect if unwatched.

        It is a hint and no proof: a transaction may be read-only by the user's own wish. It is none where the view has
        changed since the connection was made.
        """
        with self.lock:
            if self.view.writer != instance or not self.view.is_current(instance, generation):
                return
            if now - self._refused_at < REFUSAL_SECONDS:
                return
            self._refused_at = now
            self.overdue = not self.watched
        self.tell(WriteRefused(instance), now)
        self.doubt(f"{instance} refused to write", now)

    def verified(self, asked_at: float, now: float) -> None:
        """The accepted writer confirmed itself, asked at `asked_at`: a doubt that is older is over."""
        with self.lock:
            since, writer = self.doubted_at, self.view.writer
            if since is None or asked_at < since or writer is None:
                return
            self.doubted_at = None
        self.tell(WriterConfirmed(writer, now - since), now)
        self.wake()

    def make_room(self) -> bool:
        """Have the watch close its sessions: an instance has no place left. Returns whether it has any."""
        if self.watcher is None or not self.watcher.has_sessions:
            return False
        self.is_crowded = True
        self.wake()
        return True

    def unattended(self) -> None:
        """Nobody watches any more: whoever waits has to look himself."""
        self.doubted_at = None
        self.wake()

    def disown(self, lock: AbstractContextManager[Any]) -> None:
        """In the child of a fork: connections, waiters and watch are the parent's, and a lock may be held for ever."""
        self.lock = lock
        self.watcher, self.doubted_at = None, None
        self._waiters = weakref.WeakKeyDictionary()
        self._connections = {}

    def note_address(self, address: str, instance: str) -> None:
        """Note which instance a connection to an address led to."""
        self.by_address.pop(address, None)
        self.by_address[address] = instance
        forget_oldest(self.by_address)

    @property
    def needed(self) -> bool:
        """Whether anybody has, makes or waits for a connection."""
        with self.lock:
            return (
                bool(self._waiters)
                or any(map(len, self._dialling.values()))
                or any(map(len, self._connections.values()))
            )

    def is_unattended(self, since: float, now: float) -> bool:
        """Whether this process was not attending at some time since then, as far as the monitor's samples show it."""
        watcher = self.watcher
        return watcher is not None and watcher.is_unattended(since, now)

    def probed(self, seconds: float, now: float) -> None:
        """The monitor dialled the accepted writer, which took `seconds`; see `SlowStart.record_probe`."""
        with self.lock:
            if self.slow_start is not None and self.slow_start_epoch == self.view.epoch:
                self.slow_start = self.slow_start.record_probe(seconds, now)

    # ------------------------------------------------------------ learning

    @property
    def is_learning(self) -> bool:
        """Whether a connect is learning the topology."""
        learner = self._learner
        return learner is not None and learner() is not None

    def begin_learning(self) -> Learner | None:
        """Let the caller learn the topology until `end_learning`, or until it drops the result; None: another does."""
        with self.lock:
            if self.is_learning:
                return None
            learner = Learner()
            self._learner = weakref.ref(learner)
            return learner

    def end_learning(self) -> None:
        """Learning came to an end, well or not."""
        with self.lock:
            self._learner = None
        self.wake()

    # ------------------------------------------------------------ success and failure

    def record_failure(self, instance: str, now: float, base: float, began: float) -> None:
        """Keep away from an instance for a while; see `Quarantine.record_failure`."""
        with self.lock:
            self.quarantine = self.quarantine.record_failure(instance, now, base, began)

    def record_success(self, instance: str, latency: float, now: float) -> None:
        """An instance answered a dial within `latency` seconds."""
        failed_at = self._failed_at.pop(instance, None) if self._failed_at else None
        if failed_at is not None:
            self.tell(InstanceRecovered(instance, now - failed_at), now)
        with self.lock:
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
        """How long a dial takes when all is well, in seconds; None: nothing is known."""
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
        """A number that no other connect of this process has had."""
        with self.lock:
            self.turn += 1
            return self.turn - 1

    def reserve(self, reservation: Reservation) -> None:
        """Count a dial that has begun. The caller holds `lock`, so that choosing and counting are one step."""
        reserved = self._dialling.get(reservation.instance)
        if reserved is None:
            _forget_empty(self._dialling)
            reserved = self._dialling[reservation.instance] = weakref.WeakSet()
        reserved.add(reservation)

    def release(self, reservation: Reservation) -> None:
        """Undo `reserve`."""
        with self.lock:
            self._unreserve(reservation)

    def _unreserve(self, reservation: Reservation) -> None:
        reserved = self._dialling.get(reservation.instance)
        if reserved is not None:
            reserved.discard(reservation)

    def hold(self, instance: str, connection: Any, *, seat: Reservation | None = None) -> None:
        """Count an open connection, until it is dropped or garbage; `seat`: in the place of that reservation."""
        with self.lock:
            if seat is not None:
                self._unreserve(seat)
            held = self._connections.get(instance)
            if held is None:
                _forget_empty(self._connections)
                held = self._connections[instance] = weakref.WeakKeyDictionary()
            held[connection] = None

    def drop(self, instance: str, connection: Any) -> None:
        """A connection was closed."""
        with self.lock:
            held = self._connections.get(instance)
            if held is not None:
                held.pop(connection, None)

    def held(self) -> dict[str, list[Any]]:
        """The open connections, by instance."""
        with self.lock:
            refs = {id_: held.keyrefs() for id_, held in self._connections.items()}
        living = {id_: [each for ref in those if (each := ref()) is not None] for id_, those in refs.items()}
        return {id_: those for id_, those in living.items() if those}


def _forget_empty(counted: dict[str, Any]) -> None:
    """Make room for an instance more, where connections to many others are gone."""
    if len(counted) >= MAX_NAMES:
        for instance in [each for each, those in counted.items() if not len(those)]:
            del counted[instance]


def _unreadable(topology: Topology) -> str:
    ids, observer = ", ".join(topology.malformed[:3]), topology.observer or "an instance"
    return (
        f"{observer} lists instances whose ids can not be read ({ids}): these rows are left out, and no instance is "
        "taken for removed by such an answer"
    )
