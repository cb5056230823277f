"""Sampling users' connections, pinging whom they wait for, cutting those of an instance that is hung or lost its role.

The decisions are those of `policy.hang_detection` and `policy.paths`; here they meet the runtime.

A ping is several tries (`TRIES`), begun one after the other and all given until the ping's deadline; any answer ends
it. The first is asked on the session that the monitor has with the instance, where it has one: such a session answers
though the postmaster accepts no new one. The others dial. One lost packet is thus no proof: TCP repeats a SYN after a
second, which is all of a ping's time, but other tries are under way by then. To have a session in time, one is opened
when a statement was seen waiting for a moment, long before it is suspicious (`_get_ready`).

Invariant: a connection whose path is not known to be direct is never cut. Its instance is known by what was reported
when it was made, and behind a pooler or a load balancer it may be on another one by now.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol

from aurora_router.flow.probe import InstanceProbe
from aurora_router.flow.runtime import Activity, ConnT, DialFailed, MonitorRuntime
from aurora_router.model.event import ConnectionsCut, HangRefuted, HangSuspected, ProcessStalled
from aurora_router.model.instance import Role
from aurora_router.model.observation import FENCED_SECONDS, Failure
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
from aurora_router.policy.paths import DIRECT_SECONDS, Known, remember, unanswered
from aurora_router.policy.verdict import FaultKind, Next, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Target
    from aurora_router.policy.options import Options
    from aurora_router.policy.paths import End
    from aurora_router.policy.verdict import Fault

SILENCE = frozenset({FaultKind.TIMEOUT, FaultKind.UNREACHABLE})
"""What may condemn an instance. One that refuses to be dialled is down, and its kernel tells the connections itself."""
TRIES = 4
"""How often an instance is tried within one ping, before its silence condemns it."""
_SERVED = frozenset({Activity.IDLE, Activity.OPEN})
"""What a connection does whose statement was answered."""


STALE = "its instance has another role by now, failed, or left the cluster"
"""Why a connection is cut that is of no use any more."""


@dataclass(eq=False, slots=True)
class Ping:
    """A ping that is under way.

    Attributes:
        began: when, by the runtime's time.
        seconds: how long it may take.
        left: tries that have not ended.
        ended: whether it was answered, or all tries were silent.
    """

    began: float
    seconds: float
    left: int
    ended: bool = False


class Judge(Protocol):
    """What sampling needs of the watch."""

    lost: set[str]

    @property
    def options(self) -> Options:
        """The watch's options."""
        ...

    def inquiry_of(self, id_: str) -> InstanceProbe[Any]:
        """The watch's only session with an instance."""
        ...

    def is_barred(self, id_: str) -> bool:
        """Whether an instance refused to let the watch in, so that it is left alone for a while."""
        ...

    def bar(self, id_: str, fault: Fault, began: float) -> None:
        """Leave an instance alone that refused to let the watch in."""
        ...


