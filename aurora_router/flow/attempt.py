"""What one connect knows, and how it dials: its deadline, its reservation, what has failed.

A `ConnectAttempt` is a plain value. The functions of this module, of `flow.topology` and of `flow.connect` work on it.

Each failure is a try that the final error lists, an observation that may change the view, and a reason to avoid the
instance for a while. If no other try could succeed, the driver's own error is raised at once instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from aurora_router.errors import Attempt
from aurora_router.flow.dial_limiter import TOO_MANY_CONNECTIONS, DialPermit
from aurora_router.flow.runtime import ConnT, DialFailed, Runtime, Target, Wanted
from aurora_router.flow.topology_query import check_role
from aurora_router.frozen import frozen
from aurora_router.model.endpoint import EndpointKind, WantedRole
from aurora_router.model.instance import Role
from aurora_router.model.observation import ROW_AGE_SECONDS, Failure, ProcessEnded
from aurora_router.policy.auto_pause import RESUME_SECONDS
from aurora_router.policy.balance import is_another_available
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.context import Context
from aurora_router.policy.route import CHOOSING, Address, Mode, Request, Route, given_host, locate
from aurora_router.policy.verdict import ON_THIS_SIDE, Fault, FaultKind, Next, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aurora_router.flow.cluster import Cluster, Reservation
    from aurora_router.flow.source import Source
    from aurora_router.model.description import CustomEndpoint
    from aurora_router.model.instance import Instance
    from aurora_router.model.view import View
    from aurora_router.policy.balance import Selection

_UNVERIFIABLE = frozenset({EndpointKind.OTHER, EndpointKind.GLOBAL})
"""Names that no certificate of Aurora's carries."""

ROOM_SECONDS = 0.5
"""How long a dial waits for the monitor to close its sessions, in seconds."""
LEAVING_SECONDS = 0.05
"""How long a server process takes to end after its client has disconnected, in seconds."""


NO_READER_SECONDS = 1.0
"""How old a view without a reader may be when the writer serves in a reader's place, in seconds."""
UNATTENDED_SECONDS = 0.5
"""If a dial is not checked for so long, instead of `GLANCE_SECONDS`, this process was stalled."""
PROVISIONAL_SECONDS = 1.0
"""How old a view may be whose token of the writer may be from before its promotion, in seconds."""


class AttemptFailed(Exception):
    """This attempt failed; a retry may succeed."""


class InstanceNotLocated(AttemptFailed):
    """The address of an instance is unknown."""


