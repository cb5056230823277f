"""Looks after one cluster in the background: keeps its view fresh, and finds instances that hang.

Theory. In normal operation the topology is refreshed every ``aurora_refresh`` seconds. When anything is wrong (a failed
dial, a broken connection, a silent instance) the *writer is suspected*: each instance is asked by a coroutine of its
own whether it is the writer, at the pace of `policy.poll_interval`, so that a hung one delays no other. The suspicion
ends when the accepted writer, asked after the suspicion began, reports that it is the writer; connects that wait are
woken at that moment. An instance that did not answer is asked further, so that it is used again as soon as it is back.
After a timeout the next probe gets more time (`poll_interval.time_limit`): the server or this process may be slow, and
a probe that is given up has to begin again with the dial.

All that is known may be wrong. A reader that is just being created is in no instance's rows. If the writer is lost
then, the next writer may be an instance that this process has never heard of. So if a suspicion lasts, the given names
are asked as well, and at once where an address led to an instance that seems to be of another cluster: if all the
others were replaced meanwhile, only the names show what it is.

Not every instance can be asked: its address may be unknown, or it may refuse the monitor's login (a password was
changed). Such an instance is left out as long as that lasts, and the others are asked. If none can be asked, or none
that answers accepts the login, the monitor is *locked out*: connects find the writer themselves.

Users' connections are *sampled*; see `policy.hang_detection`. Nothing is added to the path of a statement.

Invariants: a suspicion ends only by the writer's own report, or with the monitor. A connection is cut only if its
instance was silent to a ping, lost its role, or left the cluster. When the monitor ends, it leaves nothing open.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic

from aurora_router.flow.attempt import PROVISIONAL_SECONDS, note_end
from aurora_router.flow.hang_detector import HangDetector
from aurora_router.flow.members import AGAIN_SECONDS, REFRESH_SECONDS, ask_members, find_manager
from aurora_router.flow.probe import Access, InstanceProbe, query_given_name
from aurora_router.flow.runtime import ConnT, DialFailed, MonitorRuntime
from aurora_router.model.bounds import forget_oldest
from aurora_router.model.event import MonitorLockedOut
from aurora_router.model.instance import Role
from aurora_router.model.observation import MISSING_SECONDS, ROW_AGE_SECONDS, Failure
from aurora_router.policy import poll_interval
from aurora_router.policy.auto_pause import find_pause
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.lockouts import Lockouts
from aurora_router.policy.route import Mode, find
from aurora_router.policy.verdict import ON_THIS_SIDE, FaultKind, judge, refuses_login

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source
    from aurora_router.policy.options import Options
    from aurora_router.policy.route import Address, Request, Route
    from aurora_router.policy.verdict import Fault

LINGER_SECONDS = 1.0
"""How long a monitor runs on without being needed, in seconds: a program that connects again and again keeps it."""
BUSY_SECONDS = 0.2
"""How long after a refresh that found the writer's session in use it is asked again, in seconds."""
RETURN_SECONDS = 1.0
"""Between two probes of an instance that did not answer, in seconds, while all is well otherwise."""
SEARCH_SECONDS = 1.0
"""If a suspicion is older, the given names are asked as well, and again after so long; in seconds."""
ALONE_SECONDS = 0.2
"""The same if no known instance answers: then the names are asked from the beginning."""
SURVEY_SECONDS = 1.0
"""When the other hosts of a list are asked, in seconds after a connect that took the first suitable one."""
MAX_GIVEN = 8
"""How many names that users connected by are remembered: the cluster's own, and aliases of them."""


