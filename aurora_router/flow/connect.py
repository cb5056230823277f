"""Puts one connection on the right instance.

Theory. The first connection to a cluster goes through the given name, and one topology query on that connection
returns the cluster. From then on the view decides: an instance is chosen, dialled by its own name, and its role is
checked against what it reports of itself at start-up, which costs nothing. Whatever contradicts the view (a role that
differs, a dial that fails) is an observation, changes the view by `reduce`, and an instance is chosen again, until a
connection fits or the time is up.

A connect is a sequence of *rounds*. Each round follows one of the strategies below, in the order of this file; a round
that fails is followed by a pause and another one.

Invariants: a connection that is handed out served the wanted role when it was made, by the server's own report; every
connection that is not handed out is closed, also on cancellation; every reservation is released.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aurora_router.errors import Attempt
from aurora_router.flow.attempt import (
    AttemptFailed,
    ConnectAttempt,
    ConnectResult,
    InstanceNotLocated,
    dial,
    dial_reserved,
    find_target,
    is_refresh_due,
    is_standby,
)
from aurora_router.flow.connect_error import find_cause, new_error
from aurora_router.flow.runtime import GLANCE_SECONDS, ConnT, DialFailed, Runtime
from aurora_router.flow.topology import (
    advise_on_wait,
    ensure_topology,
    lacks_lag_proof,
    read_topology,
    read_topology_on,
    read_topology_through,
    recognise_instance,
    refresh,
)
from aurora_router.forks import IMPORTING, UNREADABLE
from aurora_router.model.description import NO_MEMBERS
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import SelfReport
from aurora_router.policy.balance import is_lag_unproven, select
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.options import Balance, ReaderFallback
from aurora_router.policy.route import Address, Mode, Request, Route, leads_elsewhere, route
from aurora_router.policy.verdict import Next

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source
    from aurora_router.policy.balance import Selection

    FindCluster = Callable[[Request, Route], Cluster]
    Strategy = Callable[[ConnectAttempt[ConnT]], Awaitable[ConnectResult[ConnT]]]

LED_TO_WRITER = 2
"""How many times for each instance a name may lead to the writer before that serves as a reader: a name behind which
several instances take turns has led to a reader by then."""


async def connect(
    runtime: Runtime[ConnT], find: FindCluster, request: Request, sources: Sequence[Source]
) -> ConnectResult[ConnT]:
    """Put one connection on the right instance.

    Args:
        runtime: does the I/O; its connections are what is made.
        find: returns the state of the cluster that a routed request is for.
        request: what is requested.
        sources: how to query the topology, in the order in which to try.

    Raises:
        NoInstanceAvailable: no suitable instance could be reached in time.
        NameNotResolved: the given name has no address.
        ExtensionFailed: a function of the user's, or a topology source of another distribution, failed.
        Exception: the driver's own, if no other try could succeed (a wrong password, no such database).
    """
    attempt = _begin_attempt(runtime, find, request, await find_route(runtime, request), sources)
    try:
        try:
            return await choose_strategy(attempt)(attempt)
        except AttemptFailed as why:
            _record_failed_round(attempt, why)
        return await _retry(attempt)
    finally:
        attempt.release()


async def refresh_topology(
    runtime: Runtime[ConnT], find: FindCluster, request: Request, sources: Sequence[Source]
) -> Cluster:
    """Query the topology; returns the cluster's state, up to date. Takes and raises what `connect` does."""
    attempt = _begin_attempt(runtime, find, request, await find_route(runtime, request), sources)
    attempt.distrusts_view = attempt.cluster.view.known
    try:
        connection, _ = await read_topology(attempt)
    except AttemptFailed as why:
        attempt.last_failure = why
    else:
        await runtime.discard(connection)
        return attempt.cluster
    raise new_error(attempt, early=True) from find_cause(attempt)