@dataclass(eq=False)
class ConnectAttempt(Generic[ConnT]):
    """One connect: what was requested, and what it has tried.

    Attributes:
        runtime: does the I/O.
        find: returns the state of the cluster that a routed request is for.
        cluster: the cluster that the request is for; replaced if an answer shows that it is another one.
        request: what was requested.
        route: how the request is routed.
        sources: how to query the topology, in the order in which to try.
        started: when the connect began, by the runtime's clock.
        view_before: the view at that time.
        tries: what failed so far, for the error.
        faults: the kinds of faults so far.
        sqlstates: the SQLSTATEs of the failures so far; None: one had none.
        last_failure: why the last try, or the last round, failed.
        has_answer: whether a server has answered, or at least a host that refuses.
        is_alive: whether the last failure is no evidence that its instance is down: it answered that it has no
            connection slot, for example, or this machine had no port for the socket.
        nexts: what the verdicts about the failures so far call for.
        last_cause: the driver's own error of the last of these failures.
        distrusts_view: whether the topology is queried even if it is known.
        asked: the servers that were asked for the topology so far, by name.
        silent: the ids and addresses that did not answer a dial, each with the pass in which that was.
        passes: how many passes over the suitable instances have begun.
        writers_met: how many times a name led to the writer where a reader was wanted.
        further_seconds: how much longer it takes, where all was silent, to dial the cluster's other endpoint.
        lacks_address: whether the address of a suitable instance is unknown, in this pass.
        reservation: counts a connection that is being opened.
        role_report: the last connection whose server reported its role, and whether it is a standby.
        topology_report: the last connection whose server reported the topology, when it was asked, and when it had
            answered.
    """

    runtime: Runtime[ConnT]
    find: Callable[[Request, Route], Cluster]
    cluster: Cluster
    request: Request
    route: Route
    sources: Sequence[Source]
    started: float
    view_before: View
    tries: list[Attempt] = field(default_factory=list)
    faults: set[FaultKind] = field(default_factory=set)
    sqlstates: set[str | None] = field(default_factory=set)
    last_failure: BaseException | None = None
    has_answer: bool = False
    is_alive: bool = False
    nexts: set[Next] = field(default_factory=set)
    last_cause: BaseException | None = None
    distrusts_view: bool = False
    asked: list[str] = field(default_factory=list)
    silent: dict[str, int] = field(default_factory=dict)
    passes: int = 0
    writers_met: int = 0
    further_seconds: float = 0.0
    lacks_address: bool = False
    reservation: Reservation | None = None
    role_report: tuple[ConnT, bool] | None = None
    topology_report: tuple[ConnT, float, float] | None = None

    def seconds_left(self) -> float:
        """Seconds for which it makes sense to go on, at least 0; 0 if the connection is not wanted any more."""
        if self.request.wanted is not None and not self.request.wanted():
            return 0.0
        return max(0.0, self.started + self.patience() - self.runtime.now())

    def patience(self) -> float:
        """Seconds to go on from the start.

        If a server has answered, or at least a host that refuses, it is an outage: the failover timeout. If all was
        silent since this process began, it may as well be a wrong address or a firewall: one dial for each host that
        was given, and `further_seconds`. Where instances pause, silence means nothing.
        """
        options = self.request.options
        if self.has_answer or self.cluster.view.known or options.auto_pause:
            return options.failover_timeout
        longest = options.connect_timeout * len(self.request.given) + self.further_seconds
        return min(options.failover_timeout, longest)

    def dial_seconds(self, target: Target | None = None, instance: Instance | None = None) -> float:
        """How long a dial, or a query, may take.

        In the only round (``aurora_failover_timeout=0``) nothing else limits it.

        Args:
            target: what is dialled; None: it is a query on a connection.
            instance: the one that is there, if it is known.
        """
        options = self.request.options
        limit = options.connect_timeout
        declared = options.auto_pause or self.cluster.view.auto_pause
        if declared and target is not None and self._may_have_paused(target, instance):
            limit = max(limit, RESUME_SECONDS)
        return max(0.1, min(limit, self.seconds_left())) if options.failover_timeout > 0.0 else limit

    def _may_have_paused(self, target: Target, instance: Instance | None) -> bool:
        cluster, id_ = self.cluster, None if instance is None else instance.id
        if id_ is None and target.addresses:
            id_ = cluster.state.by_address.get(f"{target.addresses[0]}:{target.port}")
        return cluster.may_have_paused(id_, self.request.options, self.runtime.now())

    def make_wanted(self, name: str, address: str | None = None, port: int | None = None) -> Wanted | None:
        """Return the question whether an instance is still worth waiting for.

        It is not if it hung, left the cluster, or changed its role meanwhile; nor, if it failed before and was chosen
        as a last resort, when another suitable instance has answered or joined.

        Args:
            name: its id, or the name by which it was dialled.
            address: its address, for a name that is no id.
            port: the port there.

        Returns:
            None if the instance is unknown, and the request is wanted until its time is over.
        """
        cluster, needed = self.cluster, self.request.wanted
        id_ = name if name in cluster.view.instances else cluster.state.by_address.get(f"{address}:{port}", "")
        known = cluster.view.instances.get(id_)
        if known is None:
            return needed
        if self.route.mode not in CHOOSING or not self.is_avoided(known.id):
            return lambda: cluster.view.is_current(known.id, known.generation) and (needed is None or needed())
        available = cluster.view.instances.keys() - cluster.state.health.quarantine.terms.keys()

        def is_wanted() -> bool:
            if needed is not None and not needed():
                return False
            current = cluster.view.is_current(known.id, known.generation)
            return current and not is_another_available(self._context(), available)

        return is_wanted

    def _context(self) -> Context:
        """What decides whether an instance is suitable by now; loads do not matter for that."""
        cluster, request, now = self.cluster, self.request, self.runtime.now()
        quarantine = cluster.state.health.quarantine
        endpoint = self.find_endpoint()
        return Context(cluster.view, request.options, self.route.role, {}, quarantine, now, self.runtime, 0, endpoint)

    def find_endpoint(self) -> CustomEndpoint | None:
        """Return the members of the custom endpoint by whose name the connect goes; None: all instances may serve."""
        name = self.route.custom_endpoint
        return None if name is None else self.cluster.view.find_endpoint(name, self.runtime.now())

    def is_avoided(self, instance: str | None) -> bool:
        """Whether an instance failed recently, so that it is a last resort."""
        quarantine = self.cluster.state.health.quarantine
        if instance is None or instance not in quarantine.terms:
            return False
        return quarantine.remaining(instance, self.runtime.now()) > 0.0

    def failure_rank(self, instance: str) -> int:
        """How late to dial an instance: 0, 1 if it failed and did not answer since, 2 if it was silent in this connect.

        To dial an instance again that reset a dial takes a moment; a silent one costs the whole time of a dial, also
        when its quarantine is over.
        """
        if instance not in self.cluster.state.health.quarantine.terms:
            return 0
        return 2 if instance in self.silent else 1

    def record_silence(self, names: Iterable[str]) -> None:
        """Record the ids and addresses of an instance that did not answer: it is not dialled again in this pass."""
        self.silent.update(dict.fromkeys(names, self.passes))

    def is_too_short(self, limit: float) -> bool:
        """Whether a dial of `limit` seconds that timed out shows nothing: the time of this call was over."""
        options = self.request.options
        return limit < min(options.ping_timeout, options.connect_timeout)

    def record_pause(self, name: str, since: float) -> AttemptFailed:
        """Record that a slow start left no time to dial an instance; returns what is to be raised."""
        text = "not dialled: after the failover it took long to accept connections, and is left in peace for a while"
        self.tries.append(Attempt(name, text, self.runtime.now() - since))
        self.is_alive = True
        return AttemptFailed(f"{name}: {text}")

    def lacks_reader(self) -> bool:
        """Whether a reader is wanted, and none is known."""
        wanted = self.route.role is WantedRole.READER or self.route.role is WantedRole.PREFER_READER
        return wanted and not any(True for _ in self.cluster.view.readers())

    def find_named(self) -> Instance | None:
        """Return the one instance that the name, or the option, denotes; None: it is unknown."""
        name = (self.request.options.instance or self.route.endpoint.label or "").lower()
        return next((each for each in self.cluster.view.instances.values() if each.id.lower() == name), None)

    def may_get_writer(self) -> bool:
        """Whether the writer may serve this connect, so that news of the writer may help it."""
        if self.route.mode is not Mode.PINNED:
            return True
        named = self.find_named()
        return named is None or named.role is not Role.READER

    def release(self) -> None:
        """Release the reservation, if any."""
        reservation, self.reservation = self.reservation, None
        if reservation is not None:
            reservation.cluster.release(reservation)


