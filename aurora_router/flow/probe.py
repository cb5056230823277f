"""Probes one instance repeatedly, on a connection of the monitor's own.

Invariant: a probe leaves no connection open except `_connection`, also after a cancellation; `close` closes that one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aurora_router.errors import ExtensionFailed
from aurora_router.flow.attempt import resolve_target
from aurora_router.flow.runtime import ConnT, DialFailed, MonitorRuntime, Target
from aurora_router.flow.topology_query import advance_log, ask, check_role, count_clients, find_impostor, query_topology
from aurora_router.frozen import frozen
from aurora_router.model.claim import names_another
from aurora_router.model.event import AnswerRefused
from aurora_router.model.observation import SelfReport
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.paths import is_direct
from aurora_router.policy.route import Mode, find, given_host, identity
from aurora_router.policy.verdict import ON_THIS_SIDE, Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source
    from aurora_router.flow.topology_query import TopologyAnswer
    from aurora_router.model.event import Event
    from aurora_router.model.instance import Instance
    from aurora_router.policy.paths import End
    from aurora_router.policy.role_reports import RoleCheck
    from aurora_router.policy.route import Address, Request, Route

T = TypeVar("T")

KEPT_SECONDS = 10.0
"""A session that was not used for so long is closed; in seconds."""
APART_SECONDS = 30.0
"""Between two sessions that are opened while nothing is suspected, in seconds, if users' connections come and go."""
UNREACHABLE_SECONDS = 0.1
"""Between two tries of a ping without a route or a port, in seconds: the client's own network may be down."""
_NOT_YET = frozenset({FaultKind.UNREACHABLE, *ON_THIS_SIDE})
"""Faults of a ping that may pass while it lasts."""


@frozen
class Access:
    """How users connect to a cluster, as the last one did that succeeded.

    Attributes:
        request: what was requested; its options are the monitor's.
        route: how it was routed.
        sources: how to ask for the topology.
        params: the other parameters, for the driver.
    """

    request: Request
    route: Route
    sources: Sequence[Source]
    params: Any = None