async def find_route(runtime: Runtime[ConnT], request: Request) -> Route:
    """Decide how a request is routed, following an alias if that may show more.

    While no name server answers, an alias is followed to its last target: what is known of that cluster may suffice.

    Raises:
        NameNotResolved: the given name has no address.
    """
    if not leads_elsewhere(request):
        return route(request)
    host = request.given[0].host or ""
    try:
        resolution = await runtime.resolve(host)
    except DialFailed as failed:
        last = runtime.last_resolution(host)
        if last is None:
            raise runtime.errors.name_not_resolved(failed.fault.text) from failed.cause
        resolution = last
    return route(request, resolution.canonical)


def _begin_attempt(
    runtime: Runtime[ConnT], find: FindCluster, request: Request, chosen: Route, sources: Sequence[Source]
) -> ConnectAttempt[ConnT]:
    cluster = find(request, chosen)
    if chosen.mode is Mode.LIST:
        # The hosts of a list are the instances: the ids in an answer about the whole cluster would not match them.
        sources = [each for each in sources if not each.complete]
    started = cluster.used_at = runtime.now()
    if request.options.auto_pause or cluster.view.auto_pause:
        cluster.note_held(started)
    return ConnectAttempt(runtime, find, cluster, request, chosen, sources, started, cluster.view)


# ---------------------------------------------------------------- rounds


async def _retry(attempt: ConnectAttempt[ConnT]) -> ConnectResult[ConnT]:
    """Go on with further rounds, for as long as it makes sense.

    Raises:
        NoInstanceAvailable: no suitable instance could be reached in time.
        Exception: the driver's own, if every instance failed in a way that will not change by itself.
    """
    if attempt.last_cause is not None and attempt.nexts == {Next.OTHERS} and not attempt.has_answer:
        raise attempt.last_cause from None
    if attempt.seconds_left() <= 0.0:
        raise new_error(attempt) from find_cause(attempt)
    if _is_refused_for_good(attempt):
        raise new_error(attempt, early=True) from find_cause(attempt)
    advise_on_wait(attempt)
    try:
        with IMPORTING:
            from aurora_router.retry import reconnecting  # noqa: PLC0415 - tenacity is imported when first needed
    except UNREADABLE:
        raise new_error(attempt) from find_cause(attempt)

    attempt.distrusts_view = True
    rounds = reconnecting(
        attempt.runtime,
        attempt.cluster,
        attempt.seconds_left,
        retry_on=AttemptFailed,
        began=attempt.started,
        may_get_writer=attempt.may_get_writer,
    )
    try:
        async for each in rounds:
            with each:
                try:
                    return await choose_strategy(attempt)(attempt)
                except AttemptFailed as why:
                    _record_failed_round(attempt, why)
                    raise
    except AttemptFailed as why:
        attempt.last_failure = why
    raise new_error(attempt) from find_cause(attempt)


def _is_refused_for_good(attempt: ConnectAttempt[ConnT]) -> bool:
    """Whether a reader is wanted as libpq understands it, and only primaries exist, which all answered."""
    no_reader = not any(True for _ in attempt.cluster.view.readers())
    return attempt.request.refuses_primary and no_reader and not attempt.tries


def _record_failed_round(attempt: ConnectAttempt[ConnT], why: AttemptFailed) -> None:
    """Record why a round failed, and suspect the writer if that was wanted, so that the monitor looks for it."""
    attempt.last_failure = why
    if attempt.route.role is WantedRole.WRITER and not attempt.is_alive:
        attempt.cluster.suspect_writer(f"a connect to the writer failed: {why}", attempt.runtime.now())