@frozen
class ConnectResult(Generic[ConnT]):
    """A connection on the right instance.

    Attributes:
        connection: the connection itself, idle, with nothing prepared and no setting changed.
        cluster: the cluster's state that it counts for.
        instance: id of its instance; None if the server does not report it.
        generation: the instance's generation when the connection was made.
        why: the selection or the route that led there; both have a `reason`.
        role: the instance's role when the connection was made.
        route: how the request was routed.
        pooled: whether a pooler is in between, so that the server behind may change at any moment.
        reservation: counts the connection until `track` or `release` is called; one of them has to be.
    """

    connection: ConnT
    cluster: Cluster
    instance: str | None
    generation: int
    why: Selection | Route
    role: Role = Role.UNKNOWN
    route: Route | None = None
    pooled: bool = False
    reservation: Reservation | None = None

    def track(self) -> None:
        """Count the connection for its instance instead of its reservation, in one step: no count is ever too low."""
        if self.instance is None:
            return
        reservation = self.reservation
        own = reservation is not None and reservation.cluster is self.cluster
        self.cluster.track(self.instance, self.connection, reservation=reservation if own else None)
        if not own:
            self.release()

    def release(self) -> None:
        """Release the reservation: the connection is not counted."""
        if self.reservation is not None:
            self.reservation.cluster.release(self.reservation)


# ---------------------------------------------------------------- where to dial


async def resolve_target(
    runtime: Runtime[ConnT], name: str, host: str | None, port: int | None, *, fresh: bool
) -> Target:
    """Return the target at a host: it is resolved, unless it is a socket or left to libpq.

    Raises:
        DialFailed: it has no address.
    """
    if not host or host[0] in "/@":
        return Target(name, host, port)
    return Target(name, host, port, (await runtime.resolve(host, fresh=fresh)).addresses)


