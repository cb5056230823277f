"""The topology within one connect: on which connection it is queried, and what the answer changes.

One connect at a time queries the topology; the others wait for its answer. While the view is distrusted, each round
asks another server.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from aurora_router.errors import InvalidOption
from aurora_router.flow.attempt import (
    AttemptFailed,
    ConnectAttempt,
    dial,
    find_target,
    format_seconds,
    is_refresh_due,
    is_standby,
    note_failure,
    resolve_target,
)
from aurora_router.flow.connect_error import find_cause
from aurora_router.flow.members import AGAIN_SECONDS, ask_members, find_manager
from aurora_router.flow.runtime import ConnT, DialFailed, Target
from aurora_router.flow.topology_query import PERMISSION_DENIED, advance_log, find_impostor, identify, query_topology
from aurora_router.model.claim import names_another
from aurora_router.model.endpoint import EndpointKind, WantedRole
from aurora_router.model.event import AnswerRefused, ClaimRefused
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import Row, Topology
from aurora_router.policy.balance import is_lag_unproven
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.route import Address, Mode, find, identity
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.source import Source
    from aurora_router.flow.topology_query import Refusal, TopologyAnswer

SeedT = TypeVar("SeedT")

_OF_CLUSTERS = frozenset({EndpointKind.CLUSTER, EndpointKind.CLUSTER_READER})
SIBLING_SECONDS = 2.0
"""How long a dial of the cluster's other endpoint may take when the given one was silent, in seconds."""
OTHERS_SEARCH_SECONDS = 0.5
"""How long a connect to a reader of a list of hosts waits for the query of another connect, in seconds."""
PERMIT_SECONDS = 1.0
"""How often a connect that waits for the topology checks that another one still queries it, in seconds."""


async def ensure_topology(attempt: ConnectAttempt[ConnT]) -> tuple[ConnT, Instance] | None:
    """Ensure that the topology is known. Returns the connection it was read from, or None if none was opened.

    Raises:
        AttemptFailed: no server reported it.
    """
    cluster = attempt.cluster
    if cluster.view.known and (not attempt.distrusts_view or cluster.is_monitored):
        return None
    news = cluster.news
    permit = cluster.begin_topology_query(attempt.runtime.thread)
    if permit is not None:
        try:
            return await read_topology(attempt)
        finally:
            cluster.end_topology_query()
    until = attempt.runtime.now() + min(attempt.seconds_left(), _find_patience(attempt))
    while cluster.news == news and (left := until - attempt.runtime.now()) > 0.0:
        other = cluster.topology_permit
        if other is None or not attempt.runtime.can_wait_for(other.thread):
            break
        del other  # it is gone as soon as its connect is
        await attempt.runtime.wait_for_news(cluster, news, min(left, PERMIT_SECONDS))
    return None if attempt.cluster.view.known else await read_topology(attempt)


def _find_patience(attempt: ConnectAttempt[ConnT]) -> float:
    """How long to wait for another connect's query, in seconds.

    A search through a list for the writer asks each host for itself, also one that is silent; a reader is found sooner.
    """
    for_another_role = attempt.route.mode is Mode.LIST and attempt.route.role is not WantedRole.WRITER
    return OTHERS_SEARCH_SECONDS if for_another_role and attempt.cluster.view.known else math.inf