def choose_strategy(attempt: ConnectAttempt[ConnT], *, is_admitted: bool = False) -> Strategy[ConnT]:
    """Return the strategy of the next round, by the route and by what is known of the cluster.

    If the cluster has an admission policy, that is asked first, unless it was: `is_admitted`.
    """
    if attempt.cluster.admission is not None and not is_admitted:
        return connect_if_admitted
    mode, cluster = attempt.route.mode, attempt.cluster
    if mode is Mode.THROUGH:
        return connect_unrouted
    if mode is Mode.NAME:
        return connect_through_name
    if mode is Mode.PINNED:
        return connect_to_named_instance
    lists_all = cluster.source is not None and cluster.source.complete
    if mode is Mode.INSTANCES and cluster.view.known and not lists_all:
        return connect_through_name  # the addresses of the other instances are unknown
    if attempt.find_endpoint() is NO_MEMBERS:
        return connect_through_name  # its members are unknown, but to DNS
    return connect_by_topology


# ---------------------------------------------------------------- the strategies


async def connect_if_admitted(attempt: ConnectAttempt[ConnT]) -> ConnectResult[ConnT]:
    """Follow the strategy of the route when the cluster's admission policy lets the connect pass."""
    with IMPORTING:
        from aurora_router.flow.admission import wait_until_admitted  # noqa: PLC0415 - few clusters have a policy

    elsewhere = await wait_until_admitted(attempt)
    if elsewhere is None:
        return await choose_strategy(attempt, is_admitted=True)(attempt)
    request, runtime = attempt.request, attempt.runtime
    options = replace(request.options, failover_timeout=attempt.seconds_left())
    redirected = replace(request, given=(Address(elsewhere.host, elsewhere.port),), options=options)
    other = _begin_attempt(runtime, attempt.find, redirected, await find_route(runtime, redirected), attempt.sources)
    try:
        return await choose_strategy(other, is_admitted=True)(other)
    finally:
        attempt.tries += other.tries
        other.release()


async def connect_unrouted(attempt: ConnectAttempt[ConnT]) -> ConnectResult[ConnT]:
    """Dial the given name: it does its own routing."""
    connection = await dial(attempt, await find_target(attempt, attempt.request.given[0]), None)
    return ConnectResult(connection, attempt.cluster, None, 0, attempt.route)


async def connect_through_name(attempt: ConnectAttempt[ConnT]) -> ConnectResult[ConnT]:
    """Dial the given name, and check only the role of the server that it leads to."""
    target = await find_target(attempt, attempt.request.given[0])
    started = attempt.runtime.now()
    connection = await dial(attempt, target, None)
    latency = attempt.runtime.now() - started
    try:
        instance = await recognise_instance(attempt, connection, target)
        attempt.cluster.record_success(instance.id, latency, attempt.runtime.now())
        unfit = f"led to a {instance.role.value} ({instance.id})"
        if await _has_wanted_role(attempt, connection, instance):
            if not await lacks_lag_proof(attempt, connection, instance):
                return _hand_out(attempt, connection, instance, attempt.route)
            unfit = f"led to {instance.id}, {_describe_lag(attempt)}"
    except BaseException:
        await attempt.runtime.discard(connection)
        raise
    await attempt.runtime.discard(connection)
    raise AttemptFailed(f"{target.name} {unfit}")


async def connect_to_named_instance(attempt: ConnectAttempt[ConnT]) -> ConnectResult[ConnT]:
    """Dial the one instance that the name, or the option, denotes."""
    wanted = attempt.request.options.instance
    if wanted is None and not attempt.cluster.view.known:
        found = await read_topology_through(attempt, attempt.request.given[0])
        return await _hand_out_whatever_role(attempt, *found)
    spare = await ensure_topology(attempt)
    known = attempt.find_named()
    if spare is not None:
        if known is not None and spare[1].id == known.id:
            return await _hand_out_whatever_role(attempt, *spare)
        await attempt.runtime.discard(spare[0])
    if known is None:
        raise AttemptFailed(f"the cluster has no instance {wanted or attempt.route.endpoint.label!r}")
    attempt.reservation = attempt.cluster.reserve(known.id)
    connection = await dial_reserved(attempt, known)
    return await _hand_out_whatever_role(attempt, connection, known)