async def find_target(attempt: ConnectAttempt[ConnT], seed: Address | Instance) -> Target:
    """Return where to dial an instance, or a host that the user gave.

    Raises:
        InstanceNotLocated: the address of the instance is unknown.
        AttemptFailed: the name has no address.
    """
    request, route = attempt.request, attempt.route
    if not isinstance(seed, Address) and route.mode is Mode.LIST:
        seed = next((each for each in request.given if str(each) == seed.id), seed)  # else the manager has listed it
    if isinstance(seed, Address):
        if seed.hostaddr is not None:
            return Target(str(seed), seed.host, seed.port, (seed.hostaddr,))
        name, host, port = str(seed), given_host(request, route, seed), seed.port
    else:
        address = locate(seed, route, request.options)
        if address is None:
            unknown = "its address is unknown (aurora_instance_host does not give it)"
            attempt.tries.append(Attempt(seed.id, unknown, 0.0))
            raise InstanceNotLocated(f"{seed.id}: {unknown}")
        name, host, port = seed.id, address.host, address.port
    # A name whose answers rotate is resolved again: to another member's turn, or to the writer of this moment.
    by_name = attempt.lacks_address or route.mode is Mode.NAME or route.custom_endpoint is not None
    rotates = by_name and host == request.given[0].host
    started = attempt.runtime.now()
    try:
        return await resolve_target(attempt.runtime, name, host, port, fresh=rotates)
    except DialFailed as failed:
        raise note_failure(attempt, name, failed, started) from failed


# ---------------------------------------------------------------- dialling


async def dial_reserved(attempt: ConnectAttempt[ConnT], instance: Instance) -> ConnT:
    """Dial an instance that a reservation counts for; a new writer only when its slow start permits it.

    Raises:
        AttemptFailed: it was not connected, or is not the writer any more.
    """
    runtime, cluster, permit, started = attempt.runtime, attempt.cluster, None, attempt.runtime.now()
    try:
        target = await find_target(attempt, instance)
        if instance.role is Role.WRITER:
            if cluster.limits_dials:
                permit = DialPermit(runtime, cluster)
                stands_in = attempt.route.role is not WantedRole.WRITER
                is_urgent = attempt.request.is_urgent
                if not await permit.wait(attempt.seconds_left, stands_in=stands_in, is_urgent=is_urgent):
                    raise attempt.record_pause(instance.id, started)
            _check_still_writer(attempt, instance)
        started = runtime.now()
        connection = await dial(attempt, target, instance, permit)
        cluster.record_success(instance.id, runtime.now() - started, runtime.now())
        if permit is not None:
            permit.record_success()
        return connection
    finally:
        if permit is not None:
            permit.end()


def _check_still_writer(attempt: ConnectAttempt[ConnT], instance: Instance) -> None:
    """Check, after a wait, that an instance is still the writer; and not suspected, if the writer is wanted."""
    cluster = attempt.cluster
    is_suspected = attempt.route.role is WantedRole.WRITER and cluster.suspected_at is not None
    if is_suspected or cluster.view.writer != instance.id:
        raise AttemptFailed(f"{instance.id} was the writer, and now another one is, or it is suspected")


class DialAttention:
    """Records whether this process attended to a dial. A timeout of one that it neglected is no evidence.

    It neglected a dial if it got no CPU, or if its event loop was blocked. Then it checked the dial late, or its
    monitor found that it was stalled.

    Args:
        runtime: does the I/O.
        cluster: the cluster of the instance that is dialled, now.
    """

    def __init__(self, runtime: Runtime[Any], cluster: Cluster) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self._began = runtime.now()
        self._glanced_at: float | None = None
        self._is_late = False

    def watch(self, wanted: Wanted | None) -> Wanted | None:
        """Return `wanted`, which a dial calls again and again, with a note of each call; None as it is."""
        if wanted is None:
            return None
        self._glanced_at = self.runtime.now()

        def glance() -> bool:
            self._glance()
            return wanted()

        return glance

    def _glance(self) -> None:
        if self._glanced_at is not None:
            now = self.runtime.now()
            self._is_late = self._is_late or now - self._glanced_at > UNATTENDED_SECONDS
            self._glanced_at = now

    def was_steady(self) -> bool:
        """Whether this process was not stalled during the dial, which has just ended."""
        self._glance()
        monitor = self.cluster.monitor
        stalled = monitor is not None and monitor.has_stalled(self._began, self.runtime.now())
        return not (self._is_late or stalled)