class HangDetector(Generic[ConnT]):
    """What is known of the connections to one cluster.

    Attributes:
        starved_at: when this process was last found not to have been attending, by the runtime's time.
        limits: how soon to suspect, and how long to listen: the strictest of the connections that were open at the
            last sample, by value. Where there are none, those of the last user who connected.
    """

    def __init__(self, runtime: MonitorRuntime[ConnT], cluster: Cluster, watch: Judge) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self.watch = watch
        self.starved_at = -1.0
        self._sampled_at = runtime.now()
        self.limits = self._users()
        self._suspicions: dict[str, Suspicion] = defaultdict(Suspicion)
        self._asking: weakref.WeakSet[Any] = weakref.WeakSet()
        self._served_at: dict[str, float] = {}
        self._examined: set[End] = set()
        self._hung: set[str] = set()
        self._readying: set[str] = set()

    def sample(self, late: float) -> None:
        """Look at all connections once, `late` seconds later than it should have been."""
        now, starved = self.runtime.now(), late > self.limits.lateness
        self._sampled_at = now
        if starved:
            self.starved_at = now
            self.cluster.tell(ProcessStalled(late), now)
        self._hung &= self.watch.lost  # until it answers
        held = self.cluster.held()
        self.limits = self._strictest(held)
        self._forget(held)
        for id_, connections in held.items():
            waiting = self._waiting(id_, connections, now, starved=starved)
            if waiting:
                self._suspect(id_, waiting, now)
            else:
                self._prepare(id_, connections, now)
            self._examine(id_, connections, now)

    def _strictest(self, held: Mapping[str, Iterable[Any]]) -> Limits:
        """The strictest limits of connections, by value; of none: those of the last user who connected."""
        strictest = UNLIMITED
        for those in held.values():
            for each in those:
                if each.limits.grace < strictest.grace or each.limits.ping < strictest.ping:
                    strictest = strictest.at_most(each.limits)
        return self._users() if strictest == UNLIMITED else strictest

    def _users(self) -> Limits:
        """The limits of the last user who connected."""
        return Limits(self.watch.options.hang_grace, self.watch.options.ping_timeout)

    def hear_of_user(self) -> None:
        """A user connected: if the next sample would come too late for that connection, it is taken at once."""
        if self._users().interval < self.limits.interval:
            self.cluster.wake()

    def _forget(self, held: Mapping[str, object]) -> None:
        """Forget the instances that users have no connection to; not those that are being pinged."""
        now = self.runtime.now()
        for id_ in (self._suspicions.keys() | self._served_at.keys()) - held.keys():
            if self._suspicions[id_].end_rest(now).state is State.QUIET:
                del self._suspicions[id_]
                self._served_at.pop(id_, None)

    def _waiting(self, id_: str, connections: Iterable[Any], now: float, *, starved: bool) -> list[Any]:
        """The connections that have been waiting for the whole grace period; others that must go are cut."""
        waiting, stale = [], []
        for held in connections:
            activity = self.runtime.activity(held)
            if activity is Activity.BROKEN:
                self.cluster.drop(id_, held)
                self.cluster.doubt(f"a connection to {id_} broke", now)
                continue
            self._note_answer(id_, held, activity, now)
            waits = activity not in _SERVED
            held.waiting_since = waiting_since(held.waiting_since, now, waits=waits, starved=starved)
            if self._must_go(id_, held, activity):
                stale.append(held)
            elif is_suspicious(held.waiting_since, now, held.limits):
                if self.runtime.has_unread(held):  # it waits for its user
                    held.waiting_since = now
                else:
                    waiting.append(held)
        self._cut(id_, stale, STALE)
        return waiting

    def _note_answer(self, id_: str, held: Any, activity: Activity, now: float) -> None:
        """Notice that a statement was answered since the last sample; who stops listening was not."""
        if activity is Activity.WAITING:
            self._asking.add(held)
        elif held in self._asking:
            self._asking.discard(held)
            if activity in _SERVED:
                self._served_at[id_] = now

    def _must_go(self, id_: str, held: Any, activity: Activity) -> bool:
        """Whether a connection is of no use any more, or dangerous, whatever it does at this moment."""
        view = self.cluster.view
        if view.is_current(id_, held.generation):
            return False
        if held.was_writer and self._has_lost_role(id_):
            return self._path(held, id_) is not None and not self._is_unconfirmed()
        if activity in {Activity.WAITING, Activity.LISTENING} or self._path(held, id_) is None:
            return False
        return activity is Activity.IDLE if id_ not in view.instances else id_ in self._hung

    def _is_unconfirmed(self) -> bool:
        """Whether the writer was accepted a moment ago by rows of others, which may be older than a connection."""
        cluster = self.cluster
        return cluster.doubted_at is not None and self.runtime.now() - cluster.view.accepted_at < FENCED_SECONDS

    def _has_lost_role(self, id_: str) -> bool:
        """Whether an instance is the writer no more: another one was accepted, or it said so itself."""
        view = self.cluster.view
        known = view.instances.get(id_)
        if view.writer is not None:
            return view.writer != id_
        return known is not None and known.role is Role.READER and id_ in view.former

    # ------------------------------------------------------------ paths

    def _path(self, held: Any, id_: str) -> Target | None:
        """Where a connection leads, if that is known to be straight to its instance; else None."""
        target = self.runtime.target(held, id_)
        path = None if target is None else _path_of(target)
        if path is None or self.cluster.role_reports.is_pooled(path):
            return None
        known = self.cluster.paths.get(path)
        return target if held.direct or (known is not None and known.direct) else None

    def is_direct(self, id_: str) -> bool:
        """Whether a connection leads straight to an instance."""
        return any(self._path(held, id_) is not None for held in self.cluster.held().get(id_, ()))

    def _examine(self, id_: str, connections: Iterable[Any], now: float) -> None:
        """Find out about paths of which nothing is known, in the background."""
        for held in connections:
            target = None if held.direct else self.runtime.target(held, id_)
            path = None if target is None else _path_of(target)
            if target is None or path is None or path in self._examined:
                continue
            known = self.cluster.paths.get(path)
            if known is None or now >= known.until:
                self._examined.add(path)
                self.runtime.spawn(self._examine_path(id_, target, path))

    async def _examine_path(self, id_: str, target: Target, path: End) -> None:
        """Find out about a path on the session that there is on it, and else on one that is closed again."""
        shared = self.watch.inquiry_of(id_)
        inquiry = shared if shared.is_on(path) and not shared.busy else InstanceProbe(self.runtime, self.cluster, id_)
        inquiry.busy = True
        try:
            direct = await inquiry.is_direct(target, self.watch.options.connect_timeout)
            known = Known(direct, self.runtime.now() + DIRECT_SECONDS)
        except DialFailed:
            known = unanswered(self.cluster.paths.get(path), self.runtime.now())
        finally:
            self._examined.discard(path)
            inquiry.busy = False
            if inquiry is not shared:
                await inquiry.close()
        self.cluster.paths = remember(self.cluster.paths, path, known)

    # ------------------------------------------------------------ suspicion

    def _suspect(self, id_: str, waiting: list[Any], now: float) -> None:
        thought = self._suspicions[id_].end_rest(now)
        self._suspicions[id_] = thought
        target = next((found for held in waiting if (found := self._path(held, id_)) is not None), None)
        if target is None or thought.state is not State.QUIET:
            return
        heard = self._last_heard_at(id_, now - self.limits.grace, target)
        signal = Signal.SUSPECTED if heard is None else Signal.HEARD
        self._suspicions[id_], action = thought.after(signal, now, rest_for(signal, heard, now, self.limits))
        if action is Action.PING:
            self.cluster.tell(HangSuspected(id_, len(waiting)), now)
            ping = Ping(now, self.limits.ping, TRIES)
            for number in range(TRIES):
                self.runtime.spawn(self._try(id_, target, ping, number))

    def _prepare(self, id_: str, connections: Iterable[Any], now: float) -> None:
        """See to it that there is a session with an instance whose statements may come to take long."""
        if id_ in self._readying or self.watch.is_barred(id_) or not self.watch.inquiry_of(id_).may_open:
            return
        for held in connections:
            target = None if held.waiting_since is None else self._path(held, id_)
            if target is not None:
                self._readying.add(id_)
                self.runtime.spawn(self._get_ready(id_, held, target, now))
                return

    async def _get_ready(self, id_: str, held: Any, target: Target, since: float) -> None:
        """Open a session if a connection goes on waiting for a moment: most statements do not."""
        inquiry = self.watch.inquiry_of(id_)
        try:
            await self.runtime.sleep(self.limits.interval / 4.0)
            heard = self.runtime.heard_at(held)
            served = self.runtime.activity(held) is not Activity.WAITING or (heard is not None and heard > since)
            if served or not inquiry.may_open:
                return
            inquiry.busy, began = True, self.runtime.now()
            try:
                await inquiry.open(target, self.limits.ping)
            except DialFailed as failed:
                if judge(failed.fault).then is Next.RAISE:
                    self.watch.bar(id_, failed.fault, began)
            finally:
                inquiry.busy = False
        finally:
            self._readying.discard(id_)

    def _last_heard_at(self, id_: str, since: float, target: Target) -> float | None:
        """When an instance last sent something on any connection, if that was after `since`; else None."""
        own = self.watch.inquiry_of(id_).heard_at(target)
        latest = max(self._served_at.get(id_, since), since if own is None else own)
        for held in self.cluster.held().get(id_, ()):
            heard = self.runtime.heard_at(held)
            if heard is not None:
                latest = max(latest, heard)
        return latest if latest > since else None

    def _inquiry_for(self, id_: str, number: int) -> InstanceProbe[Any]:
        """The session that there is, for the first try of a ping and if it is free; else a new one."""
        shared = self.watch.inquiry_of(id_)
        return shared if number == 0 and not shared.busy else InstanceProbe(self.runtime, self.cluster, id_)

    async def _try(self, id_: str, target: Target, ping: Ping, number: int) -> None:
        """One try of a ping; the one that is answered, or the last one that is not, ends it."""
        if number:
            await self.runtime.sleep(ping.seconds * number / TRIES)
            if ping.ended:
                return
        left = max(0.0, ping.began + ping.seconds - self.runtime.now())
        inquiry = self._inquiry_for(id_, number)
        inquiry.busy = True
        try:
            fault = await inquiry.ping(replace(target, wanted=lambda: not ping.ended), left)
        finally:
            inquiry.busy = False
            if inquiry is not self.watch.inquiry_of(id_):
                await inquiry.close()
        ping.left -= 1
        silent = fault is not None and fault.kind in SILENCE
        if not ping.ended and not (silent and ping.left):
            ping.ended = True
            self._pinged(id_, target, ping, fault)

    def _pinged(self, id_: str, target: Target, ping: Ping, fault: Fault | None) -> None:
        """A ping has ended: with an answer (None), with a fault that is one, or with the silence of all tries."""
        now, began, seconds = self.runtime.now(), ping.began, ping.seconds
        signal, heard = Signal.ANSWERED, None
        if fault is not None and fault.kind in SILENCE:
            heard = self._last_heard_at(id_, began, target)
            signal = read_silence(began, now, heard, starved=self._was_starved(began, now, seconds))
        rest = rest_for(signal, heard, now, self.limits)
        self._suspicions[id_], action = self._suspicions[id_].after(signal, now, rest)
        if action is Action.CUT:
            self._condemn(id_, now, seconds)
        elif fault is None or signal is Signal.HEARD:
            self.cluster.tell(HangRefuted(id_, now - began), now)
        elif signal is not Signal.STARVED:
            self.cluster.doubt(f"a ping of {id_} failed: {fault.text}", now)

    def _was_starved(self, began: float, now: float, seconds: float) -> bool:
        """Whether this process was not attending during a ping of at most `seconds`."""
        return now - began - seconds > self.limits.lateness or self.unattended(began, now)

    def unattended(self, since: float, now: float) -> bool:
        """Whether this process was starved since then; also when it just woke up, and no sample has told it yet."""
        limits = self.limits
        return self.starved_at >= since or now - self._sampled_at - limits.interval > limits.lateness

    def _condemn(self, id_: str, now: float, seconds: float) -> None:
        """Declare an instance hung, cut its connections, and let everybody look for who is the writer."""
        known = self.cluster.view.instances.get(id_)
        reason = f"hung: no answer to a ping within {seconds:g} s"
        self.watch.lost.add(id_)
        self._hung.add(id_)
        self.cluster.hung_at = now
        if known is not None:
            self.cluster.observe(Failure(id_, known.generation, gone=True, reason=reason), now)
        self.cluster.record_failure(id_, now, self.watch.options.quarantine, now)
        self.cluster.doubt(f"{id_} is {reason}", now)
        direct = [held for held in self.cluster.held().get(id_, ()) if self._path(held, id_) is not None]
        self._cut(id_, direct, reason)

    def _cut(self, id_: str, connections: Iterable[Any], reason: str) -> None:
        count = 0
        for held in connections:
            self.cluster.drop(id_, held)
            held.cut_because = reason
            count += self.runtime.cut(held)
        if count:
            self.cluster.tell(ConnectionsCut(id_, count, reason), self.runtime.now())


def _path_of(target: Target) -> End | None:
    """The path to a target: None for a local socket."""
    return (target.addresses[0], target.port) if target.addresses and target.port is not None else None