async def connect_by_topology(attempt: ConnectAttempt[ConnT]) -> ConnectResult[ConnT]:
    """Dial the instance that the policy chooses from the topology."""
    await wait_until_writer_confirmed(attempt)
    cluster, options = attempt.cluster, attempt.request.options
    if options.max_lag is not None:
        cluster.update(ClusterState.bound_lag, options.max_lag, attempt.runtime.now())
    if attempt.route.role is WantedRole.WRITER and attempt.is_avoided(cluster.view.writer):
        attempt.distrusts_view = attempt.distrusts_view or not cluster.is_monitored
    if cluster.view.known and not attempt.distrusts_view:
        return await try_candidates(attempt, None)
    spare = await ensure_topology(attempt)
    if spare is None:
        return await try_candidates(attempt, None)
    try:
        result = await try_candidates(attempt, spare)
    except BaseException:
        await attempt.runtime.discard(spare[0])
        raise
    if result.connection is not spare[0]:
        await attempt.runtime.discard(spare[0])
    return result


async def wait_until_writer_confirmed(attempt: ConnectAttempt[ConnT]) -> None:
    """While the writer is suspected, wait for the monitor, which asks all instances, instead of dialling a dead one."""
    cluster, started = attempt.cluster, attempt.runtime.now()
    while attempt.route.role is WantedRole.WRITER:
        news = cluster.news
        if cluster.suspected_at is None:
            return
        if cluster.monitor is not None:
            cluster.monitor.search_by(attempt.request, attempt.route)
        left = attempt.seconds_left()
        if left <= 0.0:
            outcome = "the monitor asked all instances; none confirmed that it is the writer"
            attempt.tries.append(Attempt(cluster.name, outcome, attempt.runtime.now() - started))
            return
        if attempt.request.wanted is not None:  # no event ends the wait when the answer to that changes
            left = min(left, GLANCE_SECONDS)
        await attempt.runtime.wait_for_news(cluster, news, left)


async def try_candidates(attempt: ConnectAttempt[ConnT], spare: tuple[ConnT, Instance] | None) -> ConnectResult[ConnT]:
    """Try instances until one is suitable; choose again after each failure, so that the load of a dead one spreads.

    An instance that answered in another role may be chosen again in that role: a reader that has become the writer is
    no worse than a silent instance. A silent instance is not tried again, whatever its role is by now.

    Args:
        attempt: the connect.
        spare: the connection from which the topology was just read: it is used if its instance is the choice.
    """
    cluster, tried = attempt.cluster, set[tuple[str, Role]]()
    turn = cluster.next_turn()
    attempt.passes += 1
    attempt.lacks_address = False
    while True:
        if spare is not None and not cluster.view.is_current(spare[1].id, spare[1].generation):
            spare = None  # the view has changed since
        choice = partial(_select, attempt, spare, turn, tried)
        selection, instance, attempt.reservation = cluster.choose(choice, is_atomic=_is_atomic(attempt))
        if instance is None:
            break
        if spare is not None and spare[1].id == instance.id:
            if not await lacks_lag_proof(attempt, spare[0], instance):
                return _hand_out(attempt, spare[0], instance, selection)
            attempt.release()
            spare = None
            continue
        tried.add((instance.id, instance.role))
        found = await _try_candidate(attempt, instance)
        if found is not None:
            return _hand_out(attempt, *found, selection)
        attempt.release()
    if attempt.lacks_address:
        found = await _try_given_name(attempt)
        if found is not None:
            return _hand_out(attempt, *found, attempt.route)
    if attempt.lacks_reader():
        cluster.update(ClusterState.miss_reader, attempt.runtime.now())
    raise AttemptFailed(selection.reason if not selection.order else "no instance that fits could be reached")