async def dial(
    attempt: ConnectAttempt[ConnT], target: Target, instance: Instance | None, permit: DialPermit | None = None
) -> ConnT:
    """Dial a target.

    If no connection slot is free, the monitor's own sessions may have taken the last ones: it is dialled once more
    after they are closed.

    Raises:
        AttemptFailed: it was not connected.
        Exception: the driver's own, if no other try could succeed.
    """
    runtime, cluster, started = attempt.runtime, attempt.cluster, attempt.runtime.now()
    address = target.addresses[0] if target.addresses else None
    wanted = attempt.make_wanted(target.name if instance is None else instance.id, address, target.port)
    attention = DialAttention(runtime, cluster)
    aim = Target(target.name, target.host, target.port, target.addresses, attention.watch(wanted))
    if permit is not None:
        permit.was_steady = attention.was_steady
    limit = attempt.dial_seconds(target, instance)
    try:
        try:
            connection = await runtime.dial(aim, limit)
        except DialFailed as failed:
            if failed.fault.sqlstate != TOO_MANY_CONNECTIONS or not cluster.make_room():
                raise
            await _wait_for_room(attempt)
            limit = attempt.dial_seconds()
            connection = await runtime.dial(aim, limit)
    except DialFailed as failed:
        is_given_up = wanted is not None and not wanted()
        if failed.fault.kind is FaultKind.TIMEOUT and not is_given_up and not attention.was_steady():
            text = "timed out while this process was stalled, which is no evidence against the server"
            attempt.tries.append(Attempt(target.name, text, runtime.now() - started))
            attempt.is_alive = True
            raise AttemptFailed(f"{target.name}: {text}") from failed
        if failed.fault.kind is FaultKind.TIMEOUT and not is_given_up and attempt.is_too_short(limit):
            attempt.is_alive = True
            raise note_failure(attempt, target.name, failed, started) from failed
        cluster.update(ClusterState.record_dial_failure, target.addresses)
        if is_given_up or failed.fault.kind is FaultKind.TIMEOUT:
            attempt.record_silence(target.addresses if instance is None else (instance.id, *target.addresses))
        if permit is not None and not is_given_up:
            permit.record_failure(failed.fault)
        if failed.fault.kind is FaultKind.REFUSED and target.addresses:
            attempt.has_answer = True
        raise note_failure(attempt, target.name, failed, started, instance, is_given_up=is_given_up) from failed
    attempt.has_answer = True
    return connection


async def _wait_for_room(attempt: ConnectAttempt[ConnT]) -> None:
    """Wait until the monitor has closed its sessions, and their server processes have ended."""
    cluster, news = attempt.cluster, attempt.cluster.news
    if cluster.is_crowded:
        await attempt.runtime.wait_for_news(cluster, news, min(ROOM_SECONDS, attempt.seconds_left()))
    await attempt.runtime.sleep(LEAVING_SECONDS)


async def is_standby(
    attempt: ConnectAttempt[ConnT], connection: ConnT, name: str, instance: Instance | None = None
) -> bool:
    """Whether the server is a standby: by its report at start-up if that is believed, else by a query, asked once.

    Raises:
        AttemptFailed: no answer.
    """
    if attempt.role_report is not None and attempt.role_report[0] is connection:
        return attempt.role_report[1]
    runtime, cluster, path = attempt.runtime, attempt.cluster, attempt.runtime.path(connection)
    standby = runtime.in_hot_standby(connection)
    if standby is not None:
        believed = cluster.state.role_reports.believes(path, runtime.backend_pid(connection), runtime.now())
        standby = standby if believed else None
    if standby is None:
        started, wanted = runtime.now(), attempt.make_wanted(name, *path)
        try:
            standby = (await check_role(runtime, cluster, connection, attempt.dial_seconds(), wanted)).standby
        except DialFailed as failed:
            is_given_up = wanted is not None and not wanted()
            raise note_failure(attempt, name, failed, started, instance, is_given_up=is_given_up) from failed
    attempt.role_report = connection, standby
    return standby