async def read_topology(attempt: ConnectAttempt[ConnT]) -> tuple[ConnT, Instance]:
    """Query the topology: through the given names first; while the view is distrusted, another server each time.

    A server that was silent in this connect is asked last, whatever name leads to it.

    Raises:
        AttemptFailed: no server reported it.
    """
    if attempt.route.mode is Mode.LIST:
        return await _read_topology_of_list(attempt)
    seeds: list[Address | Instance] = list(attempt.request.given)
    if attempt.distrusts_view:
        seeds += attempt.cluster.view.instances.values()
    # Without a monitor, and the writer just failed: the given name most likely still leads to it.
    gone = attempt.route.role is WantedRole.WRITER and attempt.is_avoided(attempt.cluster.view.writer)
    seeds.sort(
        key=lambda seed: (
            attempt.asked.count(_seed_name(seed)),
            gone if isinstance(seed, Address) else attempt.is_avoided(seed.id),
        )
    )
    postponed: list[Address | Instance] = []
    dialled, epoch = set[str](), attempt.cluster.view.epoch
    for seed in _until_found(attempt, seeds, epoch):
        attempt.asked.append(_seed_name(seed))
        try:
            target = await find_target(attempt, seed)
            dialled.update(target.addresses)
            if attempt.silent.keys().isdisjoint(target.addresses):
                return await _read_topology_at(attempt, seed, target)
            postponed.append(seed)
        except AttemptFailed as why:
            attempt.last_failure = why
    for seed in _until_found(attempt, postponed, epoch):
        try:
            return await read_topology_through(attempt, seed)
        except AttemptFailed as why:
            attempt.last_failure = why
    found = None if attempt.cluster.view.known else await _read_topology_of_sibling(attempt, dialled)
    if found is not None:
        return found
    raise AttemptFailed("no server answered that could report the topology")


async def _read_topology_of_sibling(
    attempt: ConnectAttempt[ConnT], dialled: Container[str]
) -> tuple[ConnT, Instance] | None:
    """Query the topology through the cluster's other endpoint, in a process that knows nothing yet of the cluster.

    The instance that the given endpoint leads to is down, or hangs, and DNS may lead there for long; any other one
    knows the cluster. Returns None if no answer came, or if the endpoint leads to what was `dialled` already.
    """
    route, request = attempt.route, attempt.request
    host = route.endpoint.sibling
    if host is None or route.mode is not Mode.INSTANCES or len(request.given) > 1 or request.hostaddr is not None:
        return None
    sibling = Address(host, route.port)
    try:
        target = await resolve_target(attempt.runtime, str(sibling), sibling.host, sibling.port, fresh=False)
    except DialFailed:  # a cluster may have one of both names alone
        return None
    if any(each in dialled for each in target.addresses):
        return None
    attempt.further_seconds = SIBLING_SECONDS
    try:
        return await _read_topology_at(attempt, sibling, target)
    except AttemptFailed as why:
        attempt.last_failure = why
        return None


async def _read_topology_of_list(attempt: ConnectAttempt[ConnT]) -> tuple[ConnT, Instance]:
    """Ask the hosts of a list one after the other; the writer ends the search for a writer.

    Those that failed recently come last, those that were silent in this connect after all others; and only in the
    search for a writer if others have answered.
    """
    kept = await _ask_hosts(attempt, attempt.cluster.view.instances.values(), None)
    if kept is not None and _lacks_members(attempt, kept[1]):
        kept = await _ask_new_members(attempt, kept)
    if kept is not None:
        return kept
    if attempt.faults == {FaultKind.NAME} and not attempt.cluster.view.known:  # as with a single host: at once
        text = "none of the hosts given has an address. Tried:"
        raise attempt.runtime.errors.name_not_resolved(text, attempts=attempt.tries) from find_cause(attempt)
    raise AttemptFailed("none of the hosts given answered")


async def _ask_hosts(
    attempt: ConnectAttempt[ConnT], seeds: Iterable[Instance], kept: tuple[ConnT, Instance] | None
) -> tuple[ConnT, Instance] | None:
    """Ask instances for themselves; returns the last connection that was made, `kept` if none was; closes others."""
    searches_writer, led_by = attempt.route.role is WantedRole.WRITER, attempt.cluster.view.led_by
    try:
        ordered = sorted(
            seeds, key=lambda each: (attempt.failure_rank(each.id), (each.id == led_by) is not searches_writer)
        )
        for seed in _until_found(attempt, ordered, attempt.cluster.view.epoch):
            if kept is not None and not searches_writer and attempt.failure_rank(seed.id) > 0:
                break
            try:
                found = await read_topology_through(attempt, seed)
            except AttemptFailed as why:
                attempt.last_failure = why
                continue
            if kept is not None:
                await attempt.runtime.discard(kept[0])
            kept = found
            if searches_writer and found[1].role is Role.WRITER:
                break
    except BaseException:
        if kept is not None:
            await attempt.runtime.discard(kept[0])
        raise
    return kept