class InstanceProbe(Generic[ConnT]):
    """Probes one instance, on one session that is kept between the queries.

    Args:
        runtime: does the I/O.
        cluster: the cluster that the answers describe.
        instance: id of the instance.

    Attributes:
        used_at: when the session was used last.
        busy: whether a procedure asks the instance.
        counts_clients: whether it is asked for its client connections, too, with its role.
    """

    def __init__(self, runtime: MonitorRuntime[ConnT], cluster: Cluster, instance: str) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self.instance = instance
        self.used_at = runtime.now()
        self.busy = False
        self.counts_clients = False
        self._in_use = 0
        self._connection: ConnT | None = None
        self._dialled: tuple[str, ...] = ()
        self._dial_took: float | None = None
        self._answered: tuple[str | None, float] | None = None
        self._opens_again_at = 0.0
        self._place: tuple[str, tuple[str, ...]] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a session."""
        return self._connection is not None

    def is_on(self, path: End) -> bool:
        """Whether there is a session on a path."""
        return self._connection is not None and self.runtime.path(self._connection) == path

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """Keep `tidy` from closing the session meanwhile."""
        self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1

    async def prepare(self, access: Access) -> None:
        """Resolve the instance's address while all is well, so that a failover does not begin with that."""
        self._place = None
        with contextlib.suppress(DialFailed):
            await self._locate(access)

    async def ping(self, target: Target, seconds: float) -> Fault | None:
        """Query the instance at the address of the users' connections, while `Target.wanted` holds.

        Returns:
            None if the instance answered; else the fault. Silence, and what kept the query from being sent, are
            returned only after `seconds`.
        """
        until = self.runtime.now() + seconds
        with self._using():
            if self._dialled != target.addresses:
                await self.close()
            fault = await self._try_query(target, self.runtime.queries.ping, until)
            kept = None
            while fault is not None and fault.kind in _NOT_YET and self.runtime.now() < until:
                kept = fault if fault.kind in ON_THIS_SIDE else kept
                await self.runtime.sleep(min(UNREACHABLE_SECONDS, until - self.runtime.now()))
                fault = await self._try_query(target, self.runtime.queries.ping, until)
            if kept is not None and fault is not None and fault.kind is FaultKind.TIMEOUT:
                return kept  # what was sent in the end had less than the time of a ping
            return fault

    def heard_at(self, target: Target) -> float | None:
        """Return when the session with a target last answered a query, by the runtime's time; None: never."""
        if self._answered is None or self._answered[0] not in target.addresses:
            return None
        return self._answered[1]

    @property
    def may_open(self) -> bool:
        """Whether a session may be opened though nothing is suspected yet; see `APART_SECONDS`."""
        return not (self.busy or self.is_open) and self.runtime.now() >= self._opens_again_at

    async def open(self, target: Target, seconds: float) -> None:
        """Open the session, so that it can be queried when the instance accepts no new one.

        Raises:
            DialFailed: it was not opened.
        """
        with self._using():
            await self._ensure_session(target, self.runtime.now() + seconds)

    async def is_direct(self, target: Target, seconds: float) -> bool:
        """Ask the server how it sees the connection; see `policy.paths`.

        Raises:
            DialFailed: it did not answer.
        """
        with self._using():
            rows = await self.query(target, self.runtime.queries.ends, self.runtime.now() + seconds)
            assert self._connection is not None
            return is_direct(rows[0], *self.runtime.ends(self._connection))

    async def _try_query(self, target: Target, sql: str, until: float) -> Fault | None:
        try:
            await self.query(target, sql, until)
        except DialFailed as failed:
            return None if failed.fault.kind is FaultKind.REJECTED else failed.fault
        return None

    async def query(self, target: Target, sql: str, until: float) -> Any:
        """Send one service query; opens the session if there is none, or if it broke, and closes it after a failure."""
        wanted = target.wanted
        return await self._on_session(
            target, until, lambda session, left: ask(self.runtime, session, sql, left, wanted)
        )

    async def check_role(self, target: Target, until: float) -> RoleCheck:
        """Ask the server for its role, which also shows whether role reports on this path can be trusted."""

        async def ask(session: ConnT, left: float) -> RoleCheck:
            if self.counts_clients:
                return await count_clients(self.runtime, self.cluster, session, self.instance, left)
            return await check_role(self.runtime, self.cluster, session, left)

        return await self._on_session(target, until, ask)

    async def _on_session(self, target: Target, until: float, ask: Callable[[ConnT, float], Awaitable[T]]) -> T:
        was_open = self.is_open
        connection = await self._ensure_session(target, until)
        try:
            answer = await ask(connection, max(0.0, until - self.runtime.now()))
        except DialFailed as failed:
            if failed.fault.kind is not FaultKind.REJECTED:
                await self.close()
            if was_open and failed.fault.kind is FaultKind.RESET:  # that may be long ago: it says nothing about now
                return await self._on_session(target, until, ask)
            raise
        self._answered = self.runtime.address(connection), self.runtime.now()
        return answer

    async def update_view(
        self, access: Access, seconds: float, *, thorough: bool, ask_accepted: Callable[[], Awaitable[None]]
    ) -> bool:
        """Ask an instance whether it is the writer, and update the view by its answer.

        Args:
            access: how to get there.
            seconds: for all of it.
            thorough: query the topology even if the role is the expected one.
            ask_accepted: asks the accepted writer; awaited before an answer counts that names another one.

        Returns:
            Whether it reports that it is the writer.

        Raises:
            DialFailed: it did not answer, or its address is unknown.
        """
        asked_at = self.runtime.now()
        until = asked_at + seconds
        with self._using():
            target = await self._locate(access)
            self._dial_took = None
            writer = not (await self.check_role(target, until)).standby
            view = self.cluster.view
            expected = writer is (view.writer == self.instance) and not view.lacks_report(self.instance)
            if thorough or writer or not expected:
                answer = await self._query_topology(access, until)
                writer = await self._observe(answer, ask_accepted, writer=writer, asked_at=asked_at)
                if writer and self._connection is not None:
                    usable = await advance_log(self.runtime, self.cluster, self._connection, self.instance)
                    if not usable:
                        await self.close()
            if self._dial_took is not None and self.instance in self.cluster.state.health.quarantine.terms:
                self.cluster.record_success(self.instance, self._dial_took, self.runtime.now())  # for users as well
            if writer and self.cluster.view.writer == self.instance:
                if self._dial_took is not None:
                    self.cluster.update(ClusterState.record_probe, self._dial_took, self.runtime.now())
                await self._offer_session(asked_at)
                self.cluster.update(ClusterState.confirm_writer, asked_at, self.runtime.now())
            return writer

    async def _offer_session(self, asked_at: float) -> None:
        """Offer the session to a connect that waits for the writer, if this answer ends the suspicion."""
        since = self.cluster.suspected_at
        if since is None or asked_at < since or self._connection is None:
            return
        connection, self._connection = self._connection, None
        if not await self.runtime.offer(connection):
            self._connection = connection

    async def _query_topology(self, access: Access, until: float) -> TopologyAnswer | None:
        cluster, connection = self.cluster, self._connection
        assert connection is not None
        sources = access.sources if cluster.source is None else (cluster.source,)
        left = max(0.0, until - self.runtime.now())
        try:
            return await _query_or_advise(self.runtime, cluster, connection, self.instance, sources, left, by_id=True)
        except DialFailed:
            await self.close()
            raise

    async def _observe(
        self,
        answer: TopologyAnswer | None,
        ask_accepted: Callable[[], Awaitable[None]],
        *,
        writer: bool,
        asked_at: float,
    ) -> bool:
        """Let an answer count; return whether the instance reports that it is the writer."""
        cluster = self.cluster
        if answer is None:
            cluster.observe(SelfReport(self.instance, writer=writer, asked_at=asked_at), self.runtime.now())
            return writer
        topology = answer[1]
        moved = find_impostor(self.instance, topology)
        if moved is None:
            events = await _let_count(self.runtime, cluster, answer, ask_accepted)
            refused = next((each for each in events if isinstance(each, AnswerRefused)), None)
            moved = None if refused is None else f"{self.instance} left the cluster: {refused.reason}"
        if moved is not None:
            await self.close()
            raise DialFailed(Fault(FaultKind.NAME, None, moved), ConnectionError(moved))
        return bool(topology.observer_is_writer)

    async def check_role_report(self, access: Access, seconds: float) -> None:
        """Check an instance's role report once; a session that is opened for that is closed afterwards.

        Raises:
            DialFailed: it did not answer, or its address is unknown.
        """
        until, was_open = self.runtime.now() + seconds, self.is_open
        try:
            with self._using():
                await self.check_role(await self._locate(access), until)
        finally:
            if not was_open:
                await self.close()

    async def _locate(self, access: Access) -> Target:
        known: Instance | None = self.cluster.view.instances.get(self.instance)
        address = None if known is None else find(known, access.route, access.request)
        if address is None:
            text = f"the address of {self.instance} is unknown"
            raise DialFailed(Fault(FaultKind.CLIENT, None, text), ConnectionError(text))
        if address.hostaddr is not None:
            return Target(self.instance, address.host, address.port, (address.hostaddr,))
        if not address.host or address.host[0] in "/@":
            return Target(self.instance, address.host, address.port)
        if self._connection is not None:
            return Target(self.instance, address.host, address.port, self._dialled)
        if self._place is None or self._place[0] != address.host:
            self._place = (address.host, (await self.runtime.resolve(address.host)).addresses)
        return Target(self.instance, address.host, address.port, self._place[1])

    async def _ensure_session(self, target: Target, until: float) -> ConnT:
        self.used_at = self.runtime.now()
        if self._connection is None:
            try:
                self._connection = await self.runtime.dial(target, max(0.0, until - self.used_at))
            except DialFailed:
                self.cluster.update(ClusterState.record_dial_failure, target.addresses)
                self._place = None  # it may be somewhere else by now
                raise
            self._dialled, self._dial_took = target.addresses, self.runtime.now() - self.used_at
            self._opens_again_at = self.runtime.now() + APART_SECONDS
        return self._connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self.runtime.discard(connection)

    async def tidy(self, databases: Collection[str] | None = None, *, makes_room: bool = False) -> None:
        """Close the session if it is not in use, and either old or in the way.

        Args:
            databases: the databases that users are connected to. In another one the session is in the way: it keeps
                that database from being dropped or renamed. None: any database is permitted.
            makes_room: the instance has no connection slot left for users.
        """
        if self._connection is None or self._in_use:
            return
        unused = self.runtime.now() - self.used_at > KEPT_SECONDS
        if unused:
            self._opens_again_at = 0.0  # users' connections stayed: this is no coming and going
        if makes_room or unused or (databases is not None and self.runtime.database(self._connection) not in databases):
            await self.close()