def _find_untried(
    attempt: ConnectAttempt[ConnT], selection: Selection, tried: Container[tuple[str, Role]]
) -> Instance | None:
    """Return the first instance of a selection that was neither tried in its role nor silent, in this pass.

    Once one was silent, those that failed and did not answer since come last.
    """
    left = (
        each
        for each in selection.order
        if (each.id, each.role) not in tried and attempt.silent.get(each.id) != attempt.passes
    )
    if not attempt.silent:
        return next(left, None)
    return min(left, key=lambda each: attempt.failure_rank(each.id), default=None)


def _select(
    attempt: ConnectAttempt[ConnT],
    spare: tuple[ConnT, Instance] | None,
    turn: int,
    tried: Container[tuple[str, Role]] | None = None,
) -> tuple[Selection, Instance | None]:
    """Choose by the policy. With `tried`, also returns the first instance that was not tried yet, to be reserved.

    A connection that is there already is preferred among equals, unless a user's function has chosen another instance.
    """
    cluster = attempt.cluster
    selection = select(
        cluster.view,
        attempt.request.options,
        attempt.route.role,
        loads=cluster.loads(cluster.view.instances),
        quarantine=cluster.state.health.quarantine,
        now=attempt.runtime.now(),
        rng=attempt.runtime,
        turn=turn,
        endpoint=attempt.find_endpoint(),
        rankings=cluster.rankings,
    )
    if spare is not None and (tried is None or isinstance(attempt.request.options.balance, Balance)):
        selection = selection.preferring(spare[1].id)
    return selection, None if tried is None else _find_untried(attempt, selection, tried)


def _choose_again(attempt: ConnectAttempt[ConnT], connection: ConnT, found: Instance) -> Selection:
    """Choose with what is known by now, given a connection to an instance; counts nothing."""
    choice = partial(_select, attempt, (connection, found), 0)
    return attempt.cluster.choose(choice, is_atomic=_is_atomic(attempt))[0]


def _is_atomic(attempt: ConnectAttempt[ConnT]) -> bool:
    """Whether to choose and to count in one step: a user's function may take its time, or use the cluster itself."""
    return isinstance(attempt.request.options.balance, Balance)


async def _try_candidate(attempt: ConnectAttempt[ConnT], instance: Instance) -> tuple[ConnT, Instance] | None:
    """Dial an instance, and confirm its role; None: another one has to be tried."""
    began = attempt.runtime.now()
    try:
        connection = await dial_reserved(attempt, instance)
    except AttemptFailed as why:
        attempt.last_failure = why
        attempt.lacks_address = attempt.lacks_address or isinstance(why, InstanceNotLocated)
        return None
    try:
        found = await confirm_role(attempt, connection, instance, began)
        if found is not None:
            return connection, found
    except BaseException:
        await attempt.runtime.discard(connection)
        raise
    await attempt.runtime.discard(connection)
    return None


async def _try_given_name(attempt: ConnectAttempt[ConnT]) -> tuple[ConnT, Instance] | None:
    """Dial the given name if the address of a suitable instance is unknown: it may lead there.

    Returns None if it led to an instance that is not suitable by its own report.
    """
    name = attempt.request.given[0]
    try:
        connection, found = await read_topology_through(attempt, name, again=False)
    except AttemptFailed as why:
        attempt.last_failure = why
        return None
    try:
        fits = [each.id for each in _choose_again(attempt, connection, found).order[:1]] == [found.id]
        fits = fits and not await lacks_lag_proof(attempt, connection, found)
        if fits and attempt.cluster.view.is_current(found.id, found.generation):
            return connection, found
        attempt.last_failure = AttemptFailed(f"{name} led to a {found.role.value} ({found.id})")
    except BaseException:
        await attempt.runtime.discard(connection)
        raise
    await attempt.runtime.discard(connection)
    return None


# ---------------------------------------------------------------- checking roles