def _until_found(attempt: ConnectAttempt[ConnT], seeds: Iterable[SeedT], epoch: int) -> Iterator[SeedT]:
    """Yield what is to be asked; a search for the writer ends when one was accepted after `epoch`.

    The others may be silent: the former writer, for example.
    """
    for seed in seeds:
        if attempt.route.role is WantedRole.WRITER and attempt.cluster.view.epoch != epoch:
            return
        yield seed


def _lacks_members(attempt: ConnectAttempt[ConnT], found: Instance) -> bool:
    """Whether none of the instances known suits, and a manager may know more that was not asked a moment ago."""
    if not attempt.request.managed or attempt.runtime.now() - attempt.cluster.members_asked_at < AGAIN_SECONDS:
        return False
    if attempt.route.role is WantedRole.WRITER:
        return found.role is not Role.WRITER
    return attempt.lacks_reader()


async def _ask_new_members(
    attempt: ConnectAttempt[ConnT], kept: tuple[ConnT, Instance]
) -> tuple[ConnT, Instance] | None:
    """Ask the manager for the members, and those of them that are new for themselves."""
    cluster, before = attempt.cluster, attempt.cluster.view.instances.keys()
    manager = find_manager(attempt.sources)
    try:
        if manager is not None:
            await ask_members(attempt.runtime, cluster, manager, attempt.request.given)
    except BaseException:
        await attempt.runtime.discard(kept[0])
        raise
    new = [each for id_, each in cluster.view.instances.items() if id_ not in before]
    return await _ask_hosts(attempt, new, kept)


async def read_topology_through(
    attempt: ConnectAttempt[ConnT], seed: Address | Instance, *, again: bool = True
) -> tuple[ConnT, Instance]:
    """Query the topology at an instance, or through a given name; returns the connection and the instance on it.

    Args:
        attempt: the connect.
        seed: the instance, or the name.
        again: whether it is dialled also if its addresses were silent in this pass.

    Raises:
        AttemptFailed: no answer, or it was silent.
    """
    target = await find_target(attempt, seed)
    if not again and target.addresses and all(attempt.silent.get(each) == attempt.passes for each in target.addresses):
        raise AttemptFailed(f"{seed} leads to an instance that did not answer a moment ago")
    return await _read_topology_at(attempt, seed, target)


async def _read_topology_at(
    attempt: ConnectAttempt[ConnT], seed: Address | Instance, target: Target
) -> tuple[ConnT, Instance]:
    started = attempt.runtime.now()
    connection = await dial(attempt, target, None if isinstance(seed, Address) else seed)
    latency = attempt.runtime.now() - started
    try:
        if isinstance(seed, Address):
            instance = await recognise_instance(attempt, connection, target)
        else:
            instance = await read_topology_on(attempt, connection, seed.id, by_id=True)
        attempt.cluster.record_success(instance.id, latency, attempt.runtime.now())
    except BaseException:
        await attempt.runtime.discard(connection)
        raise
    return connection, instance


async def recognise_instance(attempt: ConnectAttempt[ConnT], connection: ConnT, target: Target) -> Instance:
    """Return the instance that a connection through a name led to.

    A name may stand for a load balancer or a pooler, so an address proves nothing. If the source has ids, the server
    is asked for its own each time, in one round trip. If it has none, the name is all that is known.
    """
    instance = await _identify_instance(attempt, connection, target.name)
    where = f"{attempt.runtime.address(connection)}:{target.port}"
    attempt.cluster.update(ClusterState.record_address, where, instance.id)  # for `ConnectAttempt.make_wanted`
    return instance