async def _query_or_advise(
    runtime: MonitorRuntime[ConnT],
    cluster: Cluster,
    connection: ConnT,
    asked: str,
    sources: Sequence[Source],
    seconds: float,
    *,
    by_id: bool,
) -> TopologyAnswer | None:
    """Query the topology; for an answer that a source cannot read, advise to fix the source, and return None.

    The monitor goes on with the roles that instances report: a fault in a source must not stop it.
    """
    try:
        return await query_topology(runtime, connection, asked, sources, seconds, by_id=by_id)
    except ExtensionFailed as failed:
        cluster.update(ClusterState.advise, "source", str(failed), runtime.now())
        return None


async def _let_count(
    runtime: MonitorRuntime[ConnT],
    cluster: Cluster,
    answer: TopologyAnswer,
    ask_accepted: Callable[[], Awaitable[None]],
) -> tuple[Event, ...]:
    """Let an answer change the view; returns what happened.

    If it names another writer than the accepted one, with which nothing is wrong, that one is asked first: the answer
    may be a former writer's.
    """
    cluster.source, topology, _ = answer
    if names_another(cluster.view, topology):
        await ask_accepted()
    return cluster.observe(topology, runtime.now())


async def query_given_name(
    runtime: MonitorRuntime[ConnT],
    cluster: Cluster,
    access: Access,
    address: Address,
    seconds: float,
    ask_accepted: Callable[[], Awaitable[None]],
) -> None:
    """Query the topology at the server that a given name leads to now; the answer may end a suspicion.

    It may come when the suspicion is over, from a former writer: see `InstanceProbe.update_view` for `ask_accepted`.

    Does nothing if it could find no unknown instance: the sources list only the server itself, or the user listed all.

    Raises:
        DialFailed: no answer within `seconds`.
    """
    sources = access.sources if cluster.source is None else (cluster.source,)
    if access.route.mode is Mode.LIST or not any(each.complete for each in sources):
        return
    asked_at = runtime.now()
    until = asked_at + seconds
    if address.hostaddr is not None:
        target = Target(str(address), address.host, address.port, (address.hostaddr,))
    else:
        host = given_host(access.request, access.route, address)
        target = await resolve_target(runtime, str(address), host, address.port, fresh=True)
    connection = await runtime.dial(target, max(0.0, until - runtime.now()))
    # The name of an instance, or a custom endpoint, may lead to another cluster by now; the cluster's own does not.
    by_id = identity(access.request, access.route) != cluster.identity
    try:
        left = max(0.0, until - runtime.now())
        answer = await _query_or_advise(runtime, cluster, connection, str(address), sources, left, by_id=by_id)
    finally:
        await runtime.discard(connection)
    if answer is not None:
        await _let_count(runtime, cluster, answer, ask_accepted)
        topology = answer[1]
        if topology.observer_is_writer and topology.observer == cluster.view.writer:
            cluster.update(ClusterState.confirm_writer, asked_at, runtime.now())
