"""Putting one connection on the right instance.

Theory. The first connection to a cluster goes through the given name, and one topology query on that very connection
tells the cluster. From then on the view decides: an instance is chosen, dialled by its own name, and its role is
checked against what it reports of itself at start-up, which costs nothing. Whatever contradicts the view (a role that
differs, a dial that fails) is an observation, changes the view by `reduce`, and the choice is made anew, until a
connection fits or the time is up.

Invariants: a connection that is handed out served the wanted role when it was made, by the server's own word; every
connection that is not handed out is closed, also on cancellation; every reservation is released.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Generic

from aurora_router.errors import (
    Attempt,
    InvalidOption,
    NameNotResolved,
    NameNotVerifiable,
    NoInstanceAvailable,
    WriterUnavailable,
)
from aurora_router.flow.learn import PERMISSION_DENIED, ask_standby, ask_topology
from aurora_router.flow.world import ConnT, DialFailed, Placed, Target, World
from aurora_router.model.endpoint import EndpointKind, WantedRole
from aurora_router.model.event import Advice
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import Failure, Row, Topology
from aurora_router.policy.balance import Selection, select
from aurora_router.policy.options import ReaderFallback
from aurora_router.policy.options import Source as SourceChoice
from aurora_router.policy.route import Address, Mode, Request, Route, leads_elsewhere, locate, route
from aurora_router.policy.verdict import FaultKind, Next, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source


_UNVERIFIABLE = frozenset({EndpointKind.OTHER, EndpointKind.GLOBAL})
"""Names that no certificate of Aurora's carries."""


class _Unplaced(Exception):
    """This round came to nothing; another one may not."""