async def _identify_instance(attempt: ConnectAttempt[ConnT], connection: ConnT, name: str) -> Instance:
    cluster, source = attempt.cluster, attempt.cluster.source
    if not cluster.view.known or attempt.distrusts_view:
        return await read_topology_on(attempt, connection, name)
    if source is None or source.id_sql is None:
        id_: str | None = name
        standby = await is_standby(attempt, connection, name, cluster.view.instances.get(name))
    else:
        id_, standby = await _query_id(attempt, connection, source, name)
    known = cluster.view.instances.get(id_ or "")
    if known is not None:
        if is_refresh_due(attempt, known):
            known = await refresh(attempt, connection, name, by_id=False) or known
        if standby is (known.role is not Role.WRITER):
            return known
    return await read_topology_on(attempt, connection, name)


async def _query_id(
    attempt: ConnectAttempt[ConnT], connection: ConnT, source: Source, name: str
) -> tuple[str | None, bool]:
    runtime = attempt.runtime
    started, wanted = runtime.now(), attempt.make_wanted(name, *runtime.path(connection))
    try:
        found = await identify(runtime, attempt.cluster, connection, source, attempt.dial_seconds(), wanted)
    except DialFailed as failed:
        is_given_up = wanted is not None and not wanted()
        raise note_failure(attempt, name, failed, started, is_given_up=is_given_up) from failed
    attempt.role_report = connection, found[1]
    return found


async def refresh(
    attempt: ConnectAttempt[ConnT], connection: ConnT, name: str, *, by_id: bool = True
) -> Instance | None:
    """Query the topology on a fresh connection, unless another connect does that; returns the instance that answered.

    Args and errors: see `read_topology_on`.
    """
    cluster = attempt.cluster
    permit = cluster.begin_topology_query(attempt.runtime.thread)
    if permit is None:
        return None
    try:
        cluster.update(ClusterState.begin_refresh)
        return await read_topology_on(attempt, connection, name, by_id=by_id)
    finally:
        cluster.end_topology_query()


async def read_topology_on(
    attempt: ConnectAttempt[ConnT],
    connection: ConnT,
    asked: str,
    *,
    by_id: bool = False,
    seconds: float | None = None,
) -> Instance:
    """Query the topology on a connection; the answer changes the view. Returns the instance that answered.

    Args:
        attempt: the connect.
        connection: on which to ask.
        asked: what was dialled: an instance's id, or a name that the user gave.
        by_id: whether it was an instance's id, see `Topology.by_id`.
        seconds: how long that may take; None: as long as a dial.

    Raises:
        AttemptFailed: no answer, or one about another cluster, or from a former writer that does not know that it is
            one: not even its reads are of use.
    """
    runtime, cluster, started = attempt.runtime, attempt.cluster, attempt.runtime.now()
    answer = await _query(attempt, connection, asked, seconds, by_id=by_id)
    if answer is not None and names_another(_find_cluster(attempt, answer[1], asked).view, answer[1]):
        await _ask_accepted(attempt)
        started = runtime.now()  # what the instance said before, of its lag for example, is old by now
        answer = await _query(attempt, connection, asked, seconds, by_id=by_id)
    if answer is None:
        standby = await is_standby(attempt, connection, asked)
        topology = Topology((Row(asked, writer=not standby),), asked, not standby, complete=False)
        check = None
    else:
        source, topology, check = answer
        standby = not topology.observer_is_writer
        cluster = _find_cluster(attempt, topology, asked)
        cluster.source = source
    # A name that is only attached to the cluster may lead elsewhere: it proves as little as an instance's id.
    is_attached = identity(attempt.request, attempt.route) != cluster.identity
    events = cluster.observe(replace(topology, by_id=True) if is_attached else topology, runtime.now())
    if check is not None:
        cluster.update(ClusterState.record_role_check, runtime.path(connection), check, runtime.now())
    attempt.role_report, attempt.topology_report = (connection, standby), (connection, started, runtime.now())
    _advise_on_names(attempt)
    observer, own = topology.observer or asked, Role.READER if standby else Role.WRITER
    known = cluster.view.instances.get(observer, Instance(observer, own))
    for event in events:
        if isinstance(event, AnswerRefused):
            raise AttemptFailed(f"{asked} led to another cluster ({observer}): {event.reason}")
    reasons = [each.reason for each in events if isinstance(each, ClaimRefused) and each.observer == observer]
    takes_any = attempt.route.role is WantedRole.ANY and attempt.route.mode in {Mode.PINNED, Mode.NAME}
    if own is Role.WRITER and (reasons or cluster.view.writer != observer) and not takes_any:
        why = reasons[0] if reasons else "a later one is known"
        wanted = attempt.make_wanted(asked, *runtime.path(connection))
        await advance_log(runtime, cluster, connection, observer, wanted)
        raise AttemptFailed(f"{observer} reports that it is the writer, and is not accepted: {why}")
    return known


