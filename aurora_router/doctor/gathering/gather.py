"""Gathering all facts: from what was given, from DNS, from each server, and by one connect of the driver."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router.connection import connect
from aurora_router.doctor.facts import Connected, Facts, Failure, Member, Name, Server, Topology
from aurora_router.doctor.gathering.names import look_up
from aurora_router.doctor.gathering.servers import dial, where_it_leads
from aurora_router.doctor.gathering.setup import read_setup
from aurora_router.errors import AuroraRouterError
from aurora_router.flow.connect import find_route
from aurora_router.flow.runtime import DialFailed, Target
from aurora_router.model.endpoint import EndpointKind, parse_endpoint
from aurora_router.model.instance import Instance
from aurora_router.policy.route import Mode, given_host, locate
from aurora_router.runtime.blocking import run
from aurora_router.runtime.libpq_runtimes import BlockingRuntime
from aurora_router.runtime.sequential_dial import refuse_dial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.doctor.facts import Application
    from aurora_router.doctor.gathering.servers import Dialled
    from aurora_router.policy.route import Address, Route
    from aurora_router.runtime.connect_args import ConnectArgs

REPEATS = 3
"""How often a name that may be a load balancer's is dialled again."""
AT_ONCE = 8
"""How many instances are dialled at once."""
CONNECT_SECONDS = 5.0
"""How long the driver's own connect may look for an instance."""
_NO_NAMES = frozenset({EndpointKind.IP, EndpointKind.SOCKET})


def gather(conninfo: str, application: Application) -> Facts:
    """Find out all that can be found out from here. Harmless: it connects, asks, and changes nothing."""
    setup, args = read_setup(conninfo, application)
    facts = Facts(now=time.time(), setup=setup)
    if args is None:
        return facts
    named = [each.host for each in args.request.given if each.host and each.hostaddr is None]
    given_names = [each for each in named if _is_name(each)]
    names = tuple(_look_up(args, host) for host in dict.fromkeys([*given_names, *_siblings(given_names)]))
    route = _find_route(args)
    facts = replace(facts, names=names, setup=replace(setup, route=route))
    if route is None:
        return facts
    return replace(_dial_all(facts, args, route), connected=_connect(conninfo, args))


def _is_name(host: str) -> bool:
    return parse_endpoint(host).kind not in _NO_NAMES


def _siblings(hosts: Sequence[str]) -> list[str]:
    """The cluster endpoint of a reader endpoint, and the other way round: a failover looks there as well."""
    return [other for host in hosts if (other := parse_endpoint(host).sibling) is not None]


def _look_up(args: ConnectArgs, host: str) -> Name:
    options = args.request.options
    server = None if options.dns is None else (options.dns.host, options.dns.port or 53)
    return look_up(host, server, options.dns_timeout)


def _find_route(args: ConnectArgs) -> Route | None:
    runtime: BlockingRuntime[Any] = BlockingRuntime(refuse_dial, args.names)
    try:
        return run(find_route(runtime, args.request))
    except AuroraRouterError:  # the name has no address, which `Name` shows
        return None


def _targets(args: ConnectArgs, route: Route, address: Address) -> list[Target]:
    """Where a given host leads: a target for each address."""
    name = str(address)
    if address.hostaddr is not None:
        return [Target(name, address.host, address.port, (address.hostaddr,))]
    if address.host is None or parse_endpoint(address.host).kind is EndpointKind.SOCKET:
        return [Target(name, address.host, address.port)]
    try:
        found = args.names.resolve(address.host).addresses
    except DialFailed:
        return []
    host = given_host(args.request, route, address)
    return [Target(name, host, address.port, (each,)) for each in found]


def _dial_all(facts: Facts, args: ConnectArgs, route: Route) -> Facts:
    targets = [target for each in args.request.given for target in _targets(args, route, each)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        dialled = list(pool.map(lambda each: dial(args, each, asks=True), targets))
        facts = replace(facts, given=_keep_reached(dialled))
        main = next((each for each in dialled if each.topology is not None), None)
        if main is None:
            return facts
        facts = replace(facts, topology=_topology(main, args, facts.now), commits=_commits(dialled))
        if not route.direct and targets[0].addresses:
            again = [where_it_leads(args, targets[0]) for _ in range(REPEATS)]
            facts = replace(facts, repeats=tuple(each for each in again if each is not None))
        if main.answer is None or route.mode in {Mode.THROUGH, Mode.LIST}:
            return facts
        located = {each.id: locate(Instance(each.id), route, args.request.options) for each in main.answer.rows}
        unlocated = tuple(id_ for id_, address in located.items() if address is None)
        known = [(id_, address) for id_, address in located.items() if address is not None]
        found = list(pool.map(lambda each: _dial_instance(args, *each), known))
    instances = tuple(server for server, _, _ in found)
    names = tuple(name for _, name, _ in found if name is not None and name.error is not None)
    commits = facts.commits or _commits([each for _, _, each in found if each is not None])
    return replace(facts, instances=instances, unlocated=unlocated, commits=commits, names=(*facts.names, *names))


def _keep_reached(dialled: Sequence[Dialled]) -> tuple[Server, ...]:
    """All that was dialled, without an address of a name beside another one that answers: libpq goes on to the next."""
    answers = {each.server.name for each in dialled if each.server.session is not None}
    return tuple(each.server for each in dialled if each.server.session is not None or each.server.name not in answers)


def _commits(dialled: Sequence[Dialled]) -> Any:
    return next((each.commits for each in dialled if each.commits is not None), None)


def _topology(main: Dialled, args: ConnectArgs, now: float) -> Topology | None:
    if main.topology is None or main.answer is None:
        return main.topology
    zones = dict(args.request.options.zone_map)
    members = (
        Member(
            each.id,
            each.writer,
            each.lag,
            each.zone or zones.get(each.id),
            None if each.updated is None else each.updated - now,
        )
        for each in main.answer.rows
    )
    return replace(main.topology, members=tuple(members))


def _dial_instance(args: ConnectArgs, id_: str, address: Address) -> tuple[Server, Name | None, Dialled | None]:
    host, port = address.host, address.port
    if host is None or not _is_name(host):
        addresses = (host,) if host is not None and parse_endpoint(host).kind is EndpointKind.IP else ()
        found = dial(args, Target(id_, host, port, addresses), instance=id_)
        return found.server, None, found
    name = _look_up(args, host)
    if not name.addresses:
        return Server(name=id_, host=host, port=port or 5432, instance=id_), name, None
    found = dial(args, Target(id_, host, port, name.addresses[:1]), instance=id_)
    return found.server, name, found


def _connect(conninfo: str, args: ConnectArgs) -> Connected:
    """Connect as the application does."""
    seconds = min(args.request.options.failover_timeout, CONNECT_SECONDS)
    try:
        with connect(conninfo, aurora_failover_timeout=seconds) as connection:
            placement = connection.placement
            return Connected(instance=placement.instance, role=placement.role.value, reason=placement.reason)
    except (psycopg.Error, AuroraRouterError, OSError) as failed:
        return Connected(error=Failure(getattr(failed, "sqlstate", None), str(failed)))