class Connecting(Generic[ConnT]):
    """One connect: what it was asked for, what it has tried."""

    def __init__(
        self, world: World[ConnT], cluster: Cluster, request: Request, route: Route, sources: Sequence[Source]
    ) -> None:
        self.world = world
        self.cluster = cluster
        self.request = request
        self.route = route
        # The hosts of a list are the instances: ids that a server tells of the whole cluster would not match them.
        self.sources = [each for each in sources if not each.complete] if route.mode is Mode.LIST else sources
        self.attempts: list[Attempt] = []
        self.doubt = False
        self._started = world.now()
        self._before = cluster.view
        self._alive = False
        self._last: BaseException | None = None
        self._asked: list[str] = []

    async def run(self) -> Placed[ConnT]:
        """Connect, and go on trying for as long as it makes sense.

        Raises:
            NoInstanceAvailable: nothing that fits could be reached in time.
            Exception: the driver's own, where no other try could end otherwise (a wrong password, no such database).
        """
        try:
            return await self._once()
        except _Unplaced as why:
            self._doubted(why)
        from aurora_router.retry import reconnecting  # noqa: PLC0415 - tenacity is imported when first needed

        self.doubt = True
        try:
            async for attempt in reconnecting(self.world, self.cluster, self.left, retry_on=_Unplaced):
                with attempt:
                    return await self._once_more()
        except _Unplaced as why:
            self._last = why
        raise self._given_up() from self._cause()

    async def learned(self) -> ConnT:
        """Ask somebody for the topology; returns the connection that it was asked on."""
        self.doubt = self.cluster.view.known
        try:
            return (await self._learn())[0]
        except _Unplaced as why:
            self._last = why
        raise self._given_up() from self._cause()

    def left(self) -> float:
        """Seconds for which it makes sense to go on, at least 0."""
        return max(0.0, self._started + self._patience() - self.world.now())

    # ------------------------------------------------------------ one round

    async def _once_more(self) -> Placed[ConnT]:
        try:
            return await self._once()
        except _Unplaced as why:
            self._doubted(why)
            raise

    def _doubted(self, why: _Unplaced) -> None:
        """A round came to nothing: whoever watches is to find the writer."""
        self._last = why
        if self.route.role is WantedRole.WRITER:
            self.cluster.doubt(f"a connect to the writer failed: {why}", self.world.now())

    async def _sure(self) -> None:
        """While the writer is in doubt, wait for whoever asks all instances at once, rather than dial a dead one."""
        cluster = self.cluster
        while self.route.role is WantedRole.WRITER:
            news = cluster.news
            if cluster.doubted_at is None or self.left() <= 0.0:
                return
            await self.world.changed(cluster, news, self.left())

    async def _once(self) -> Placed[ConnT]:
        if self.route.mode is Mode.THROUGH:
            return await self._pass()
        if self._by_name():
            return await self._through_name()
        if self.route.mode is Mode.PINNED:
            return await self._pinned()
        return await self._chosen()

    def _by_name(self) -> bool:
        """Whether instances can't be dialled, so that the given name has to do."""
        if self.route.mode is Mode.NAME:
            return True
        source = self.cluster.source
        told = self.cluster.view.known and (source is None or not source.complete)
        return told and self.route.mode is Mode.INSTANCES

    async def _pass(self) -> Placed[ConnT]:
        connection = await self._dial(await self._given(self.request.given[0]), None)
        return Placed(connection, self.cluster, None, 0, self.route)

    async def _through_name(self) -> Placed[ConnT]:
        """Dial the given name and check the role alone."""
        target = await self._given(self.request.given[0])
        connection = await self._dial(target, None)
        try:
            instance = await self._recognise(connection, target)
            if await self._serves(connection, instance):
                return self._placed(connection, instance, self.route)
        except BaseException:
            await self.world.discard(connection)
            raise
        await self.world.discard(connection)
        raise _Unplaced(f"{target.name} led to a {instance.role.value} ({instance.id})")

    async def _pinned(self) -> Placed[ConnT]:
        """Dial the one instance that the name, or the option, means."""
        wanted = self.request.options.instance
        if wanted is None and not self.cluster.view.known:
            return self._placed(*await self._learn_through(self.request.given[0]), self.route)
        spare = await self._know()
        name = (wanted or self.route.endpoint.label or "").lower()
        known = next((each for each in self.cluster.view.instances.values() if each.id.lower() == name), None)
        if spare is not None:
            if known is not None and spare[1].id == known.id:
                return self._placed(*spare, self.route)
            await self.world.discard(spare[0])
        if known is None:
            raise _Unplaced(f"the cluster has no instance {wanted or name!r}")
        connection = await self._reserved_dial(known)
        try:
            return self._placed(connection, await self._refreshed(connection, known) or known, self.route)
        except BaseException:
            await self.world.discard(connection)
            raise

    async def _chosen(self) -> Placed[ConnT]:
        """Dial the instance that the policy chooses, by the topology."""
        await self._sure()
        spare = await self._know()
        try:
            placed = await self._walk(spare)
        except BaseException:
            if spare is not None:
                await self.world.discard(spare[0])
            raise
        if spare is not None and placed.connection is not spare[0]:
            await self.world.discard(spare[0])
        return placed

    async def _walk(self, spare: tuple[ConnT, Instance] | None) -> Placed[ConnT]:
        """Try instances until one serves; chosen anew after each failure, so that what a dead one leaves spreads."""
        tried: set[str] = set()
        turn = self.cluster.next_turn()
        while True:
            selection = self._select(spare, turn, tried)
            instance = next((each for each in selection.order if each.id not in tried), None)
            if instance is None:
                break
            if spare is not None and spare[1].id == instance.id:
                return self._placed(spare[0], instance, selection)
            tried.add(instance.id)
            arrived = await self._try(instance)
            if arrived is not None:
                return self._placed(*arrived, selection)
        raise _Unplaced(selection.reason if not selection.order else "no instance that fits could be reached")

    async def _try(self, instance: Instance) -> tuple[ConnT, Instance] | None:
        """Dial an instance that is reserved and check its role; None: go on to the next."""
        try:
            connection = await self._reserved_dial(instance, reserved=True)
        except _Unplaced as why:
            self._last = why
            return None
        try:
            found = await self._confirmed(connection, instance)
            if found is not None:
                return connection, found
        except BaseException:
            await self.world.discard(connection)
            raise
        await self.world.discard(connection)
        return None

    # ------------------------------------------------------------ choosing

    def _select(
        self, spare: tuple[ConnT, Instance] | None, turn: int, tried: Container[str] | None = None
    ) -> Selection:
        """Choose by the policy; with `tried`, the first that was not tried yet is reserved, unless it is the spare.

        Choosing and counting the choice are one step, so that concurrent connects spread.
        """
        cluster = self.cluster
        with cluster.lock:
            selection = select(
                cluster.view,
                self.request.options,
                self.route.role,
                loads=cluster.loads(cluster.view.instances),
                quarantine=cluster.quarantine,
                now=self.world.now(),
                rng=self.world,
                turn=turn,
            )
            if spare is not None:
                selection = selection.preferring(spare[1].id)
            if tried is not None:
                first = next((each.id for each in selection.order if each.id not in tried), None)
                if first is not None and (spare is None or first != spare[1].id):
                    cluster.reserve(first)
        return selection

    # ------------------------------------------------------------ knowing the cluster

    async def _know(self) -> tuple[ConnT, Instance] | None:
        """Have a view; returns the connection that it was learned on, where one was needed."""
        cluster = self.cluster
        if cluster.view.known and (cluster.watched or not self.doubt):
            return None
        news = cluster.news
        if cluster.begin_learning():
            try:
                return await self._learn()
            finally:
                cluster.end_learning()
        await self.world.changed(cluster, news, self.left())
        return None if self.cluster.view.known else await self._learn()

    async def _learn(self) -> tuple[ConnT, Instance]:
        """Ask for the topology: through the given names first, in doubt each time somebody else."""
        if self.route.mode is Mode.LIST:
            return await self._learn_list()
        seeds: list[Address | Instance] = list(self.request.given)
        if self.doubt:
            seeds += self.cluster.view.instances.values()
        seeds.sort(key=lambda seed: self._asked.count(_seed_name(seed)))
        for seed in seeds:
            self._asked.append(_seed_name(seed))
            try:
                return await self._learn_through(seed)
            except _Unplaced as why:
                self._last = why
        raise _Unplaced("nobody answered who could tell the topology")

    async def _learn_list(self) -> tuple[ConnT, Instance]:
        """Ask the hosts of a list one after the other; the writer ends the search for a writer."""
        kept: tuple[ConnT, Instance] | None = None
        try:
            for seed in list(self.cluster.view.instances.values()):
                try:
                    arrived = await self._learn_through(seed)
                except _Unplaced as why:
                    self._last = why
                    continue
                if kept is not None:
                    await self.world.discard(kept[0])
                kept = arrived
                if self.route.role is WantedRole.WRITER and arrived[1].role is Role.WRITER:
                    break
        except BaseException:
            if kept is not None:
                await self.world.discard(kept[0])
            raise
        if kept is None:
            raise _Unplaced("none of the hosts given answered")
        return kept

    async def _learn_through(self, seed: Address | Instance) -> tuple[ConnT, Instance]:
        target = await (self._given(seed) if isinstance(seed, Address) else self._located(seed))
        started = self.world.now()
        connection = await self._dial(target, None if isinstance(seed, Address) else seed)
        latency = self.world.now() - started
        try:
            instance = await self._recognise(connection, target)
            self.cluster.succeeded(instance.id, latency)
        except BaseException:
            await self.world.discard(connection)
            raise
        return connection, instance

    async def _recognise(self, connection: ConnT, target: Target) -> Instance:
        """Which instance a connection through a name led to."""
        where = f"{self.world.address(connection)}:{target.port}"
        known = self.cluster.view.instances.get(self.cluster.by_address.get(where, ""))
        if known is not None and not self.doubt:
            known = await self._refreshed(connection, known) or known
            standby = await self._standby(connection, target.name, known)
            if standby is (known.role is not Role.WRITER):
                return known
        instance = await self._ask(connection, target.name)
        self.cluster.by_address[where] = instance.id
        return instance

    async def _refreshed(self, connection: ConnT, instance: Instance) -> Instance | None:
        """Ask for the topology on a fresh connection if the view is older than ``aurora_refresh``; None: it is not.

        One connect does so, however many go on at once. Returns the instance that answered.
        """
        at = self.cluster.view.refreshed_at
        overdue = at is not None and self.world.now() - at > self.request.options.refresh
        cluster = self.cluster
        if not overdue or not cluster.begin_learning():
            return None
        try:
            return await self._ask(connection, instance.id)
        finally:
            cluster.end_learning()

    async def _ask(self, connection: ConnT, asked: str) -> Instance:
        """One topology query; its answer changes the view. Returns the instance that answered."""
        cluster = self.cluster
        sources = self.sources if cluster.source is None else (cluster.source,)
        started = self.world.now()
        refusals: list[DialFailed] = []
        try:
            answer = await ask_topology(self.world, connection, asked, sources, self._dial_seconds(), refusals)
        except DialFailed as failed:
            raise self._missed(asked, failed, started, None) from failed
        self._heed(refusals, asked)
        if answer is None:
            standby = await self._standby(connection, asked, None)
            topology = Topology((Row(asked, writer=not standby),), asked, not standby, complete=False)
        else:
            cluster.source, topology = answer
            standby = not topology.observer_is_writer
            reported = self.world.in_hot_standby(connection)
            cluster.reports_role = reported is not None and reported == standby
        cluster.observe(topology, self.world.now())
        self.cluster = cluster.home.settle(cluster)
        if self.cluster is not cluster:
            self.cluster.observe(topology, self.world.now())
        self._advise_on_names()
        observer = topology.observer or asked
        return self.cluster.view.instances.get(observer) or Instance(observer, Role.READER if standby else Role.WRITER)

    # ------------------------------------------------------------ telling people

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
                f"{self.request.given[0]} has {count} instances, and nothing tells how they are named: connections go "
                "through the given name, their role alone is checked; set aurora_instance_host, for example "
                "aurora_instance_host={id}.db.internal",
            )

    def _advise(self, key: str, text: str) -> None:
        """Tell a person something once per cluster."""
        if key not in self.cluster.warned:
            self.cluster.warned.add(key)
            self.cluster.home.publish(self.cluster, Advice(text))

    # ------------------------------------------------------------ checking roles

    async def _standby(self, connection: ConnT, name: str, instance: Instance | None) -> bool:
        started = self.world.now()
        try:
            return await ask_standby(self.world, self.cluster, connection, self._dial_seconds())
        except DialFailed as failed:
            raise self._missed(name, failed, started, instance) from failed

    async def _confirmed(self, connection: ConnT, instance: Instance) -> Instance | None:
        """The instance, if it serves as the view says; else what it tells changes the view, and may do as well.

        The generation that counts is the one from before the dial, unless the server was asked again.
        """
        try:
            found = await self._refreshed(connection, instance)
            if found is None:
                standby = await self._standby(connection, instance.id, instance)
                if instance.role is not Role.UNKNOWN and standby is (instance.role is not Role.WRITER):
                    return instance
                found = await self._ask(connection, instance.id)
        except _Unplaced as why:
            self._last = why
            return None
        best = self._select((connection, found), 0).order[:1]
        return found if [found.id] == [each.id for each in best] == [instance.id] else None

    async def _serves(self, connection: ConnT, instance: Instance) -> bool:
        """Whether the instance behind a name has the wanted role, by its own word."""
        role = self.route.role
        if role in {WantedRole.ANY, WantedRole.PREFER_READER}:
            return True
        standby = await self._standby(connection, instance.id, instance)
        if role is WantedRole.WRITER:
            return not standby and self.cluster.view.writer in {None, instance.id}
        alone = not any(True for _ in self.cluster.view.readers())
        return standby or (alone and self.request.options.reader_fallback is ReaderFallback.WRITER)

    # ------------------------------------------------------------ dialling

    async def _given(self, address: Address) -> Target:
        """The target that the user named."""
        if address.hostaddr is not None:
            return Target(str(address), address.host, address.port, (address.hostaddr,))
        trusted = self.request.verifies_name and self.request.options.trust_cname
        host = self.route.endpoint.host if trusted and len(self.request.given) == 1 else address.host
        return await self._target(str(address), host, address.port)

    async def _located(self, instance: Instance) -> Target:
        if self.route.mode is Mode.LIST:
            return await self._given(next(each for each in self.request.given if str(each) == instance.id))
        address = locate(instance, self.route, self.request.options)
        if address is None:
            unknown = "nothing tells where it is (aurora_instance_host does not)"
            self.attempts.append(Attempt(instance.id, unknown, 0.0))
            raise _Unplaced(f"{instance.id}: {unknown}")
        return await self._target(instance.id, address.host, address.port)

    async def _target(self, name: str, host: str | None, port: int | None) -> Target:
        if not host or host[0] in "/@":
            return Target(name, host, port)
        started = self.world.now()
        try:
            resolution = await self.world.resolve(host, fresh=self._rotates(host))
        except DialFailed as failed:
            raise self._missed(name, failed, started, None) from failed
        return Target(name, host, port, resolution.addresses)

    def _rotates(self, host: str) -> bool:
        """Whether each resolution of a name is to be another member's turn."""
        return self.route.mode is Mode.NAME and host == self.request.given[0].host

    async def _reserved_dial(self, instance: Instance, *, reserved: bool = False) -> ConnT:
        """Dial an instance, counted as a connection from the moment on that it was chosen."""
        cluster = self.cluster
        if not reserved:
            with cluster.lock:
                cluster.reserve(instance.id)
        try:
            target = await self._located(instance)
            started = self.world.now()
            connection = await self._dial(target, instance)
            cluster.succeeded(instance.id, self.world.now() - started)
            return connection
        finally:
            cluster.release(instance.id)

    async def _dial(self, target: Target, instance: Instance | None) -> ConnT:
        started = self.world.now()
        try:
            return await self.world.dial(target, self._dial_seconds())
        except DialFailed as failed:
            raise self._missed(target.name, failed, started, instance) from failed

    def _dial_seconds(self) -> float:
        return max(0.1, min(self.request.options.connect_timeout, self.left()))

    # ------------------------------------------------------------ failing

    def _missed(self, name: str, failed: DialFailed, started: float, instance: Instance | None) -> _Unplaced:
        """Take note of a failure; raises the driver's own error where no other try could end otherwise."""
        now = self.world.now()
        verdict = judge(failed.fault)
        self.attempts.append(Attempt(name, failed.fault.text or verdict.name, now - started))
        self._last = failed.cause
        if instance is not None and (verdict.gone or verdict.quarantine):
            self.cluster.observe(Failure(instance.id, instance.generation, verdict.gone, verdict.name), now)
            if verdict.quarantine:
                self.cluster.failed(instance.id, now, self.request.options.quarantine, started)
            self.cluster.doubt(f"a dial of {instance.id} failed: {verdict.name}", now)
        if failed.fault.kind is FaultKind.NAME and not self.cluster.view.known:
            raise NameNotResolved(failed.fault.text, attempts=self.attempts) from failed.cause
        if failed.fault.kind is FaultKind.IDENTITY and self.route.endpoint.kind in _UNVERIFIABLE:
            raise NameNotVerifiable(
                f"sslmode=verify-full: the server's certificate is not for {self.request.given[0].host!r} "
                f"({failed.fault.text}): connect by the endpoint's real name, or let aurora_trust_cname=on verify the "
                "name that DNS says it is an alias of",
                view=self.cluster.view,
            ) from failed.cause
        if verdict.then is Next.RAISE:
            raise failed.cause from None
        self._alive = self._alive or failed.fault.sqlstate is not None
        return _Unplaced(failed.fault.text)

    def _patience(self) -> float:
        """Seconds to go on: a cluster of which nobody ever answered may as well be a typing error."""
        options = self.request.options
        return options.failover_timeout if self.cluster.view.known or self._alive else options.connect_timeout

    def _given_up(self) -> NoInstanceAvailable:
        wanted = self.route.role.value
        message = (
            f"no {'instance' if wanted == 'any' else wanted} of the cluster at {self.request.given[0]} could be "
            f"connected within {self._patience():g} s: {self._last}. "
            f"Known: {_known(self.cluster)}. Tried:"
        )
        known = self.cluster.view
        kind = WriterUnavailable if self.route.role is WantedRole.WRITER and self._before.known else NoInstanceAvailable
        error = kind(message, attempts=self.attempts, view=known, trail=tuple(self.cluster.trail))
        if isinstance(error, WriterUnavailable):
            error.before = self._before
        return error

    def _cause(self) -> BaseException | None:
        return self._last if not isinstance(self._last, _Unplaced) else self._last.__cause__

    def _placed(self, connection: ConnT, instance: Instance, why: Selection | Route) -> Placed[ConnT]:
        return Placed(connection, self.cluster, instance.id, instance.generation, why, instance.role, self.route)


