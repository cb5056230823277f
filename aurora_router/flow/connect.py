"""Putting one connection on the right instance.

Theory. The first connection to a cluster goes through the given name, and one topology query on that connection
returns the cluster. From then on the view decides: an instance is chosen, dialled by its own name, and its role is
checked against what it reports of itself at start-up, which costs nothing. Whatever contradicts the view (a role that
differs, a dial that fails) is an observation, changes the view by `reduce`, and an instance is chosen again, until a
connection fits or the time is up.

Invariants: a connection that is handed out served the wanted role when it was made, by the server's own report; every
connection that is not handed out is closed, also on cancellation; every reservation is released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.errors import Attempt, NameNotResolved
from aurora_router.flow.attempt import AttemptFailed, InstanceNotLocated, Silent
from aurora_router.flow.runtime import GLANCE_SECONDS, ConnectResult, ConnT, DialFailed, Runtime
from aurora_router.flow.topology import TopologyAttempt
from aurora_router.forks import IMPORTING
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.policy.balance import Selection, select
from aurora_router.policy.candidates import is_lag_unproven
from aurora_router.policy.options import ReaderFallback
from aurora_router.policy.route import Mode, Request, Route, leads_elsewhere, route

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source


class Connecting(TopologyAttempt[ConnT]):
    """One connect: a `TopologyAttempt` that chooses an instance and checks its role."""

    async def run(self) -> ConnectResult[ConnT]:
        """Connect, and go on trying for as long as it makes sense.

        Raises:
            NoInstanceAvailable: nothing that fits could be reached in time.
            Exception: the driver's own, where no other try could end otherwise (a wrong password, no such database).
        """
        try:
            return await self._persevere()
        finally:
            self._release()

    async def _persevere(self) -> ConnectResult[ConnT]:
        try:
            return await self._once()
        except AttemptFailed as why:
            self._suspect_writer(why)
        if self.left() <= 0.0:
            raise self._new_error() from self._cause()
        if self._is_refused_for_good():
            raise self._new_error(early=True) from self._cause()
        self._advise_on_wait()
        with IMPORTING:
            from aurora_router.retry import reconnecting  # noqa: PLC0415 - tenacity is imported when first needed

        self.doubt = True
        try:
            async for attempt in reconnecting(self.runtime, self.cluster, self.left, retry_on=AttemptFailed):
                with attempt:
                    return await self._once_more()
        except AttemptFailed as why:
            self._last = why
        raise self._new_error() from self._cause()

    # ------------------------------------------------------------ one round

    async def _once_more(self) -> ConnectResult[ConnT]:
        try:
            return await self._once()
        except AttemptFailed as why:
            self._suspect_writer(why)
            raise

    def _is_refused_for_good(self) -> bool:
        """Whether a reader is wanted as libpq understands it, and all that there is are primaries that answered."""
        no_reader = not any(True for _ in self.cluster.view.readers())
        return self.request.refuses_primary and no_reader and not self.attempts

    def _suspect_writer(self, why: AttemptFailed) -> None:
        """Suspect the writer after a failed round, so that the monitor looks for it."""
        self._last = why
        if self.route.role is WantedRole.WRITER and not self._lives:
            self.cluster.suspect_writer(f"a connect to the writer failed: {why}", self.runtime.now())

    async def _wait_until_writer_confirmed(self) -> None:
        """While the writer is suspected, wait for the monitor, which asks all instances, and dial no dead one."""
        cluster, started = self.cluster, self.runtime.now()
        while self.route.role is WantedRole.WRITER:
            news = cluster.news
            if cluster.suspected_at is None:
                return
            if self.left() <= 0.0:
                outcome = "the monitor asked all instances; none confirmed that it is the writer"
                self.attempts.append(Attempt(cluster.name, outcome, self.runtime.now() - started))
                return
            is_asked = self.request.wanted is not None  # nothing wakes the one that waits when the answer changes
            await self.runtime.wait_for_news(
                cluster, news, min(self.left(), GLANCE_SECONDS) if is_asked else self.left()
            )

    async def _once(self) -> ConnectResult[ConnT]:
        if self.route.mode is Mode.THROUGH:
            return await self._connect_unrouted()
        if self._by_name():
            return await self._through_name()
        if self.route.mode is Mode.PINNED:
            return await self._connect_to_named_instance()
        return await self._connect_to_candidate()

    def _by_name(self) -> bool:
        """Whether instances can't be dialled, so that the given name has to do."""
        if self.route.mode is Mode.NAME:
            return True
        source = self.cluster.source
        told = self.cluster.view.known and (source is None or not source.complete)
        return told and self.route.mode is Mode.INSTANCES

    async def _connect_unrouted(self) -> ConnectResult[ConnT]:
        connection = await self._dial(await self._given(self.request.given[0]), None)
        return ConnectResult(connection, self.cluster, None, 0, self.route)

    async def _through_name(self) -> ConnectResult[ConnT]:
        """Dial the given name and check the role alone."""
        target = await self._given(self.request.given[0])
        connection = await self._dial(target, None)
        try:
            instance = await self._recognise(connection, target)
            unfit = f"led to a {instance.role.value} ({instance.id})"
            if await self._serves(connection, instance):
                if not await self._is_lag_unproven(connection, instance):
                    return self._new_result(connection, instance, self.route)
                unfit = f"led to {instance.id}, {self._lags()}"
        except BaseException:
            await self.runtime.discard(connection)
            raise
        await self.runtime.discard(connection)
        raise AttemptFailed(f"{target.name} {unfit}")

    def _lags(self) -> str:
        return f"which is not known to lag by {self.request.options.max_lag:g} s at most (aurora_max_lag)"

    async def _connect_to_named_instance(self) -> ConnectResult[ConnT]:
        """Dial the one instance that the name, or the option, means."""
        wanted = self.request.options.instance
        if wanted is None and not self.cluster.view.known:
            return await self._hand_out(await self._learn_through(self.request.given[0]))
        spare = await self._know()
        name = (wanted or self.route.endpoint.label or "").lower()
        known = next((each for each in self.cluster.view.instances.values() if each.id.lower() == name), None)
        if spare is not None:
            if known is not None and spare[1].id == known.id:
                return await self._hand_out(spare)
            await self.runtime.discard(spare[0])
        if known is None:
            raise AttemptFailed(f"the cluster has no instance {wanted or name!r}")
        with self.cluster.lock:
            self._reserve(known.id)
        connection = await self._dial_reserved(known)
        return await self._hand_out((connection, known))

    async def _hand_out(self, arrived: tuple[ConnT, Instance]) -> ConnectResult[ConnT]:
        """Hand a connection to the one instance out."""
        connection, known = arrived
        try:
            instance = await self._describe_server(connection, known)
            if await self._is_lag_unproven(connection, instance):
                raise AttemptFailed(f"{instance.id} is the instance, {self._lags()}")  # noqa: TRY301 - it is discarded below
            return self._new_result(connection, instance, self.route)
        except BaseException:
            await self.runtime.discard(connection)
            raise

    async def _connect_to_candidate(self) -> ConnectResult[ConnT]:
        """Dial the instance that the policy chooses, by the topology."""
        await self._wait_until_writer_confirmed()
        if self.request.options.max_lag is not None:
            self.cluster.note_max_lag(self.request.options.max_lag, self.runtime.now())
        if self.route.role is WantedRole.WRITER and self._is_avoided(self.cluster.view.writer):
            self.doubt = self.doubt or not self.cluster.is_monitored
        spare = await self._know()
        try:
            placed = await self._try_candidates(spare)
        except BaseException:
            if spare is not None:
                await self.runtime.discard(spare[0])
            raise
        if spare is not None and placed.connection is not spare[0]:
            await self.runtime.discard(spare[0])
        return placed

    async def _try_candidates(self, spare: tuple[ConnT, Instance] | None) -> ConnectResult[ConnT]:
        """Try instances until one serves; chosen again after each failure, so that what a dead one leaves spreads.

        One that answered in another role may be chosen again in that role: a reader that has become the writer is not
        worth less than an instance that is silent. One that was silent is not, whatever its role is by now.
        """
        tried: list[tuple[str, Role]] = []
        turn = self.cluster.next_turn()
        self._is_placeless = False
        while True:
            if spare is not None and not self.cluster.view.is_current(spare[1].id, spare[1].generation):
                spare = None  # what was learned meanwhile has overtaken it
            selection = self._select(spare, turn, tried)
            instance = next((each for each in selection.order if (each.id, each.role) not in tried), None)
            if instance is None:
                break
            if spare is not None and spare[1].id == instance.id:
                if not await self._is_lag_unproven(spare[0], instance):
                    return self._new_result(spare[0], instance, selection)
                self._release()
                spare = None
                continue
            tried.append((instance.id, instance.role))
            arrived = await self._try(instance, tried)
            if arrived is not None:
                return self._new_result(*arrived, selection)
            self._release()
        if self._is_placeless:
            arrived = await self._by_given_name()
            if arrived is not None:
                return self._new_result(*arrived, self.route)
        if self._lacks_reader():
            self.cluster.reader_missed_at = self.runtime.now()
        raise AttemptFailed(selection.reason if not selection.order else "no instance that fits could be reached")

    async def _try(self, instance: Instance, tried: list[tuple[str, Role]]) -> tuple[ConnT, Instance] | None:
        """Dial an instance at which a reservation is taken, and check its role; None: go on to the next."""
        try:
            connection = await self._dial_reserved(instance)
        except AttemptFailed as why:
            if isinstance(why, Silent):
                tried += [(instance.id, role) for role in Role]
            self._last = why
            self._is_placeless = self._is_placeless or isinstance(why, InstanceNotLocated)
            return None
        try:
            found = await self._confirm_role(connection, instance)
            if found is not None:
                return connection, found
        except BaseException:
            await self.runtime.discard(connection)
            raise
        await self.runtime.discard(connection)
        return None

    async def _by_given_name(self) -> tuple[ConnT, Instance] | None:
        """Dial the given name if the address of a suitable instance is unknown: it may lead there.

        Returns None if it led to an instance that is not suitable by its own report.
        """
        try:
            connection, found = await self._learn_through(self.request.given[0])
        except AttemptFailed as why:
            self._last = why
            return None
        try:
            fits = [each.id for each in self._select((connection, found), 0).order[:1]] == [found.id]
            fits = fits and not await self._is_lag_unproven(connection, found)
            if fits and self.cluster.view.is_current(found.id, found.generation):
                return connection, found
            self._last = AttemptFailed(f"{self.request.given[0]} led to a {found.role.value} ({found.id})")
        except BaseException:
            await self.runtime.discard(connection)
            raise
        await self.runtime.discard(connection)
        return None

    # ------------------------------------------------------------ choosing

    def _select(
        self, spare: tuple[ConnT, Instance] | None, turn: int, tried: Container[tuple[str, Role]] | None = None
    ) -> Selection:
        """Choose by the policy; with `tried`, a reservation is taken at the first that was not tried yet.

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
                now=self.runtime.now(),
                rng=self.runtime,
                turn=turn,
            )
            if spare is not None:
                selection = selection.preferring(spare[1].id)
            if tried is not None:
                first = next((each.id for each in selection.order if (each.id, each.role) not in tried), None)
                if first is not None:
                    self._reserve(first)
        return selection

    # ------------------------------------------------------------ checking roles

    async def _confirm_role(self, connection: ConnT, instance: Instance) -> Instance | None:
        """Return the instance if its role is as in the view, or if it is suitable after its answer changed the view.

        The generation that counts is the one from before the dial. If it is a past one by now (a dial of an instance
        that hung may end when another is the writer), the server is asked what it is.
        """
        try:
            found = await self._refreshed(connection, instance)
            if found is None and self.cluster.view.is_current(instance.id, instance.generation):
                standby = await self._standby(connection, instance.id, instance)
                agrees = instance.role is not Role.UNKNOWN and standby is (instance.role is not Role.WRITER)
                agrees = agrees and not is_lag_unproven(instance, self.request.options, self.runtime.now())
                if agrees and self.cluster.view.is_current(instance.id, instance.generation):  # still, after the answer
                    return instance
            if found is None:
                found = await self._ask(connection, instance.id)
            if await self._is_lag_unproven(connection, found):
                return None
        except AttemptFailed as why:
            self._last = why
            return None
        best = self._select((connection, found), 0).order[:1]
        return found if [found.id] == [each.id for each in best] == [instance.id] else None

    async def _describe_server(self, connection: ConnT, instance: Instance) -> Instance:
        """Return the instance by its own report, whatever its role."""
        found = await self._refreshed(connection, instance)
        if found is not None:
            return found
        standby = await self._standby(connection, instance.id, instance)
        if standby is (instance.role is not Role.WRITER):
            return instance
        return await self._ask(connection, instance.id)

    async def _serves(self, connection: ConnT, instance: Instance) -> bool:
        """Whether the instance behind a name has the wanted role, by its own report."""
        role = self.route.role
        standby = await self._standby(connection, instance.id, instance)
        if role is WantedRole.ANY:
            return True
        if standby:
            return role is not WantedRole.WRITER
        if self.cluster.view.writer not in {None, instance.id}:
            return False  # a former writer that does not know it
        if role is not WantedRole.READER:
            return True
        alone = not any(True for _ in self.cluster.view.readers())
        return alone and self.request.options.reader_fallback is ReaderFallback.WRITER

    def _new_result(self, connection: ConnT, instance: Instance, why: Selection | Route) -> ConnectResult[ConnT]:
        reservation, self._reservation = self._reservation, None
        reports = self.cluster.role_reports
        pooled = bool(reports.indirect) and reports.is_pooled(self.runtime.path(connection))
        generation, role = instance.generation, instance.role
        return ConnectResult(
            connection, self.cluster, instance.id, generation, why, role, self.route, pooled, reservation
        )


async def connect(
    runtime: Runtime[ConnT],
    find: Callable[[Request, Route], Cluster],
    request: Request,
    sources: Sequence[Source],
) -> ConnectResult[ConnT]:
    """Put one connection on the right instance.

    Args:
        runtime: does the I/O; its connections are what is made.
        find: gives the state of the cluster that a routed request is for.
        request: what is asked for.
        sources: how to ask for the topology, in the order in which to try.

    Raises:
        NoInstanceAvailable: nothing that fits could be reached in time.
        NameNotResolved: the given name has no address.
        Exception: the driver's own, where no other try could end otherwise (a wrong password, no such database).
    """
    chosen = await find_route(runtime, request)
    return await Connecting(runtime, find(request, chosen), request, chosen, sources).run()


async def find_route(runtime: Runtime[ConnT], request: Request) -> Route:
    """Decide how a request is routed, following an alias if that may show more.

    While no name server answers, it is followed to where it led the last time: what is known of that cluster may do.
    """
    if not leads_elsewhere(request):
        return route(request)
    host = request.given[0].host or ""
    try:
        resolution = await runtime.resolve(host)
    except DialFailed as failed:
        last = runtime.last_resolution(host)
        if last is None:
            raise NameNotResolved(failed.fault.text) from failed.cause
        resolution = last
    return route(request, resolution.canonical)


async def refresh_topology(
    runtime: Runtime[ConnT],
    find: Callable[[Request, Route], Cluster],
    request: Request,
    sources: Sequence[Source],
) -> Cluster:
    """Query the topology; returns the cluster's state, up to date. Raises as `connect` does."""
    chosen = await find_route(runtime, request)
    connecting = Connecting(runtime, find(request, chosen), request, chosen, sources)
    connection = await connecting.learned()
    await runtime.discard(connection)
    return connecting.cluster