class ClusterMonitor(Generic[ConnT]):
    """The monitor of one cluster.

    Args:
        runtime: does the I/O.
        cluster: the cluster to look after.
        access: how to connect to the instances.

    Attributes:
        unhealthy: the ids of instances that did not answer the last probe.
    """

    def __init__(self, runtime: MonitorRuntime[ConnT], cluster: Cluster, access: Access) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self.unhealthy: set[str] = set()
        self.access = access
        self.settled: tuple[Request, Route, Any] | None = (access.request, access.route, access.params)
        self._names = dict[str, tuple["Address", Access]]()
        self._remember_names(access)
        self.hangs = HangDetector(runtime, cluster, self)
        self._is_locked_out = self._has_given_up = self._checking_reports = self._asking_members = False
        self._searching: set[str] = set()
        self._misled_at = -math.inf
        self._epoch, self._unheard = cluster.view.epoch, set[str]()
        self._lockouts = Lockouts()
        self._login_since = -math.inf
        self._accepted_at = -1.0
        self._check_reports_at = runtime.now()
        self._probes: dict[str, InstanceProbe[ConnT]] = {}
        self._needed_at = runtime.now()
        self._plan_refresh()
        self._prepared: set[str] = set()
        self._expired: dict[str, int] = {}
        self._askable = self._find_askable()

    @property
    def can_ask(self) -> bool:
        """Whether it can log in to some instance, as far as is known."""
        return not (self._is_locked_out or self._has_given_up) and bool(self._askable)

    @property
    def has_sessions(self) -> bool:
        """Whether it has a session with any instance."""
        return any(probe.is_open for probe in list(self._probes.values()))

    def has_stalled(self, since: float, now: float) -> bool:
        """Whether this process was not attending at some time since then."""
        return self.hangs.has_stalled(since, now)

    def search_by(self, request: Request, route: Route) -> None:
        """Look for the writer by the names of a connect that waits for it, too.

        The names of the connects that succeeded may be of no use by now: a custom endpoint that was deleted.
        """
        if not self._names.keys() >= set(map(str, request.given)):
            self._remember_names(replace(self.access, request=request, route=route))

    def on_user_connected(self, access: Access) -> None:
        """Connect to the instances as the user did whose connect just succeeded."""
        before, lockouts = self.access, self._lockouts
        if access.params != before.params:
            self._login_since = self.runtime.now()
        if lockouts.terms:
            self._lockouts = lockouts.retry() if access.params == before.params else Lockouts()
        self.access, self._is_locked_out, self._has_given_up = access, False, False
        if access.request is not before.request:
            self._remember_names(access)
        if lockouts.terms or access.request is not before.request or access.route is not before.route:
            self._askable = self._find_askable()  # else `_start_due` has found it
        self.hangs.on_user_connected()
        self.settled = None if lockouts.terms else (access.request, access.route, access.params)

    @property
    def accesses(self) -> list[Access]:
        """How users connected by each of the names that they gave lately; the last one last."""
        return [*(access for _, access in self._names.values()), self.access]

    @property
    def options(self) -> Options:
        """The options of the last connect that succeeded."""
        return self.access.request.options

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Look after the cluster until it is no longer needed; the caller closes it then."""
        while self.wanted:
            seen, began, interval = self.cluster.news, self.runtime.now(), self.hangs.limits.interval
            await self.runtime.wait_for_news(self.cluster, seen, interval)
            if find_pause(self.options, self.cluster.view) is not None:
                self.cluster.note_held(self.runtime.now())
            self.hangs.sample(self.runtime.now() - began - interval)
            self._start_due()
            await self._tidy()

    async def close(self) -> None:
        """Close all sessions."""
        for probe in list(self._probes.values()):
            await probe.close()

    async def _tidy(self) -> None:
        """Close sessions that are in the way of users. While connects wait for the writer, none is."""
        cluster = self.cluster
        makes_room, cluster.is_crowded = cluster.is_crowded, False
        for id_ in sorted(self._probes.keys() - cluster.view.instances.keys()):
            if not self._probes[id_].busy:
                await self._probes.pop(id_).close()
        if self.has_sessions:
            databases: set[str] | None = None
            if cluster.suspected_at is None or not cluster.needed:
                databases = {
                    self.runtime.database(held) for each in cluster.tracked_connections().values() for held in each
                }
            for probe in list(self._probes.values()):
                await probe.tidy(databases, makes_room=makes_room)
        if makes_room:
            cluster.wake()

    @property
    def wanted(self) -> bool:
        """Whether it is needed, or was a moment ago; in a failover, clients may pause between two tries."""
        now = self.runtime.now()
        if self.cluster.needed:
            self._needed_at = now
        patience = LINGER_SECONDS if self.cluster.suspected_at is None else self.options.failover_timeout
        return now - self._needed_at < max(LINGER_SECONDS, patience)

    def _start_due(self) -> None:
        """Start the procedures that are due."""
        cluster = self.cluster
        self._forget_removed()
        self._note_former_writers()
        askable = self._askable = self._find_askable()
        self._give_up_where_refused()
        if cluster.suspected_at is not None and not self.can_ask:
            cluster.on_monitor_stopped()
        wanted = sorted(askable if cluster.suspected_at is not None else self._silent & askable)
        for id_ in wanted:
            if not self.probe_of(id_).busy:
                self._probes[id_].busy = True
                self.runtime.spawn(self._probe_until_healthy(self._probes[id_]))
        self._search_names()
        now = self.runtime.now()
        if now >= self._refresh_again_at or now - self._refreshed_at >= self._refresh_pause():
            self._plan_refresh()
            self._prepared.clear()
            self.runtime.spawn(self._refresh())
        self._ask_members_if_due()
        due = self.runtime.now() >= self._check_reports_at and not self._is_locked_out
        if due and not self._checking_reports and cluster.state.role_reports.lacks_standby:
            self._checking_reports = True
            self.runtime.spawn(self._check_reports())
        if cluster.suspected_at is None and not self._is_locked_out:
            self._prepare(askable - self._prepared)
            self._count_if_due()

    def _count_if_due(self) -> None:
        """Start to ask for client connections: at once where no monitor has, then every `poll_interval.LOAD_SECONDS`.

        The second time comes sooner, at random, so that processes that were started together do not go on together.
        """
        now, due = self.runtime.now(), self.cluster.state.demand.clients_at
        if now >= due and self._prefers_zones:
            random = self.runtime.random()
            every = poll_interval.LOAD_SECONDS
            pause = every * random if due == -math.inf else poll_interval.add_jitter(every, random)
            self.cluster.update(ClusterState.plan_count, now + pause)
            self.runtime.spawn(self._count_clients())

    def _ask_members_if_due(self) -> None:
        """Ask the manager of the cluster for its members, if there is one, now and then."""
        manager, now = find_manager(self.access.sources), self.runtime.now()
        pause = REFRESH_SECONDS if self.cluster.suspected_at is None else AGAIN_SECONDS
        if manager is None or self._asking_members or now - self.cluster.members_asked_at < pause * self._jitter:
            return
        self._asking_members = True
        self.runtime.spawn(self._ask_members(manager))

    async def _ask_members(self, manager: Source) -> None:
        try:
            await ask_members(self.runtime, self.cluster, manager, self.access.request.given)
        finally:
            self._asking_members = False

    def _forget_removed(self) -> None:
        """Forget instances that left the cluster."""
        known = self.cluster.view.instances.keys()
        self.unhealthy &= known
        self._unheard &= known
        self._prepared &= known
        self._lockouts = self._lockouts.keep(known | self._names.keys())
        for name in self._expired.keys() - known - self._names.keys():
            del self._expired[name]

    def _note_former_writers(self) -> None:
        """Ask a former writer until it answers: it can be promoted again once it has said that it is a reader.

        Where a connect found the new writer, the monitor may not have noticed that the former one does not answer.
        """
        view = self.cluster.view
        if view.epoch != self._epoch:
            self._epoch = view.epoch
            self._unheard |= view.former & view.instances.keys() - dict(view.yielded_at).keys()

    @property
    def _silent(self) -> set[str]:
        """The instances that are asked until they answer, also while the writer is not suspected."""
        return self.unhealthy | self._find_awake(self._unheard)

    def _give_up_where_refused(self) -> None:
        """Leave a suspicion that lasts to the connects if an instance, or a given name, refuses the monitor's login.

        It may be the new writer, and users may have the new password: the monitor gets it from the next connect that
        succeeds.
        """
        suspected_at, now = self.cluster.suspected_at, self.runtime.now()
        if self._has_given_up or suspected_at is None or now - suspected_at <= SEARCH_SECONDS:
            return
        refusing = [name for name in {**self.cluster.view.instances, **self._names} if self.is_locked_out(name)]
        if refusing:
            self._has_given_up, self.settled = True, None
            self.cluster.report(
                MonitorLockedOut(f"{', '.join(refusing)} may be the writer, and refuses the monitor's login"), now
            )

    def _prepare(self, ids: frozenset[str]) -> None:
        """Resolve the addresses of instances before anything goes wrong with the writer."""
        self._prepared |= ids
        for id_ in sorted(ids):
            self.runtime.spawn(self.probe_of(id_).prepare(self.access))

    def _find_askable(self) -> frozenset[str]:
        """Return the instances whose address is known and that did not refuse the monitor's login recently."""
        return frozenset(id_ for id_ in self.cluster.view.instances if self._may_ask(id_))

    def _find_awake(self, ids: Iterable[str]) -> frozenset[str]:
        """Return those that may be asked while all is well: where instances pause, only those that are in use."""
        if find_pause(self.options, self.cluster.view) is None:
            return frozenset(ids)
        return frozenset(ids) & self.cluster.held_instances()

    def _may_ask(self, id_: str) -> bool:
        """Whether an instance has a known address and did not refuse the monitor's login recently."""
        known = self.cluster.view.instances.get(id_)
        request, route = self.access.request, self.access.route
        if known is None or self.is_locked_out(id_) or find(known, route, request) is None:
            return False
        through = route.mode is Mode.NAME  # behind a name may be others than the one that is known by it
        return not (through and id_ in map(str, request.given)) or self.hangs.paths.is_direct(id_)

    def probe_of(self, id_: str) -> InstanceProbe[ConnT]:
        """Return the probe of an instance, with its only session."""
        probe = self._probes.setdefault(id_, InstanceProbe(self.runtime, self.cluster, id_))
        probe.counts_clients = self._prefers_zones
        return probe

    def _plan_refresh(self) -> None:
        self._refreshed_at, self._refresh_again_at = self.runtime.now(), math.inf
        self._jitter = poll_interval.add_jitter(1.0, self.runtime.random())

    @property
    def _is_complete(self) -> bool:
        """Whether the answer of one instance lists all of them, as far as is known."""
        return self.cluster.source is None or self.cluster.source.complete

    def _refresh_pause(self) -> float:
        cluster, slow, now = self.cluster, self.options.refresh, self.runtime.now()
        demand = cluster.state.demand
        if not self._is_complete and len(self._askable) > 1 and now - demand.surveyed_at > slow:
            slow = min(slow, SURVEY_SECONDS)
        if cluster.view.provisional:
            slow = min(slow, PROVISIONAL_SECONDS)
        if any(each.missing_since is not None for each in cluster.view.instances.values()):
            slow = min(slow, MISSING_SECONDS)  # whether it has left is known by then
        pause = self._jitter * demand.pause(slow, now)
        return min(pause, self._proof_pause()) if cluster.view.lacks_proof(now) else pause

    def _proof_pause(self) -> float:
        """How long after the last refresh a new writer's answer proves what it makes durable (`View.fresh`)."""
        row_age = ROW_AGE_SECONDS * max(1.0, self._jitter)
        return max(row_age, self.cluster.view.accepted_at + row_age - self._refreshed_at)

    # ------------------------------------------------------------ asking

    async def _probe_until_healthy(self, probe: InstanceProbe[ConnT]) -> None:
        """Probe one instance until all is well again."""
        thorough = True
        try:
            while self._may_ask(probe.instance):
                thorough = not await self._probe_once(probe, thorough=thorough)
                suspected_at = self.cluster.suspected_at
                if suspected_at is not None:
                    pause = poll_interval.fast_pause(self.runtime.now() - suspected_at, self.runtime.random())
                    await self.runtime.sleep(pause)
                elif probe.instance in self._silent:
                    await self.runtime.sleep(poll_interval.add_jitter(RETURN_SECONDS, self.runtime.random()))
                else:
                    return
        finally:
            probe.busy = False

    def _remember_names(self, access: Access) -> None:
        """Remember the names that users connected by: one of them may lead to an unknown writer."""
        given = {str(address): (address, access) for address in access.request.given}
        names = {**{name: each for name, each in self._names.items() if name not in given}, **given}
        forget_oldest(names, MAX_GIVEN)
        self._names = names

    def _search_names(self) -> None:
        """Query the given names if a suspicion lasts, or if no known instance can be the writer."""
        view, cluster = self.cluster.view, self.cluster
        if cluster.suspected_at is None:
            return
        misled = self._misled_at >= cluster.suspected_at
        lost = view.writer is not None and view.writer not in self._askable
        alone = misled or lost or self.unhealthy >= self._askable
        if not alone and self.runtime.now() - cluster.suspected_at <= SEARCH_SECONDS:
            return
        for name, given in self._names.items():
            if name not in self._searching and not self.is_locked_out(name):
                self._searching.add(name)
                self.runtime.spawn(self._query_name(*given, ALONE_SECONDS if alone else SEARCH_SECONDS))

    async def _query_name(self, address: Address, access: Access, pause: float) -> None:
        """Query the topology through a given name, whose answer may end the suspicion; then pause."""
        name, began = str(address), self.runtime.now()
        try:
            try:
                seconds = self._seconds_for(name)
                await query_given_name(self.runtime, self.cluster, access, address, seconds, self._ask_accepted)
                self._record_timing(name, None)
                self._lockouts = self._lockouts.record_login(name)
            except DialFailed as failed:
                self._record_timing(name, failed.fault)
                if refuses_login(failed.fault, self.cluster.temporary_refusals):
                    self.record_lockout(name, failed.fault, began)
            await self.runtime.sleep(poll_interval.add_jitter(pause, self.runtime.random()))
        finally:
            self._searching.discard(name)

    async def _probe_once(self, probe: InstanceProbe[ConnT], *, thorough: bool) -> bool:
        """Probe an instance once; returns whether there was an answer."""
        began, id_ = self.runtime.now(), probe.instance
        known = self.cluster.view.instances[id_]
        thorough, seconds = thorough or id_ in self._silent, self._seconds_for(id_)
        if id_ in self.unhealthy and (id_ in self._expired or self.hangs.is_hung(id_)):
            # No user's dial has to find out meanwhile, at the price of its whole time, what this probe finds out.
            self.cluster.update(ClusterState.prolong_failure, id_, began, seconds + 2.0 * RETURN_SECONDS)
        try:
            await self._update_view(probe, seconds, thorough=thorough)
        except DialFailed as failed:
            self._record_timing(id_, failed.fault)
            self._record_no_answer(id_, known.generation, failed.fault, began)
            return False
        self._record_timing(id_, None)
        self._lockouts = self._lockouts.record_login(id_)
        self._accepted_at, self._is_locked_out = self.runtime.now(), False
        self._unheard.discard(id_)
        if id_ in self.unhealthy:
            self.unhealthy.discard(id_)
            self.cluster.record_success(id_, self.runtime.now() - began, self.runtime.now())
        return True

    async def _update_view(self, probe: InstanceProbe[ConnT], seconds: float, *, thorough: bool) -> None:
        await probe.update_view(self.access, seconds, thorough=thorough, ask_accepted=self._ask_accepted)

    async def _ask_accepted(self) -> None:
        """Ask the accepted writer before another one replaces it, if nothing was wrong with it so far.

        What is known of it may be old: a process without a connection to it does not notice that it lost its role, and
        got it back. A zombie of the time between shows more of the log than what is known, and less than there is.
        """
        writer = self.cluster.view.writer
        if writer is None or self.cluster.suspected_at is not None or not self._may_ask(writer):
            return
        probe = self.probe_of(writer)
        if not probe.busy:  # else it is being asked
            probe.busy = True
            try:
                await self._probe_once(probe, thorough=True)
            finally:
                probe.busy = False

    def _seconds_for(self, name: str) -> float:
        """Return how long a probe of an instance, or a query of a given name, may take, in seconds."""
        return poll_interval.time_limit(
            self.hangs.limits.ping, self.options.connect_timeout, self._expired.get(name, 0)
        )

    def _record_timing(self, name: str, fault: Fault | None) -> None:
        """Record whether a probe timed out; None: it was answered."""
        if fault is not None and fault.kind is FaultKind.TIMEOUT:
            self._expired[name] = self._expired.get(name, 0) + 1
        else:
            self._expired.pop(name, None)

    def _record_no_answer(self, id_: str, generation: int, fault: Fault, began: float) -> None:
        temporary = self.cluster.temporary_refusals
        now, verdict = self.runtime.now(), judge(fault, temporary)
        if refuses_login(fault, temporary):
            self.record_lockout(id_, fault, began)
        if fault.kind in ON_THIS_SIDE:
            return
        if fault.kind is FaultKind.NAME:
            self._misled_at = now
        if fault.kind is FaultKind.REJECTED or (fault.kind is FaultKind.TIMEOUT and self.hangs.has_stalled(began, now)):
            return
        note_end(self.cluster, id_, fault, now)
        known = id_ in self.unhealthy or self.cluster.state.health.quarantine.remaining(id_, now) > 0.0
        self.unhealthy.add(id_)
        if (verdict.down and not known) or (verdict.quarantine and self.cluster.view.lacks_failure(id_)):
            self.cluster.observe(Failure(id_, generation, gone=False, reason=verdict.name), now)
        self.cluster.record_failure(id_, now, self.options.quarantine, began)

    def is_locked_out(self, id_: str) -> bool:
        """Whether an instance, or a given name, refused the monitor's login, so that it is not asked for a while."""
        return self._lockouts.is_locked_out(id_, self.runtime.now())

    def record_lockout(self, id_: str, fault: Fault, began: float) -> None:
        """Leave out an instance, or a given name, that refused the monitor's login; longer each time.

        If no other one has accepted the login since the suspicion began, connects have to find the writer themselves.
        A refusal of the login of before, whose dial `began` when no user had the new one, counts for nothing.
        """
        if began < self._login_since:
            return
        now, is_known = self.runtime.now(), id_ in self._lockouts.terms
        self._lockouts, self.settled = self._lockouts.record_refusal(id_, now), None
        suspected_at = self.cluster.suspected_at
        if not self._is_locked_out and self._accepted_at < (began if suspected_at is None else suspected_at):
            self._is_locked_out = True
            if not is_known:
                self.cluster.report(MonitorLockedOut(fault.text), now)
            self.cluster.on_monitor_stopped()

    async def _check_reports(self) -> None:
        """Check the role report of a reader, so that connects need not query it; see `policy.role_reports`."""
        try:
            awake = self._find_awake(self.cluster.view.instances)
            for reader in list(self.cluster.view.readers()):
                probe = self.probe_of(reader.id)
                if reader.id not in awake or probe.busy or not self.cluster.state.role_reports.lacks_standby:
                    continue
                probe.busy = True
                try:
                    await probe.check_role_report(self.access, self._seconds_for(reader.id))
                except DialFailed as failed:
                    self._record_timing(reader.id, failed.fault)
                finally:
                    probe.busy = False
        finally:
            self._check_reports_at = self.runtime.now() + self.options.refresh
            self._checking_reports = False

    @property
    def _prefers_zones(self) -> bool:
        """Whether connects prefer zones, so that it counts how busy instances are; see `policy.affinity`."""
        return any(each.request.options.zones for each in self.accesses)

    async def _count_clients(self) -> None:
        """Ask readers for their client connections; the writer only on a session that there is, or in a refresh.

        That one does not answer has no consequence but that its figure gets too old: a connect, or a ping, finds out.
        """
        recent = poll_interval.LOAD_SECONDS / 4.0
        for id_ in sorted(self._find_awake(self._find_askable())):
            probe, known = self.probe_of(id_), self.cluster.view.instances.get(id_)
            if known is None or probe.busy or (known.role is Role.WRITER and not probe.is_open):
                continue
            if known.occupancy is not None and self.runtime.now() - known.occupancy.at < recent:
                continue
            probe.busy = True
            try:
                await probe.check_role_report(self.access, self._seconds_for(id_))
            except DialFailed as failed:
                self._record_timing(id_, failed.fault)
            finally:
                probe.busy = False

    async def _refresh(self) -> None:
        """Refresh the view: ask the writer for all instances, or each instance if an answer lists only one."""
        view, askable = self.cluster.view, self._find_awake(self._find_askable())
        wanted = sorted(askable, key=lambda id_: (id_ != view.writer, id_))  # the writer's position proves lags
        if not self._is_complete:
            self.cluster.update(ClusterState.begin_survey, self.runtime.now())
        elif view.writer is not None:
            wanted = [view.writer] if view.writer in askable else wanted[:1]
        for id_ in wanted:
            probe = self.probe_of(id_)
            if probe.busy:
                if id_ == view.writer:
                    self._refresh_again_at = self.runtime.now() + BUSY_SECONDS
                continue
            probe.busy, began = True, self.runtime.now()
            try:
                await self._update_view(probe, self.options.connect_timeout, thorough=True)
                self._accepted_at, self._is_locked_out = self.runtime.now(), False
            except DialFailed as failed:
                if refuses_login(failed.fault, self.cluster.temporary_refusals):
                    self.record_lockout(id_, failed.fault, began)
                    continue
                if failed.fault.kind in ON_THIS_SIDE:
                    continue
                if failed.fault.kind is FaultKind.TIMEOUT and self.hangs.has_stalled(began, self.runtime.now()):
                    continue
                self.cluster.suspect_writer(
                    f"the refresh got no answer of {id_}: {failed.fault.text}", self.runtime.now()
                )
            finally:
                probe.busy = False