async def _query(
    attempt: ConnectAttempt[ConnT], connection: ConnT, asked: str, seconds: float | None, *, by_id: bool
) -> TopologyAnswer | None:
    """Query the topology on a connection; None: the server has none of the sources. See `read_topology_on`."""
    runtime, cluster = attempt.runtime, attempt.cluster
    sources = attempt.sources if cluster.source is None else (cluster.source,)
    started, wanted = runtime.now(), attempt.make_wanted(asked, *runtime.path(connection))
    refusals: list[Refusal] = []
    seconds = attempt.dial_seconds() if seconds is None else seconds
    try:
        answer = await query_topology(runtime, connection, asked, sources, seconds, refusals, wanted, by_id=by_id)
    except DialFailed as failed:
        is_given_up = wanted is not None and not wanted()
        raise note_failure(attempt, asked, failed, started, is_given_up=is_given_up) from failed
    _judge_refusals(attempt, refusals, sources, asked, answer)
    return answer


async def _ask_accepted(attempt: ConnectAttempt[ConnT]) -> None:
    """Ask the accepted writer before another one replaces it, if nothing was wrong with it so far.

    What this process knows may be old: the writer may have lost its role meanwhile, and got it back. A zombie of the
    time between shows more of the log than is known, and less than there is. It is asked for as long as a ping may
    take; no answer is no evidence against it.
    """
    runtime, cluster = attempt.runtime, attempt.cluster
    accepted = cluster.view.instances.get(cluster.view.writer or "")
    if accepted is None or cluster.suspected_at is not None:  # else the monitor asks all of them
        return
    if find(accepted, attempt.route, attempt.request) is None:
        return
    until = runtime.now() + min(attempt.dial_seconds(), attempt.request.options.ping_timeout)
    try:
        target = await find_target(attempt, accepted)
    except AttemptFailed:
        return
    aim = Target(target.name, target.host, target.port, target.addresses, attempt.make_wanted(accepted.id))
    try:
        connection = await runtime.dial(aim, max(0.1, until - runtime.now()))
    except DialFailed as failed:
        if failed.fault.kind is FaultKind.TIMEOUT:
            attempt.record_silence((accepted.id, *target.addresses))
        return
    try:
        await read_topology_on(attempt, connection, accepted.id, by_id=True, seconds=max(0.1, until - runtime.now()))
    except AttemptFailed as why:
        attempt.last_failure = why
    finally:
        await runtime.discard(connection)


def _find_cluster(attempt: ConnectAttempt[ConnT], topology: Topology, asked: str) -> Cluster:
    """Return the cluster that an answer describes, as far as the name that was dialled shows.

    Raises:
        AttemptFailed: another instance answered than the one that was dialled.
    """
    moved = find_impostor(asked, topology) if topology.by_id else None
    if moved is not None:
        raise AttemptFailed(moved)
    if not topology.by_id:
        cluster = attempt.cluster
        attempt.cluster = cluster.registry.match_cluster(cluster, identity(attempt.request, attempt.route), topology)
    return attempt.cluster


