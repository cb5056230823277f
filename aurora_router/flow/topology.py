"""The topology within one connect: on which connection it is queried, and what the answer changes.

One connect at a time queries the topology; the others wait for its answer. While the view is distrusted, each round
asks another server.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aurora_router.errors import InvalidOption, NameNotResolved
from aurora_router.flow.attempt import AttemptFailed, ConnectAttempt
from aurora_router.flow.runtime import ConnT, DialFailed, Runtime, Target
from aurora_router.flow.topology_query import (
    PERMISSION_DENIED,
    check_role,
    find_impostor,
    identify,
    query_topology,
    read_role_report,
)
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.event import AnswerRefused, ClaimRefused, ConfigurationAdvice
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import Row, Topology
from aurora_router.policy.candidates import is_lag_unproven
from aurora_router.policy.options import Source as SourceChoice
from aurora_router.policy.route import Address, Mode, Request, Route, identity
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source


NO_READER_SECONDS = 1.0
"""How old a view without a reader may be when the writer serves in a reader's place."""
PROVISIONAL_SECONDS = 1.0
"""How old a view may be in which the token of the writer may be from before its promotion."""
PERMIT_SECONDS = 1.0
"""How often a connect that waits for the topology looks whether another one is still learning it, in seconds."""


class TopologyAttempt(ConnectAttempt[ConnT]):
    """One connect as far as it learns: a `ConnectAttempt` that can ask for the topology."""

    def __init__(
        self, runtime: Runtime[ConnT], cluster: Cluster, request: Request, route: Route, sources: Sequence[Source]
    ) -> None:
        super().__init__(runtime, cluster, request, route)
        # The hosts of a list are the instances: the ids in an answer about the whole cluster would not match them.
        self.sources = [each for each in sources if not each.complete] if route.mode is Mode.LIST else sources
        self._asked: list[str] = []
        self._said: tuple[ConnT, bool] | None = None
        self._told: tuple[ConnT, float] | None = None

    async def learned(self) -> ConnT:
        """Query the topology once; returns the connection that it was queried on."""
        self.doubt = self.cluster.view.known
        try:
            return (await self._learn())[0]
        except AttemptFailed as why:
            self._last = why
        raise self._new_error() from self._cause()

    async def _know(self) -> tuple[ConnT, Instance] | None:
        """Have a view; returns the connection that it was learned on, where one was needed."""
        cluster = self.cluster
        if cluster.view.known and (not self.doubt or cluster.is_monitored):
            return None
        news = cluster.news
        permit = cluster.begin_topology_query()
        if permit is not None:
            try:
                return await self._learn()
            finally:
                cluster.end_topology_query()
        while cluster.is_querying_topology and cluster.news == news and (left := self.left()) > 0.0:
            await self.runtime.wait_for_news(cluster, news, min(left, PERMIT_SECONDS))
        return None if self.cluster.view.known else await self._learn()

    async def _learn(self) -> tuple[ConnT, Instance]:
        """Query the topology: through the given names first; while the view is distrusted, another server each time.

        A server that was silent in this connect is asked last, whatever name leads to it.
        """
        if self.route.mode is Mode.LIST:
            return await self._learn_list()
        seeds: list[Address | Instance] = list(self.request.given)
        if self.doubt:
            seeds += self.cluster.view.instances.values()
        # Without a monitor, and the writer just failed: the given name most likely still leads to it.
        gone = self.route.role is WantedRole.WRITER and self._is_avoided(self.cluster.view.writer)
        seeds.sort(
            key=lambda seed: (
                self._asked.count(_seed_name(seed)),
                gone if isinstance(seed, Address) else self._is_avoided(seed.id),
            )
        )
        postponed: list[Address | Instance] = []
        for seed in seeds:
            self._asked.append(_seed_name(seed))
            try:
                target = await self._find_target(seed)
                if self._silent_at.isdisjoint(target.addresses):
                    return await self._learn_at(seed, target)
                postponed.append(seed)
            except AttemptFailed as why:
                self._last = why
        for seed in postponed:
            try:
                return await self._learn_through(seed)
            except AttemptFailed as why:
                self._last = why
        raise AttemptFailed("no server answered that could report the topology")

    async def _learn_list(self) -> tuple[ConnT, Instance]:
        """Ask the hosts of a list one after the other; the writer ends the search for a writer.

        Those that just failed come last, and only in the search for a writer where others have answered.
        """
        kept: tuple[ConnT, Instance] | None = None
        try:
            for seed in sorted(self.cluster.view.instances.values(), key=self._has_just_failed):
                if kept is not None and self.route.role is not WantedRole.WRITER and self._has_just_failed(seed):
                    break
                try:
                    arrived = await self._learn_through(seed)
                except AttemptFailed as why:
                    self._last = why
                    continue
                if kept is not None:
                    await self.runtime.discard(kept[0])
                kept = arrived
                if self.route.role is WantedRole.WRITER and arrived[1].role is Role.WRITER:
                    break
        except BaseException:
            if kept is not None:
                await self.runtime.discard(kept[0])
            raise
        if kept is None:
            self._refuse_nameless()
            raise AttemptFailed("none of the hosts given answered")
        return kept

    def _refuse_nameless(self) -> None:
        """Give up at once where none of the hosts has an address, as with a single one.

        Raises:
            NameNotResolved: that is so.
        """
        if self._faults == {FaultKind.NAME} and not self.cluster.view.known:
            raise NameNotResolved(
                "none of the hosts given has an address. Tried:", attempts=self.attempts
            ) from self._cause()

    def _has_just_failed(self, instance: Instance) -> bool:
        """Whether an instance failed just now."""
        return self._is_avoided(instance.id)

    def _is_avoided(self, instance: str | None) -> bool:
        """Whether an instance is a last resort for a while."""
        return instance is not None and self.cluster.quarantine.remaining(instance, self.runtime.now()) > 0.0

    async def _find_target(self, seed: Address | Instance) -> Target:
        return await (self._given(seed) if isinstance(seed, Address) else self._located(seed))

    async def _learn_through(self, seed: Address | Instance) -> tuple[ConnT, Instance]:
        return await self._learn_at(seed, await self._find_target(seed))

    async def _learn_at(self, seed: Address | Instance, target: Target) -> tuple[ConnT, Instance]:
        started = self.runtime.now()
        connection = await self._dial(target, None if isinstance(seed, Address) else seed)
        latency = self.runtime.now() - started
        try:
            if isinstance(seed, Address):
                instance = await self._recognise(connection, target)
            else:
                instance = await self._ask(connection, seed.id, by_id=True)
            self.cluster.record_success(instance.id, latency, self.runtime.now())
        except BaseException:
            await self.runtime.discard(connection)
            raise
        return connection, instance

    async def _recognise(self, connection: ConnT, target: Target) -> Instance:
        """Which instance a connection through a name led to.

        A name may stand for a load balancer or a pooler, so an address proves nothing: where the source has ids, the
        server is asked for its own each time, in one round trip. Where it has none, the name is all that is known.
        """
        instance = await self._behind(connection, target)
        where = f"{self.runtime.address(connection)}:{target.port}"
        self.cluster.note_address(where, instance.id)  # for `_wanted` alone
        return instance

    async def _behind(self, connection: ConnT, target: Target) -> Instance:
        cluster, source = self.cluster, self.cluster.source
        if not cluster.view.known or self.doubt:
            return await self._ask(connection, target.name)
        if source is None or source.id_sql is None:
            id_: str | None = target.name
            standby = await self._standby(connection, target.name, cluster.view.instances.get(target.name))
        else:
            id_, standby = await self._identified(connection, source, target.name)
        known = cluster.view.instances.get(id_ or "")
        if known is not None:
            known = await self._refreshed(connection, known, target.name, by_id=False) or known
            if standby is (known.role is not Role.WRITER):
                return known
        return await self._ask(connection, target.name)

    async def _identified(self, connection: ConnT, source: Source, name: str) -> tuple[str | None, bool]:
        started, wanted = self.runtime.now(), self._wanted(name, *self.runtime.path(connection))
        try:
            found = await identify(self.runtime, self.cluster, connection, source, self._dial_seconds(), wanted)
        except DialFailed as failed:
            raise self._note_failure(name, failed, started, None, wanted) from failed
        self._said = connection, found[1]
        return found

    async def _refreshed(
        self, connection: ConnT, instance: Instance, name: str | None = None, *, by_id: bool = True
    ) -> Instance | None:
        """Ask for the topology on a fresh connection if the view is older than ``aurora_refresh``; None: it is not.

        Where the writer is about to serve because no reader is known, `NO_READER_SECONDS` are old enough: one may have
        joined. So are `PROVISIONAL_SECONDS` where the writer's own row has not been seen yet (`View.provisional`). One
        connect does so, however many go on at once. Returns the instance that answered.
        """
        at = self.cluster.view.refreshed_at
        cluster, limit = self.cluster, self.request.options.refresh
        if instance.role is Role.WRITER and self._lacks_reader():
            cluster.reader_missed_at = self.runtime.now()
            limit = min(limit, NO_READER_SECONDS)
        if self.cluster.view.provisional:
            limit = min(limit, PROVISIONAL_SECONDS)
        overdue = at is not None and (cluster.overdue or self.runtime.now() - at > limit)
        permit = cluster.begin_topology_query() if overdue else None
        if permit is None:
            return None
        try:
            cluster.overdue = False
            return await self._ask(connection, name or instance.id, by_id=by_id)
        finally:
            cluster.end_topology_query()

    def _lacks_reader(self) -> bool:
        """Whether a reader is wanted, and none is known."""
        role = self.route.role
        wanted = role is WantedRole.READER or role is WantedRole.PREFER_READER
        return wanted and not any(True for _ in self.cluster.view.readers())

    async def _ask(self, connection: ConnT, asked: str, *, by_id: bool = False) -> Instance:
        """One topology query; its answer changes the view. Returns the instance that answered.

        Args:
            connection: on which to ask.
            asked: what was dialled: an instance's id, or a name that the user gave.
            by_id: whether it was an instance's id, see `Topology.by_id`.

        Raises:
            AttemptFailed: no answer, or it is of another cluster, or of a former writer that does not know it: not even
                its reads are of any use.
        """
        cluster = self.cluster
        sources = self.sources if cluster.source is None else (cluster.source,)
        started, wanted = self.runtime.now(), self._wanted(asked, *self.runtime.path(connection))
        refusals: list[DialFailed] = []
        seconds = self._dial_seconds()
        try:
            answer = await query_topology(
                self.runtime, connection, asked, sources, seconds, refusals, wanted, by_id=by_id
            )
        except DialFailed as failed:
            raise self._note_failure(asked, failed, started, None, wanted) from failed
        self._heed(refusals, asked)
        if answer is None:
            standby = await self._standby(connection, asked, None)
            topology = Topology((Row(asked, writer=not standby),), asked, not standby, complete=False)
            check = None
        else:
            source, topology, check = answer
            standby = not topology.observer_is_writer
            cluster = self._find_cluster(cluster, topology, asked)
            cluster.source = source
        events = cluster.observe(self._attribute(topology), self.runtime.now())
        if check is not None:
            cluster.record_role_check(self.runtime.path(connection), check, self.runtime.now())
        self._said, self._told = (connection, standby), (connection, started)
        self._advise_on_names()
        observer, own = topology.observer or asked, Role.READER if standby else Role.WRITER
        known = self.cluster.view.instances.get(observer, Instance(observer, own))
        for event in events:
            if isinstance(event, AnswerRefused):
                raise AttemptFailed(f"{asked} led to another cluster ({observer}): {event.reason}")
        reasons = [each.reason for each in events if isinstance(each, ClaimRefused) and each.observer == observer]
        if own is Role.WRITER and (reasons or self.cluster.view.writer != observer) and not self._takes_any():
            why = reasons[0] if reasons else "a later one is known"
            raise AttemptFailed(f"{observer} takes itself for the writer, and is not accepted: {why}")
        return known

    def _takes_any(self) -> bool:
        """Whether what the name leads to is wanted, whatever that takes itself for."""
        return self.route.role is WantedRole.ANY and self.route.mode in {Mode.PINNED, Mode.NAME}

    async def _is_lag_unproven(self, connection: ConnT, instance: Instance) -> bool:
        """Whether a reader may lag by more than ``aurora_max_lag``; it is asked where what is known does not show it.

        What it answers counts as of when it was asked: however small the bound, the way of the answer is not in it.

        Raises:
            AttemptFailed: no answer.
        """
        options = self.request.options
        if options.max_lag is None or not is_lag_unproven(instance, options, self.runtime.now()):
            return False
        if self._told is None or self._told[0] is not connection:
            instance = await self._ask(connection, instance.id, by_id=True)
        return self._told is None or is_lag_unproven(instance, options, self._told[1])

    def _find_cluster(self, cluster: Cluster, topology: Topology, asked: str) -> Cluster:
        """The cluster that an answer describes, as far as the name that was dialled shows.

        Raises:
            AttemptFailed: another instance answered than the one that was dialled.
        """
        moved = find_impostor(asked, topology) if topology.by_id else None
        if moved is not None:
            raise AttemptFailed(moved)
        if not topology.by_id:
            self.cluster = cluster.registry.match_cluster(cluster, identity(self.request, self.route), topology)
        return self.cluster

    def _attribute(self, topology: Topology) -> Topology:
        """The answer, with what the name that was dialled proves: a name that is only attached may lead elsewhere."""
        attached = identity(self.request, self.route) != self.cluster.identity
        return replace(topology, by_id=True) if attached else topology

    async def _standby(self, connection: ConnT, name: str, instance: Instance | None) -> bool:
        """Whether the server is a standby, by its own report: at start-up, or if asked; it is asked once."""
        if self._said is not None and self._said[0] is connection:
            return self._said[1]
        standby = read_role_report(self.runtime, self.cluster, connection)
        if standby is None:
            started, wanted = self.runtime.now(), self._wanted(name, *self.runtime.path(connection))
            try:
                check = await check_role(self.runtime, self.cluster, connection, self._dial_seconds(), wanted)
            except DialFailed as failed:
                raise self._note_failure(name, failed, started, instance, wanted) from failed
            standby = check.standby
        self._said = connection, standby
        return standby

    # ------------------------------------------------------------ advice for people

    def _heed(self, refusals: Sequence[DialFailed], asked: str) -> None:
        """What it means that a server did not answer a topology query.

        Raises:
            InvalidOption: it is not Aurora, and ``aurora_source=aurora`` says that it is.
        """
        for refusal in refusals:
            if refusal.fault.sqlstate == PERMISSION_DENIED:
                self._advise(
                    "permission",
                    f"the user may not ask for the topology ({refusal.fault.text}): connections are routed by the "
                    "names alone; grant EXECUTE on that function",
                )
            elif self.request.options.source is SourceChoice.AURORA:
                raise InvalidOption(
                    f"aurora_source=aurora, but {asked} is not Aurora PostgreSQL ({refusal.fault.text}): "
                    "use aurora_source=auto or aurora_source=postgresql"
                ) from refusal.cause

    def _advise_on_names(self) -> None:
        """Several instances, and no name for any of them: say so."""
        route, count = self.route, len(self.cluster.view.instances)
        nameless = route.mode is Mode.NAME and route.domain is None and self.request.hostaddr is None
        if nameless and count > 1:
            self._advise(
                "names",
                f"{self.request.given[0]} has {count} instances, and how they are named is unknown: connections go "
                "through the given name, their role alone is checked; set aurora_instance_host, for example "
                "aurora_instance_host={id}.db.internal",
            )

    def _advise_on_wait(self) -> None:
        """A first connect that goes on trying: it may be an outage, or a wrong port; say so while it waits."""
        if not self.cluster.view.known:
            self._advise(
                "waiting",
                f"nothing at {', '.join(map(str, self.request.given))} takes connections now ({self._last}): trying "
                f"again for {self._patience():g} s (aurora_failover_timeout, aurora_connect_timeout)",
            )

    def _advise(self, key: str, text: str) -> None:
        """Report an advice once per cluster."""
        if key not in self.cluster.warned:
            self.cluster.warned.add(key)
            self.cluster.report(ConfigurationAdvice(text), self.runtime.now())


def _seed_name(seed: Address | Instance) -> str:
    return str(seed) if isinstance(seed, Address) else seed.id


def seed_hosts(cluster: Cluster, request: Request) -> None:
    """Make the hosts of a list the instances of a cluster about which nothing is known yet."""
    if cluster.view.instances:
        return
    rows = {str(each): Instance(str(each), host=each.host, port=each.port) for each in request.given}
    cluster.view = replace(cluster.view, instances=rows)
