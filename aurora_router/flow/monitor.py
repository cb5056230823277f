"""Looking after one cluster in the background: its view, and whoever of its instances hangs.

Theory. While all is well the topology is asked for every ``aurora_refresh`` seconds. When anything is wrong (a dial
that failed, a connection that broke, an instance that is silent) the cluster is *in doubt*: every instance is asked by
a coroutine of its own whether it is the writer, so that one that hangs delays nobody, at the pace of
`policy.poll_interval`. The doubt ends when the accepted writer, asked after it began, says that it is one; who waits is
woken at that moment. An instance that did not answer is looked at further, so that it is used again as soon as it is
back. What has no answer in time is given more of it with the next look: the server, or this process, may be slow, and a
look that is given up has to begin from the dial (`poll_interval.time_limit`).

All that is known may be wrong: a reader that is just being built is in nobody's rows, and when the writer is lost
then, the next one may be an instance of which nothing was ever heard. So a doubt that goes on has the given names asked
as well.

Not every instance can be asked: nothing may tell where one is, or it may refuse to let the watch in (a password was
changed). Such an instance is left out, for as long as that lasts, and the others are asked. Where none can be asked, or
none that answers lets the watch in, it is *blind*: users find out by themselves.

Users' connections are *sampled*; see `policy.hang_detection`. Nothing is added to the path of a statement.

Invariants: a doubt ends only by a writer's own word, or with the watch; no connection is cut but those of an instance
that was silent to its ping, that lost the role, or that left; when the watch ends it leaves nothing open.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, NamedTuple

from aurora_router.flow.hang_detector import HangDetector
from aurora_router.flow.probe import Access, InstanceProbe, ask_through
from aurora_router.flow.runtime import ConnT, DialFailed, MonitorRuntime
from aurora_router.flow.topology import PROVISIONAL_SECONDS
from aurora_router.model.bounds import forget_oldest
from aurora_router.model.event import MonitorLockedOut
from aurora_router.model.observation import Failure
from aurora_router.policy import poll_interval
from aurora_router.policy.route import Mode, find
from aurora_router.policy.verdict import FaultKind, Next, judge

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster
    from aurora_router.policy.options import Options
    from aurora_router.policy.route import Address
    from aurora_router.policy.verdict import Fault

LINGER_SECONDS = 1.0
"""How long a watch goes on when nobody needs it: a program that connects again and again keeps it."""
RETURN_SECONDS = 1.0
"""Between two looks at an instance that did not answer, while all is well otherwise."""
SEARCH_SECONDS = 1.0
"""A doubt that is older has the given names asked as well, and again after so long."""
ALONE_SECONDS = 0.2
"""The same where nobody who is known answers: then they are asked from the beginning."""
SURVEY_SECONDS = 1.0
"""When the others of a list are asked, after a connect that took the first of them that served: one may know better."""
MAX_GIVEN = 8
"""How many names by which users came are remembered: a cluster's own, and aliases of them."""

BARRED_SECONDS, LONGEST_BARRED_SECONDS = 60.0, 600.0
"""For how long an instance is not asked that refused to let the watch in; doubled each time. Servers count such tries,
and some lock the user out."""


class Bar(NamedTuple):
    """An instance that did not let the watch in: until when it is not asked (the runtime's time), and for how long."""

    until: float
    length: float


