"""Samples users' connections, pings the instances that they wait for, and cuts connections to a hung instance.

`policy.hang_detection` and `policy.paths` decide; this module does what they ask for.

A ping is several tries (`TRIES`), started one after the other, all with the ping's deadline; any answer ends it. The
first try uses the session that the monitor has with the instance, if any: such a session answers even if the postmaster
accepts no new one. The others dial. So one lost packet proves nothing: TCP repeats a SYN after a second, which is all
of a ping's time, but other tries are under way by then. To have a session in time, one is opened as soon as a statement
has been waiting for a moment, long before that is suspicious (`_open_ahead`). It has the time of a dial, and not that
of a ping: a login may take longer than a ping.

Invariant: a connection whose path is not known to be direct is never cut. Its instance is known from what was reported
when it was made, and behind a pooler or a load balancer it may be on another one by now.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol

from aurora_router.flow.path_examiner import PathExaminer, ProbeOwner
from aurora_router.flow.probe import InstanceProbe
from aurora_router.flow.runtime import Activity, ConnT, DialFailed, MonitorRuntime
from aurora_router.model.event import ConnectionsCut, HangRefuted, HangSuspected, ProcessStalled
from aurora_router.model.instance import Role
from aurora_router.model.observation import ROW_AGE_SECONDS, Failure
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.hang_detection import (
    UNLIMITED,
    Action,
    Limits,
    Signal,
    State,
    Suspicion,
    is_suspicious,
    read_silence,
    rest_for,
    waiting_since,
)
from aurora_router.policy.verdict import ON_THIS_SIDE, FaultKind, refuses_login

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Target, Wanted
    from aurora_router.policy.route import Request, Route
    from aurora_router.policy.verdict import Fault

SILENCE = frozenset({FaultKind.TIMEOUT, FaultKind.UNREACHABLE})
"""Faults that may prove a hang. If a dial is refused, the kernel is alive and resets the connections itself."""
TRIES = 4
"""How many tries one ping has, before silence counts as a hang."""
_SERVED = frozenset({Activity.IDLE, Activity.OPEN})
"""The activities of a connection whose statement was answered."""


ENOUGH = 0.8
"""A ping is long enough for a first byte that takes this share of it, or less."""
USUAL_DIALS = 1.5
"""How much longer than the fastest of its last dials a ping waits for the first byte of one."""
STALE = "its instance has another role by now, failed, or left the cluster"
"""Why a stale connection is cut."""


@dataclass(eq=False, slots=True)
class Ping:
    """A ping that is under way.

    Attributes:
        began: when, by the runtime's time.
        seconds: how long it may take.
        left: how many tries have not ended.
        kept: a fault of this machine's, which kept a try from being sent; None: all were.
        ended: whether it was answered, or all tries were silent.
    """

    began: float
    seconds: float
    left: int
    kept: Fault | None = None
    ended: bool = False


class ProbingMonitor(ProbeOwner, Protocol):
    """What hang detection uses of the monitor.

    Attributes:
        unhealthy: the ids of instances that did not answer the last probe.
        settled: the request, the route and the parameters of the last connect, if another one like it is no news.
    """

    unhealthy: set[str]
    settled: tuple[Request, Route, Any] | None

    def is_locked_out(self, id_: str) -> bool:
        """Whether an instance refused the monitor's login, so that it is not asked for a while."""
        ...

    def record_lockout(self, id_: str, fault: Fault, began: float) -> None:
        """Record that an instance refused the monitor's login: it is not asked for a while."""
        ...