async def connect(
    world: World[ConnT],
    find: Callable[[Request, Route], Cluster],
    request: Request,
    sources: Sequence[Source],
) -> Placed[ConnT]:
    """Put one connection on the right instance.

    Args:
        world: the ground; its connections are what is made.
        find: gives the state of the cluster that a routed request is for.
        request: what is asked for.
        sources: how to ask for the topology, in the order in which to try.

    Raises:
        NoInstanceAvailable: nothing that fits could be reached in time.
        NameNotResolved: the given name has no address.
        Exception: the driver's own, where no other try could end otherwise (a wrong password, no such database).
    """
    chosen = await routed(world, request)
    return await Connecting(world, find(request, chosen), request, chosen, sources).run()


async def routed(world: World[ConnT], request: Request) -> Route:
    """Decide how a request is routed, following an alias where that may tell more."""
    if not leads_elsewhere(request):
        return route(request)
    try:
        resolution = await world.resolve(request.given[0].host or "")
    except DialFailed as failed:
        raise NameNotResolved(failed.fault.text) from failed.cause
    return route(request, resolution.canonical)


async def look(
    world: World[ConnT],
    find: Callable[[Request, Route], Cluster],
    request: Request,
    sources: Sequence[Source],
) -> Cluster:
    """Ask for the topology anew; returns the cluster's state, up to date. Raises as `connect` does."""
    chosen = await routed(world, request)
    connecting = Connecting(world, find(request, chosen), request, chosen, sources)
    connection = await connecting.learned()
    await world.discard(connection)
    return connecting.cluster


def _seed_name(seed: Address | Instance) -> str:
    return str(seed) if isinstance(seed, Address) else seed.id


def _known(cluster: Cluster) -> str:
    told = [f"{each.id} ({each.role.value})" for each in cluster.view.instances.values()]
    return ", ".join(told) or "nothing"


def seeded(cluster: Cluster, request: Request) -> None:
    """Make the hosts of a list the instances of a cluster about which nothing is known yet."""
    if cluster.view.instances:
        return
    rows = {str(each): Instance(str(each), host=each.host, port=each.port) for each in request.given}
    cluster.view = replace(cluster.view, instances=rows)