async def lacks_lag_proof(attempt: ConnectAttempt[ConnT], connection: ConnT, instance: Instance) -> bool:
    """Whether a reader may lag by more than ``aurora_max_lag``; it is asked if what is known does not prove the bound.

    Its answer counts as of when it was asked: the time that the answer is on its way does not count, however small the
    bound is. But an answer gets older while the connect does other things: then the reader is asked once more.

    Raises:
        AttemptFailed: no answer.
    """
    options, report, now = attempt.request.options, attempt.topology_report, attempt.runtime.now()
    if options.max_lag is None or not is_lag_unproven(instance, options, now):
        return False
    if report is not None and report[0] is connection:
        _, asked_at, answered_at = report
        if is_lag_unproven(instance, options, asked_at):
            return True
        if not is_lag_unproven(instance, options, asked_at + now - answered_at):
            return False
    instance = await read_topology_on(attempt, connection, instance.id, by_id=True)
    report = attempt.topology_report
    return report is None or is_lag_unproven(instance, options, report[1])


# ---------------------------------------------------------------- advice for people


def _judge_refusals(
    attempt: ConnectAttempt[ConnT],
    refusals: Sequence[Refusal],
    sources: Sequence[Source],
    asked: str,
    answer: TopologyAnswer | None,
) -> None:
    """Report why a server did not answer a topology query, if a person can change that.

    Raises:
        InvalidOption: it is of no kind that ``aurora_source`` names, all of which report whole clusters.
    """
    is_forbidden = any(refusal.fault.sqlstate == PERMISSION_DENIED for _, refusal in refusals)
    is_of_cluster = attempt.route.endpoint.kind in _OF_CLUSTERS and not is_forbidden
    for source, refusal in refusals:
        if refusal.fault.sqlstate == PERMISSION_DENIED:
            _advise(
                attempt,
                "permission",
                f"the user may not ask for the topology ({refusal.fault.text}): connections are routed by the "
                f"names alone; {source.grant}",
            )
        elif source.install and answer is not None and is_of_cluster:
            _advise(
                attempt,
                "install",
                f"{asked} is PostgreSQL behind a cluster's endpoint and does not list its instances: connections are "
                f"routed by the names alone; if it is {source.install}, {source.grant}",
            )
        elif answer is None and all(each.complete for each in sources):
            kinds = " or ".join(each.servers or f"a server for the source {each.name}" for each in sources)
            raise InvalidOption(
                f"aurora_source={','.join(attempt.request.options.source)}, but {asked} is not {kinds} "
                f"({refusal.fault.text}): use aurora_source=auto or aurora_source=postgresql"
            ) from refusal.cause


def _advise_on_names(attempt: ConnectAttempt[ConnT]) -> None:
    """Advise if there are several instances, and the name of none is known."""
    route, count = attempt.route, len(attempt.cluster.view.instances)
    nameless = route.mode is Mode.NAME and route.domain is None and attempt.request.hostaddr is None
    if nameless and count > 1:
        _advise(
            attempt,
            "names",
            f"{attempt.request.given[0]} has {count} instances, and how they are named is unknown: connections go "
            "through the given name, their role alone is checked; set aurora_instance_host, for example "
            "aurora_instance_host={id}.db.internal",
        )


def advise_on_wait(attempt: ConnectAttempt[ConnT]) -> None:
    """Advise while a first connect retries: it may be an outage, or a wrong port."""
    if not attempt.cluster.view.known:
        _advise(
            attempt,
            "waiting",
            f"nothing at {', '.join(map(str, attempt.request.given))} takes connections now "
            f"({attempt.last_failure}): trying again for {format_seconds(attempt.patience())} "
            "(aurora_failover_timeout, aurora_connect_timeout)",
        )


def _advise(attempt: ConnectAttempt[ConnT], key: str, text: str) -> None:
    """Report advice once per cluster."""
    attempt.cluster.update(ClusterState.advise, key, text, attempt.runtime.now())


def _seed_name(seed: Address | Instance) -> str:
    return str(seed) if isinstance(seed, Address) else seed.id