class HangDetector(Generic[ConnT]):
    """Detects hung instances of one cluster by its users' connections.

    Attributes:
        paths: which connections have a direct path, so that they may be cut.
        stalled_at: when this process was last found to have been stalled, by the runtime's time.
        limits: how soon to suspect, and how long to ping: for each value, the strictest of the connections that were
            open at the last sample. Without connections, the limits of the last connect.
    """

    def __init__(self, runtime: MonitorRuntime[ConnT], cluster: Cluster, monitor: ProbingMonitor) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self.monitor = monitor
        self.paths = PathExaminer(runtime, cluster, monitor)
        self.stalled_at = -1.0
        self._sampled_at = runtime.now()
        self.limits = self._user_limits()
        self._suspicions: dict[str, Suspicion] = defaultdict(Suspicion)
        self._asking: weakref.WeakSet[Any] = weakref.WeakSet()
        self._served_at: dict[str, float] = {}
        self._unread: weakref.WeakSet[Any] = weakref.WeakSet()
        self._hung: dict[str, int] = {}  # the first generation of connections that are made after the hang
        self._opening: set[str] = set()

    def sample(self, late: float) -> None:
        """Sample all connections once; this sample is `late` seconds later than planned."""
        now, stalled = self.runtime.now(), late > self.limits.lateness
        self._sampled_at = now
        if stalled:
            self.stalled_at = now
            self.cluster.report(ProcessStalled(late), now)
        for id_ in self._hung.keys() - self.monitor.unhealthy:  # until it answers
            del self._hung[id_]
        held = self.cluster.tracked_connections()
        self.limits = self._find_strictest(held)
        if self._user_limits().interval < self.limits.interval:
            self.monitor.settled = None  # the next connection of that user has to be sampled sooner
        self._forget(held)
        for id_, connections in held.items():
            waiting = self._find_waiting(id_, connections, now, stalled=stalled)
            if waiting:
                self._suspect(id_, waiting, now)
            else:
                self._prepare(id_, connections, now)
            self.paths.examine(id_, connections, now)

    def _find_strictest(self, held: Mapping[str, Iterable[Any]]) -> Limits:
        """Return the strictest limits of connections, value by value; of none: those of the last connect."""
        strictest = UNLIMITED
        for those in held.values():
            for each in those:
                if each.limits.grace < strictest.grace or each.limits.ping < strictest.ping:
                    strictest = strictest.at_most(each.limits)
        return self._user_limits() if strictest == UNLIMITED else strictest

    def _user_limits(self) -> Limits:
        """Return the limits of the last connect."""
        return Limits(self.monitor.options.hang_grace, self.monitor.options.ping_timeout)

    def on_user_connected(self) -> None:
        """Sample at once if the next sample would come too late for the connection that a user made."""
        if self._user_limits().interval < self.limits.interval:
            self.cluster.wake()

    def _forget(self, held: Mapping[str, object]) -> None:
        """Forget instances without connections, except those that are being pinged."""
        now = self.runtime.now()
        for id_ in (self._suspicions.keys() | self._served_at.keys()) - held.keys():
            if self._suspicions[id_].end_rest(now).state is State.QUIET:
                del self._suspicions[id_]
                self._served_at.pop(id_, None)

    def _find_waiting(self, id_: str, connections: Iterable[Any], now: float, *, stalled: bool) -> list[Any]:
        """Return the connections that have been waiting for the whole grace period; cut the stale ones."""
        waiting, stale = [], []
        for held in connections:
            activity = self.runtime.activity(held)
            if activity is Activity.CLOSED:  # no answer ended its statement
                continue
            if activity is Activity.BROKEN:
                self.cluster.untrack(id_, held)
                self.cluster.suspect_writer(f"a connection to {id_} broke", now)
                continue
            self._note_answer(id_, held, activity, now)
            waits = activity not in _SERVED
            held.waiting_since = waiting_since(held.waiting_since, now, waits=waits, stalled=stalled)
            if self._must_be_cut(id_, held, activity):
                stale.append(held)
            elif is_suspicious(held.waiting_since, now, held.limits):
                if self.runtime.has_unread(held):  # the answer is here: it waits for its user
                    self._note_unread(id_, held, now)
                    held.waiting_since = now
                else:
                    self._unread.discard(held)
                    waiting.append(held)
        self._cut(id_, stale, STALE)
        return waiting

    def _note_answer(self, id_: str, held: Any, activity: Activity, now: float) -> None:
        """Note that a statement was answered since the last sample; the end of listening is no answer."""
        if activity is Activity.WAITING:
            self._asking.add(held)
        elif held in self._asking:
            self._asking.discard(held)
            self._unread.discard(held)
            if activity in _SERVED:
                self._served_at[id_] = now

    def _note_unread(self, id_: str, held: Any, now: float) -> None:
        """Note once that an answer arrived which its user has not read, if the kernel does not say when it did."""
        if self.runtime.heard_at(held) is None and held not in self._unread:
            self._unread.add(held)
            self._served_at[id_] = now

    def _must_be_cut(self, id_: str, held: Any, activity: Activity) -> bool:
        """Whether a connection is stale in a way that it must not be used any more, whatever it does now."""
        view = self.cluster.view
        if view.is_current(id_, held.generation):
            return False
        if held.was_writer and self._has_lost_role(id_):
            return self.paths.find_direct(held, id_) is not None and not self._is_unconfirmed()
        if activity in {Activity.WAITING, Activity.LISTENING} or self.paths.find_direct(held, id_) is None:
            return False
        return activity is Activity.IDLE if id_ not in view.instances else held.generation < self._hung.get(id_, 0)

    def _is_unconfirmed(self) -> bool:
        """Whether the writer was accepted a moment ago by rows of others, which may be older than a connection."""
        cluster = self.cluster
        return cluster.suspected_at is not None and self.runtime.now() - cluster.view.accepted_at < ROW_AGE_SECONDS

    def _has_lost_role(self, id_: str) -> bool:
        """Whether an instance is no longer the writer: another one was accepted, or it reported that itself."""
        view = self.cluster.view
        known = view.instances.get(id_)
        if view.writer is not None:
            return view.writer != id_
        return known is not None and known.role is Role.READER and id_ in view.former

    # ------------------------------------------------------------ suspicion

    def _suspect(self, id_: str, waiting: list[Any], now: float) -> None:
        thought = self._suspicions[id_].end_rest(now)
        self._suspicions[id_] = thought
        target = next((found for held in waiting if (found := self.paths.find_direct(held, id_)) is not None), None)
        if target is None or thought.state is not State.QUIET:
            return
        heard = self._last_heard_at(id_, now - self.limits.grace, target)
        signal = Signal.SUSPECTED if heard is None else Signal.HEARD
        self._suspicions[id_], action = thought.after(signal, now, rest_for(signal, heard, now, self.limits))
        if action is Action.PING:
            self.cluster.report(HangSuspected(id_, len(waiting)), now)
            # A subscriber or a log handler may have taken its time: that is no part of the ping, nor a stall during it.
            now = self._sampled_at = self.runtime.now()
            ping = Ping(now, self._ping_seconds(id_, target), TRIES)
            for number in range(TRIES):
                self.runtime.spawn(self._try(id_, target, ping, number))

    def _ping_seconds(self, id_: str, target: Target) -> float:
        """How long a ping may take; longer where it has to dial, and dials waited longer for a first byte lately.

        A server that looks up names of its clients (``log_hostname``) sends nothing until that has ended.
        """
        if self.monitor.probe_of(id_).is_open:
            return self.limits.ping
        silence = self.runtime.dial_silence(target)
        if silence is None:  # the dials of users are known as a whole alone
            silence = self.cluster.loads([id_])[id_].latency or 0.0
        usual = USUAL_DIALS * silence if silence > ENOUGH * self.limits.ping else 0.0
        return max(self.limits.ping, min(usual, self.monitor.options.connect_timeout))

    def _prepare(self, id_: str, connections: Iterable[Any], now: float) -> None:
        """Open a session with an instance ahead of time if one of its statements is waiting."""
        if id_ in self._opening or self.monitor.is_locked_out(id_) or not self.monitor.probe_of(id_).may_open:
            return
        for held in connections:
            target = None if held.waiting_since is None else self.paths.find_direct(held, id_)
            if target is not None:
                self._opening.add(id_)
                self.runtime.spawn(self._open_ahead(id_, held, target, now))
                return

    async def _open_ahead(self, id_: str, held: Any, target: Target, since: float) -> None:
        """Open a session if a connection still waits after a moment: most statements do not."""
        probe = self.monitor.probe_of(id_)
        try:
            await self.runtime.sleep(self.limits.interval / 4.0)
            heard = self.runtime.heard_at(held)
            served = self.runtime.activity(held) is not Activity.WAITING or (heard is not None and heard > since)
            if served or not probe.may_open:
                return
            probe.busy, began = True, self.runtime.now()
            wanted = self._make_wanted(id_, began)
            try:
                await probe.open(replace(target, wanted=wanted), self.monitor.options.connect_timeout)
            except DialFailed as failed:
                if refuses_login(failed.fault, self.cluster.temporary_refusals):
                    self.monitor.record_lockout(id_, failed.fault, began)
            finally:
                probe.busy = False
        finally:
            self._opening.discard(id_)

    def _make_wanted(self, id_: str, began: float) -> Wanted:
        """Return the question whether a session that is opened ahead is still worth waiting for.

        A login may take a healthy server longer than a ping. But a dial that takes so long must not keep the monitor
        from dialling again when it has to ask all instances: the packet that began it may be lost.
        """
        cluster, known = self.cluster, self.cluster.view.instances.get(id_)

        def is_wanted() -> bool:
            is_late = self.runtime.now() - began > self.limits.ping
            is_current = known is not None and cluster.view.is_current(id_, known.generation)
            return is_current and not (is_late and cluster.suspected_at is not None)

        return is_wanted

    def _last_heard_at(self, id_: str, since: float, target: Target) -> float | None:
        """Return when an instance last sent anything on any connection, if that was after `since`; else None."""
        own = self.monitor.probe_of(id_).heard_at(target), self.runtime.dial_heard_at(target)
        latest = max((since, *(each for each in own if each is not None)))
        for held in self.cluster.tracked_connections().get(id_, ()):
            heard = self.runtime.heard_at(held)
            if heard is not None:
                latest = max(latest, heard)
            elif held.waiting_since is not None and self.runtime.has_unread(held):
                self._note_unread(id_, held, self.runtime.now())
        latest = max(latest, self._served_at.get(id_, since))
        return latest if latest > since else None

    def _probe_for_try(self, id_: str, number: int) -> InstanceProbe[Any]:
        """Return the monitor's probe for the first try of a ping, if it is free; else a new one."""
        shared = self.monitor.probe_of(id_)
        return shared if number == 0 and not shared.busy else InstanceProbe(self.runtime, self.cluster, id_)

    async def _try(self, id_: str, target: Target, ping: Ping, number: int) -> None:
        """Do one try of a ping; an answer, or the last try without one, ends the ping."""
        if number:
            await self.runtime.sleep(ping.seconds * number / TRIES)
            if ping.ended:
                return
        left = max(0.0, ping.began + ping.seconds - self.runtime.now())
        probe = self._probe_for_try(id_, number)
        probe.busy = True
        try:
            fault = await probe.ping(replace(target, wanted=lambda: not ping.ended), left)
        finally:
            probe.busy = False
            if probe is not self.monitor.probe_of(id_):
                await probe.close()
        ping.left -= 1
        if fault is not None and fault.kind in ON_THIS_SIDE:
            ping.kept = fault
        silent = fault is not None and (fault.kind in SILENCE or fault.kind in ON_THIS_SIDE)
        if not ping.ended and not (silent and ping.left):
            ping.ended = True
            self._end_ping(id_, target, ping, fault if ping.kept is None or not silent else ping.kept)

    def _end_ping(self, id_: str, target: Target, ping: Ping, fault: Fault | None) -> None:
        """Judge a ping that ended with an answer (None), a fault that is an answer, or the silence of all tries.

        If a try could not be sent, for a fault of this machine's, the silence of the others is no proof.
        """
        now, began, seconds = self.runtime.now(), ping.began, ping.seconds
        signal, heard = Signal.ANSWERED, None
        if fault is not None and fault.kind in SILENCE:
            heard = self._last_heard_at(id_, began, target)
            signal = read_silence(began, now, heard, stalled=self._was_stalled(began, now, seconds))
        elif fault is not None and fault.kind in ON_THIS_SIDE:
            signal = Signal.STALLED
        rest = rest_for(signal, heard, now, self.limits)
        self._suspicions[id_], action = self._suspicions[id_].after(signal, now, rest)
        if action is Action.CUT:
            self._condemn(id_, now, seconds)
        elif fault is None or signal is Signal.HEARD:
            self.cluster.report(HangRefuted(id_, now - began), now)
        elif signal is not Signal.STALLED and not self.cluster.is_known_down(id_):
            self.cluster.suspect_writer(f"a ping of {id_} failed: {fault.text}", now)

    def is_hung(self, id_: str) -> bool:
        """Whether an instance was found hung, and has not answered since."""
        return id_ in self._hung

    def _was_stalled(self, began: float, now: float, seconds: float) -> bool:
        """Whether this process was stalled during a ping of at most `seconds`."""
        return now - began - seconds > self.limits.lateness or self.has_stalled(began, now)

    def has_stalled(self, since: float, now: float) -> bool:
        """Whether this process was stalled since then; also if it just woke up and no sample has shown it yet."""
        limits = self.limits
        return self.stalled_at >= since or now - self._sampled_at - limits.interval > limits.lateness

    def _condemn(self, id_: str, now: float, seconds: float) -> None:
        """Declare an instance hung, cut its connections, and suspect the writer."""
        known = self.cluster.view.instances.get(id_)
        reason = f"hung: no answer to a ping within {seconds:g} s"
        self.monitor.unhealthy.add(id_)
        self._hung[id_] = 0 if known is None else known.generation + 1
        self.cluster.update(ClusterState.record_hang, now)
        if known is not None:
            self.cluster.observe(Failure(id_, known.generation, gone=True, reason=reason), now)
        self.cluster.record_failure(id_, now, self.monitor.options.quarantine, now)
        self.cluster.suspect_writer(f"{id_} is {reason}", now)
        direct = [
            held
            for held in self.cluster.tracked_connections().get(id_, ())
            if self.paths.find_direct(held, id_) is not None
        ]
        self._cut(id_, direct, reason)

    def _cut(self, id_: str, connections: Iterable[Any], reason: str) -> None:
        count = 0
        for held in connections:
            self.cluster.untrack(id_, held)
            held.cut_because = reason
            count += self.runtime.cut(held)
        if count:
            self.cluster.report(ConnectionsCut(id_, count, reason), self.runtime.now())