class ClusterMonitor(Generic[ConnT]):
    """The watch over one cluster.

    Args:
        runtime: the ground.
        cluster: what is looked after.
        access: how to connect; replaced whenever a user succeeded.
    """

    def __init__(self, runtime: MonitorRuntime[ConnT], cluster: Cluster, access: Access) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self.lost: set[str] = set()
        self._access = access
        self._names = dict[str, tuple["Address", Access]]()
        self._note_names(access)
        self.hangs = HangDetector(runtime, cluster, self)
        self._blind = self._shut_out = self._checking_reports = False
        self._searching: set[str] = set()
        self._barred: dict[str, Bar] = {}
        self._admitted_at = -1.0
        self._check_reports_at = runtime.now()
        self._chased: dict[str, InstanceProbe[ConnT]] = {}
        self._needed_at = runtime.now()
        self._plan_refresh()
        self._prepared: set[str] = set()
        self._expired: dict[str, int] = {}
        self._askable = self._can_ask()

    @property
    def sighted(self) -> bool:
        """Whether it can ask instances."""
        return not (self._blind or self._shut_out) and bool(self._askable)

    @property
    def has_sessions(self) -> bool:
        """Whether it has a session with any instance."""
        return any(inquiry.is_open for inquiry in list(self._chased.values()))

    def is_unattended(self, since: float, now: float) -> bool:
        """Whether this process was not attending at some time since then."""
        return self.hangs.unattended(since, now)

    @property
    def access(self) -> Access:
        """How to connect."""
        return self._access

    @access.setter
    def access(self, access: Access) -> None:
        before, barred = self._access, self._barred
        if barred:
            same = access.params == before.params
            self._barred = {id_: bar._replace(until=0.0) for id_, bar in barred.items()} if same else {}
        self._access, self._blind, self._shut_out = access, False, False
        if access.request is not before.request:
            self._note_names(access)
        if barred or access.request is not before.request or access.route is not before.route:
            self._askable = self._can_ask()  # else the last look around found it
        self.hangs.hear_of_user()

    @property
    def options(self) -> Options:
        """The options of the last user who succeeded."""
        return self._access.request.options

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Watch until nobody needs it; whoever started it closes it then."""
        while self.wanted:
            seen, began, interval = self.cluster.news, self.runtime.now(), self.hangs.limits.interval
            await self.runtime.changed(self.cluster, seen, interval)
            self.hangs.sample(self.runtime.now() - began - interval)
            self._look_around()
            await self._tidy()

    async def close(self) -> None:
        """Let go of everything."""
        for inquiry in list(self._chased.values()):
            await inquiry.close()

    async def _tidy(self) -> None:
        """Close the sessions that are in somebody's way; in doubt, while users wait, they may be in any database."""
        cluster = self.cluster
        makes_room, cluster.is_crowded = cluster.is_crowded, False
        for id_ in sorted(self._chased.keys() - cluster.view.instances.keys()):
            if not self._chased[id_].busy:
                await self._chased.pop(id_).close()
        if self.has_sessions:
            databases: set[str] | None = None
            if cluster.doubted_at is None or not cluster.needed:
                databases = {self.runtime.database(held) for each in cluster.held().values() for held in each}
            for inquiry in list(self._chased.values()):
                await inquiry.tidy(databases, makes_room=makes_room)
        if makes_room:
            cluster.wake()

    @property
    def wanted(self) -> bool:
        """Whether anybody needs it, or did a moment ago; in a failover, who retries may take his time."""
        now = self.runtime.now()
        if self.cluster.needed:
            self._needed_at = now
        patience = LINGER_SECONDS if self.cluster.doubted_at is None else self.options.failover_timeout
        return now - self._needed_at < max(LINGER_SECONDS, patience)

    def _look_around(self) -> None:
        """Start what is due."""
        cluster = self.cluster
        self._forget_removed()
        askable = self._askable = self._can_ask()
        self._see_who_refuses()
        if cluster.doubted_at is not None and not self.sighted:
            cluster.unattended()
        wanted = sorted(askable if cluster.doubted_at is not None else self.lost & askable)
        for id_ in wanted:
            if not self.inquiry_of(id_).busy:
                self._chased[id_].busy = True
                self.runtime.spawn(self._chase(self._chased[id_]))
        self._search_names()
        if self.runtime.now() - self._refreshed_at >= self._refresh_pause():
            self._plan_refresh()
            self._prepared.clear()
            self.runtime.spawn(self._refreshed())
        due = self.runtime.now() >= self._check_reports_at and not self._blind
        if due and not self._checking_reports and cluster.role_reports.lacks_standby:
            self._checking_reports = True
            self.runtime.spawn(self._check_reports())
        if cluster.doubted_at is None and not self._blind:
            self._prepare(askable - self._prepared)

    def _forget_removed(self) -> None:
        """Forget what is remembered of instances that left."""
        known = self.cluster.view.instances.keys()
        self.lost &= known
        self._prepared &= known
        for name in self._barred.keys() - known - self._names.keys():
            del self._barred[name]
        for name in self._expired.keys() - known - self._names.keys():
            del self._expired[name]

    def _see_who_refuses(self) -> None:
        """Leave a doubt that goes on to the users where an instance, or a given name, refuses to let the watch in.

        It may be the new writer, and they may have the new password: the watch has it when one of them succeeded.
        """
        doubted_at, now = self.cluster.doubted_at, self.runtime.now()
        if self._shut_out or doubted_at is None or now - doubted_at <= SEARCH_SECONDS:
            return
        refusing = [name for name in (*self.cluster.view.instances, *self._names) if self.is_barred(name)]
        if refusing:
            self._shut_out = True
            self.cluster.tell(
                MonitorLockedOut(f"{', '.join(refusing)} may be the writer, and does not let the monitor in"), now
            )

    def _prepare(self, ids: frozenset[str]) -> None:
        """Learn where instances are before anything goes wrong with the writer."""
        self._prepared |= ids
        for id_ in sorted(ids):
            self.runtime.spawn(self.inquiry_of(id_).prepare(self._access))

    def _can_ask(self) -> frozenset[str]:
        """The instances of which it is known where they are, and that did not refuse to let the watch in just now."""
        return frozenset(id_ for id_ in self.cluster.view.instances if self._may_ask(id_))

    def _may_ask(self, id_: str) -> bool:
        """Whether an instance is one of those."""
        known = self.cluster.view.instances.get(id_)
        request, route = self._access.request, self._access.route
        if known is None or self.is_barred(id_) or find(known, route, request) is None:
            return False
        through = route.mode is Mode.NAME  # behind a name may be others than the one that is known by it
        return not (through and id_ in map(str, request.given)) or self.hangs.is_direct(id_)

    def inquiry_of(self, id_: str) -> InstanceProbe[ConnT]:
        """The session with an instance."""
        return self._chased.setdefault(id_, InstanceProbe(self.runtime, self.cluster, id_))

    def _plan_refresh(self) -> None:
        self._refreshed_at = self.runtime.now()
        self._jitter = poll_interval.add_jitter(1.0, self.runtime.random())

    @property
    def _is_complete(self) -> bool:
        """Whether one instance answers for all of them, as far as is known."""
        return self.cluster.source is None or self.cluster.source.complete

    def _refresh_pause(self) -> float:
        cluster, slow = self.cluster, self.options.refresh
        if not self._is_complete and len(self._askable) > 1 and self.runtime.now() - cluster.surveyed_at > slow:
            slow = min(slow, SURVEY_SECONDS)
        if cluster.view.provisional:
            slow = min(slow, PROVISIONAL_SECONDS)
        return self._jitter * poll_interval.refresh_pause(
            slow, cluster.max_lag, cluster.reader_missed_at, self.runtime.now()
        )

    # ------------------------------------------------------------ asking

    async def _chase(self, inquiry: InstanceProbe[ConnT]) -> None:
        """Ask one instance until all is well again."""
        thorough = True
        try:
            while self._may_ask(inquiry.instance):
                thorough = not await self._looked(inquiry, thorough=thorough)
                doubted_at = self.cluster.doubted_at
                if doubted_at is not None:
                    pause = poll_interval.fast_pause(self.runtime.now() - doubted_at, self.runtime.random())
                    await self.runtime.sleep(pause)
                elif inquiry.instance in self.lost:
                    await self.runtime.sleep(poll_interval.add_jitter(RETURN_SECONDS, self.runtime.random()))
                else:
                    return
        finally:
            inquiry.busy = False

    def _note_names(self, access: Access) -> None:
        """Remember the names by which users came: one of them may lead to a writer of which nothing else is known."""
        given = {str(address): (address, access) for address in access.request.given}
        names = {**{name: each for name, each in self._names.items() if name not in given}, **given}
        forget_oldest(names, MAX_GIVEN)
        self._names = names

    def _search_names(self) -> None:
        """In a doubt, have the given names asked as well where that may tell more."""
        view, cluster = self.cluster.view, self.cluster
        if cluster.doubted_at is None:
            return
        alone = self.lost >= self._askable or (view.writer is not None and view.writer not in self._askable)
        if not alone and self.runtime.now() - cluster.doubted_at <= SEARCH_SECONDS:
            return
        for name, given in self._names.items():
            if name not in self._searching and not self.is_barred(name):
                self._searching.add(name)
                self.runtime.spawn(self._search(*given, ALONE_SECONDS if alone else SEARCH_SECONDS))

    async def _search(self, address: Address, access: Access, pause: float) -> None:
        """Ask through a given name who the instances are; the doubt goes on if that tells nothing."""
        name, began = str(address), self.runtime.now()
        try:
            try:
                await ask_through(self.runtime, self.cluster, access, address, self._seconds_for(name))
                self._note_time(name, None)
                self._barred.pop(name, None)
            except DialFailed as failed:
                self._note_time(name, failed.fault)
                if judge(failed.fault).then is Next.RAISE:
                    self.bar(name, failed.fault, began)
            await self.runtime.sleep(poll_interval.add_jitter(pause, self.runtime.random()))
        finally:
            self._searching.discard(name)

    async def _looked(self, inquiry: InstanceProbe[ConnT], *, thorough: bool) -> bool:
        """One look; returns whether there was an answer."""
        began, id_ = self.runtime.now(), inquiry.instance
        known = self.cluster.view.instances[id_]
        thorough = thorough or id_ in self.lost
        try:
            await inquiry.look(self._access, self._seconds_for(id_), thorough=thorough)
        except DialFailed as failed:
            self._note_time(id_, failed.fault)
            self._unanswered(id_, known.generation, failed.fault, began)
            return False
        self._note_time(id_, None)
        self._barred.pop(id_, None)
        self._admitted_at, self._blind = self.runtime.now(), False
        if id_ in self.lost:
            self.lost.discard(id_)
            self.cluster.record_success(id_, self.runtime.now() - began, self.runtime.now())
        return True

    def _seconds_for(self, name: str) -> float:
        """How long a look at an instance, or through a given name, may take."""
        return poll_interval.time_limit(
            self.hangs.limits.ping, self.options.connect_timeout, self._expired.get(name, 0)
        )

    def _note_time(self, name: str, fault: Fault | None) -> None:
        """Remember whether a look ran out of time; None: it was answered."""
        if fault is not None and fault.kind is FaultKind.TIMEOUT:
            self._expired[name] = self._expired.get(name, 0) + 1
        else:
            self._expired.pop(name, None)

    def _unanswered(self, id_: str, generation: int, fault: Fault, began: float) -> None:
        now, verdict = self.runtime.now(), judge(fault)
        if verdict.then is Next.RAISE:
            self.bar(id_, fault, began)
        if fault.kind is FaultKind.REJECTED or (fault.kind is FaultKind.TIMEOUT and self.hangs.unattended(began, now)):
            return
        known = id_ in self.lost or self.cluster.quarantine.remaining(id_, now) > 0.0
        self.lost.add(id_)
        if (verdict.down and not known) or (verdict.quarantine and self.cluster.view.lacks_failure(id_)):
            self.cluster.observe(Failure(id_, generation, gone=False, reason=verdict.name), now)
        self.cluster.record_failure(id_, now, self.options.quarantine, began)

    def is_barred(self, id_: str) -> bool:
        """Whether an instance, or a given name, refused to let the watch in, so that it is not asked for a while."""
        return id_ in self._barred and self.runtime.now() < self._barred[id_].until

    def bar(self, id_: str, fault: Fault, began: float) -> None:
        """Leave out an instance, or a given name, that refused to let the watch in, longer each time.

        Where no other one has let it in since the doubt began, users have to find out by themselves.
        """
        now = self.runtime.now()
        before = self._barred.get(id_)
        length = BARRED_SECONDS if before is None else min(2.0 * before.length, LONGEST_BARRED_SECONDS)
        self._barred[id_] = Bar(now + length, length)
        doubted_at = self.cluster.doubted_at
        if not self._blind and self._admitted_at < (began if doubted_at is None else doubted_at):
            self._blind = True
            if before is None:  # else it is known
                self.cluster.tell(MonitorLockedOut(fault.text), now)
            self.cluster.unattended()

    async def _check_reports(self) -> None:
        """Check the role report of a reader, so that connects need not ask; see `policy.role_reports`."""
        try:
            for reader in list(self.cluster.view.readers()):
                inquiry = self.inquiry_of(reader.id)
                if inquiry.busy or not self.cluster.role_reports.lacks_standby:
                    continue
                inquiry.busy = True
                try:
                    with contextlib.suppress(DialFailed):
                        await inquiry.see_role(self._access, self.hangs.limits.ping)
                finally:
                    inquiry.busy = False
        finally:
            self._check_reports_at = self.runtime.now() + self.options.refresh
            self._checking_reports = False

    async def _refreshed(self) -> None:
        """The slow refresh: the writer tells of everybody; each tells of himself where a source is not complete."""
        view, askable = self.cluster.view, self._can_ask()
        wanted = sorted(askable, key=lambda id_: (id_ != view.writer, id_))  # the writer's position proves lags
        if not self._is_complete:
            self.cluster.surveyed_at = self.runtime.now()
        elif view.writer is not None:
            wanted = [view.writer] if view.writer in askable else wanted[:1]
        for id_ in wanted:
            inquiry = self.inquiry_of(id_)
            if inquiry.busy:
                continue
            inquiry.busy, began = True, self.runtime.now()
            try:
                await inquiry.look(self._access, self.options.connect_timeout, thorough=True)
                self._admitted_at, self._blind = self.runtime.now(), False
            except DialFailed as failed:
                if judge(failed.fault).then is Next.RAISE:
                    self.bar(id_, failed.fault, began)
                    continue
                if failed.fault.kind is FaultKind.TIMEOUT and self.hangs.unattended(began, self.runtime.now()):
                    continue
                self.cluster.doubt(f"the refresh got no answer of {id_}: {failed.fault.text}", self.runtime.now())
            finally:
                inquiry.busy = False