async def confirm_role(
    attempt: ConnectAttempt[ConnT], connection: ConnT, instance: Instance, asked_at: float
) -> Instance | None:
    """Return the instance if its role is as in the view, or if it is suitable after its answer changed the view.

    The generation that counts is the one from before the dial. If it is outdated by now (a dial of an instance that
    hung may end when another is the writer), the server is asked what it is.
    """
    options, found = attempt.request.options, None
    try:
        if is_refresh_due(attempt, instance):
            found = await refresh(attempt, connection, instance.id)
        if found is None and attempt.cluster.view.is_current(instance.id, instance.generation):
            standby = await is_standby(attempt, connection, instance.id, instance)
            agrees = instance.role is not Role.UNKNOWN and standby is (instance.role is not Role.WRITER)
            agrees = agrees and not is_lag_unproven(instance, options, attempt.runtime.now())
            if agrees and attempt.cluster.view.is_current(instance.id, instance.generation):  # still, after the answer
                if not standby and attempt.cluster.view.outage is not None:  # its own report ends that
                    report = SelfReport(instance.id, writer=True, asked_at=asked_at)
                    attempt.cluster.observe(report, attempt.runtime.now())
                return instance
        if found is None:
            found = await read_topology_on(attempt, connection, instance.id)
        if await lacks_lag_proof(attempt, connection, found):
            return None
    except AttemptFailed as why:
        attempt.last_failure = why
        return None
    best = _choose_again(attempt, connection, found).order[:1]
    return found if [found.id] == [each.id for each in best] == [instance.id] else None


async def _has_wanted_role(attempt: ConnectAttempt[ConnT], connection: ConnT, instance: Instance) -> bool:
    """Whether the instance behind a name has the wanted role, by its own report."""
    role = attempt.route.role
    standby = await is_standby(attempt, connection, instance.id, instance)
    if role is WantedRole.ANY:
        return True
    if standby:
        return role is not WantedRole.WRITER
    if attempt.cluster.view.writer not in {None, instance.id}:
        return False  # a former writer that does not know it
    if role is not WantedRole.READER:
        return True
    attempt.writers_met += 1
    lacks_reader = attempt.lacks_reader() or attempt.writers_met > LED_TO_WRITER * len(attempt.cluster.view.instances)
    return lacks_reader and attempt.request.options.reader_fallback is ReaderFallback.WRITER


# ---------------------------------------------------------------- handing out


async def _hand_out_whatever_role(
    attempt: ConnectAttempt[ConnT], connection: ConnT, known: Instance
) -> ConnectResult[ConnT]:
    """Hand out a connection to the one instance that was named, whatever its role is by its own report."""
    try:
        due = is_refresh_due(attempt, known)
        instance = await refresh(attempt, connection, known.id) if due else None
        if instance is None:
            standby = await is_standby(attempt, connection, known.id, known)
            agrees = standby is (known.role is not Role.WRITER)
            instance = known if agrees else await read_topology_on(attempt, connection, known.id)
        if await lacks_lag_proof(attempt, connection, instance):
            raise AttemptFailed(f"{instance.id} is the instance, {_describe_lag(attempt)}")  # noqa: TRY301 - it is discarded below
        return _hand_out(attempt, connection, instance, attempt.route)
    except BaseException:
        await attempt.runtime.discard(connection)
        raise


def _hand_out(
    attempt: ConnectAttempt[ConnT], connection: ConnT, instance: Instance, why: Selection | Route
) -> ConnectResult[ConnT]:
    """Return the result, which takes over the reservation."""
    reservation, attempt.reservation = attempt.reservation, None
    reports = attempt.cluster.state.role_reports
    pooled = bool(reports.indirect) and reports.is_pooled(attempt.runtime.path(connection))
    generation, role = instance.generation, instance.role
    return ConnectResult(
        connection, attempt.cluster, instance.id, generation, why, role, attempt.route, pooled, reservation
    )


def _describe_lag(attempt: ConnectAttempt[ConnT]) -> str:
    return f"which is not known to lag by {attempt.request.options.max_lag:g} s at most (aurora_max_lag)"