def is_refresh_due(attempt: ConnectAttempt[ConnT], instance: Instance) -> bool:
    """Whether the view is older than ``aurora_refresh``.

    If the writer is about to serve because no reader is known, it may be `NO_READER_SECONDS` old: a reader may have
    joined. If the writer's own row has not been seen yet (`View.provisional`), it may be `PROVISIONAL_SECONDS` old; if
    what the writer makes durable has not (`View.lacks_proof`), `ROW_AGE_SECONDS`, where it is the writer that is asked.
    """
    cluster, now, limit = attempt.cluster, attempt.runtime.now(), attempt.request.options.refresh
    refreshed_at = cluster.view.refreshed_at
    if instance.role is Role.WRITER and attempt.lacks_reader():
        cluster.update(ClusterState.miss_reader, now)
        limit = min(limit, NO_READER_SECONDS)
    if cluster.view.provisional:
        limit = min(limit, PROVISIONAL_SECONDS)
    elif instance.role is Role.WRITER and cluster.view.lacks_proof(now):
        limit = min(limit, ROW_AGE_SECONDS)
    return refreshed_at is not None and (cluster.state.demand.overdue or now - refreshed_at > limit)


# ---------------------------------------------------------------- failing


def note_end(cluster: Cluster, id_: str, fault: Fault, now: float) -> None:
    """Note that the process of an instance has ended, if a dial shows that and it matters."""
    if fault.kind is FaultKind.REFUSED and cluster.view.lacks_end(id_):
        cluster.observe(ProcessEnded(id_), now)


def note_failure(
    attempt: ConnectAttempt[ConnT],
    name: str,
    failed: DialFailed,
    started: float,
    instance: Instance | None = None,
    *,
    is_given_up: bool = False,
) -> AttemptFailed:
    """Record a failure: for the error, in the view, and in the quarantine.

    Args:
        attempt: the connect.
        name: what was dialled or asked.
        failed: the failure.
        started: when that try began.
        instance: the instance that failed, if it is known.
        is_given_up: whether the try was given up, so that the failure is no evidence.

    Returns:
        What is to be raised.

    Raises:
        Exception: the driver's own, if no other try could succeed.
    """
    fault, cluster, now = failed.fault, attempt.cluster, attempt.runtime.now()
    if is_given_up:
        text = "given up: meanwhile it hung, left, or changed its role, or another one is available"
        if attempt.request.wanted is not None and not attempt.request.wanted():
            text = "given up: the connection is not wanted any more"
        attempt.tries.append(Attempt(name, text, now - started))
        return AttemptFailed(f"{name}: {text}")
    verdict = judge(fault, cluster.temporary_refusals)
    attempt.tries.append(Attempt(name, fault.text or verdict.name, now - started))
    attempt.last_failure = failed.cause
    attempt.faults.add(fault.kind)
    attempt.sqlstates.add(fault.sqlstate)
    attempt.nexts.add(verdict.then)
    attempt.last_cause = failed.cause
    attempt.is_alive = attempt.is_alive or fault.kind in ON_THIS_SIDE
    if instance is not None and (verdict.down or verdict.quarantine):
        was_known = cluster.is_known_down(instance.id)
        alive = attempt.is_alive = fault.kind is FaultKind.REJECTED and not verdict.down
        if not attempt.is_avoided(instance.id) or (not alive and cluster.view.lacks_failure(instance.id)):
            failure = Failure(instance.id, instance.generation, gone=False, reason=verdict.name, alive=alive)
            cluster.observe(failure, now)
        note_end(cluster, instance.id, fault, now)
        if verdict.quarantine:
            cluster.record_failure(instance.id, now, attempt.request.options.quarantine, started)
        if not (alive or was_known):
            cluster.suspect_writer(f"a dial of {instance.id} failed: {verdict.name}", now)
    if fault.kind is FaultKind.NAME and len(attempt.request.given) == 1 and not cluster.view.known:
        raise attempt.runtime.errors.name_not_resolved(fault.text, attempts=attempt.tries) from failed.cause
    if fault.kind is FaultKind.IDENTITY and attempt.route.endpoint.kind in _UNVERIFIABLE:
        raise attempt.runtime.errors.name_not_verifiable(
            f"sslmode=verify-full: the server's certificate is not for {attempt.request.given[0].host!r} "
            f"({fault.text}): connect by the endpoint's real name, or let aurora_trust_cname=on verify the "
            "name that DNS says it is an alias of",
            view=cluster.view,
        ) from failed.cause
    if verdict.then is Next.RAISE:
        raise failed.cause from None
    attempt.has_answer = attempt.has_answer or fault.kind is FaultKind.REJECTED
    return AttemptFailed(fault.text)


def format_seconds(seconds: float) -> str:
    """A time limit for people, without the fractions that the rest of one has."""
    return f"{round(seconds, 1 if seconds >= 1.0 else 3):g} s"
