"""The cluster as it is seen from here: rights, roles, places, lag, clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.doctor.finding import Check, error, join_short, warning
from aurora_router.model.endpoint import EndpointKind, WantedRole, parse_endpoint
from aurora_router.policy.options import OWN_ZONE
from aurora_router.policy.route import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts
    from aurora_router.doctor.finding import Problem

SKEW_SECONDS = 5.0
"""Clocks that differ by less do no harm."""


def _find_rights(facts: Facts) -> Iterator[Problem]:
    topology = facts.topology
    if topology is None or topology.refusal is None:
        return
    yield error(
        f"the topology may not be read: {topology.refusal.text}",
        "The driver cannot know the instances: connections go through the given name, failovers are found by DNS.",
        f"{topology.grant}.",
    )


def _find_instance_hosts(facts: Facts) -> Iterator[Problem]:
    route, topology, options = facts.setup.route, facts.topology, facts.setup.options
    if route is None or options is None or topology is None or not topology.members:
        return
    if route.mode is Mode.LIST:
        yield warning(
            "the hosts of a list are instances of Aurora",
            "A list is asked host by host: instances that are added later are not found, those removed stay in it.",
            "Give the cluster endpoint as the only host.",
        )
    elif facts.unlocated and options.instance_host is not None:
        yield error(
            f"aurora_instance_host says nothing of {join_short(facts.unlocated)}",
            "They are not used, and after a failover to one of them the writer is not found.",
            f"Add {','.join(f'{each}=HOST:PORT' for each in facts.unlocated)} to aurora_instance_host.",
        )
    elif facts.unlocated and route.mode is Mode.NAME and route.endpoint.kind is not EndpointKind.CLUSTER_CUSTOM:
        by_alias = any(each.aliases for each in facts.names)
        if not by_alias:  # the check `alias` says what to do
            yield warning(
                f"it is not known where the instances {join_short(facts.unlocated)} of the cluster are dialled",
                "Each connection goes through the given name: no instance is chosen, and a failover is found only when "
                "that name leads to the new writer.",
                "Give the cluster endpoint as host, or set aurora_instance_host, e.g. "
                f"aurora_instance_host={facts.unlocated[0]}=HOST:PORT,… or a template with {{id}}.",
            )


def _find_swapped(facts: Facts) -> Iterator[Problem]:
    wrong = [
        f"{each.instance} leads to {each.session.instance}"
        for each in facts.instances
        if each.session and each.session.instance and each.session.instance != each.instance
    ]
    if wrong:
        yield error(
            f"names of instances lead to other instances: {join_short(wrong)}",
            "The driver checks the role and refuses them, so connects fail or take long, and lag, balance and hang "
            "detection count for the wrong instance.",
            "Correct aurora_instance_host, or the records of these names.",
        )


def _find_stale(facts: Facts) -> Iterator[Problem]:
    """A cluster endpoint that leads to a reader, or a reader endpoint that leads to the writer beside readers."""
    topology = facts.topology
    if topology is None or facts.setup.request is None or len(facts.setup.request.given) > 1:
        return
    for each in facts.given:
        if each.session is None or each.session.instance is None or each.host is None or facts.setup.route is None:
            continue
        kind, there = parse_endpoint(each.host).kind, each.session.instance
        kind = facts.setup.route.endpoint.kind if kind is EndpointKind.OTHER else kind
        has_readers = any(not member.writer for member in topology.members)
        if kind is EndpointKind.CLUSTER and each.session.standby:
            yield warning(
                f"{each.name} leads to {there}, a reader; the writer is {topology.writer or 'not known'}",
                "The record of the cluster endpoint is stale, or not the writer's. The driver goes on to the writer "
                "by the topology; other clients write to a reader, which refuses it.",
                "Wait some seconds and repeat; if it stays so, flush caching name servers, and correct the record.",
            )
        if kind is EndpointKind.CLUSTER_READER and not each.session.standby and has_readers:
            yield warning(
                f"{each.name} leads to {there}, the writer, although there are readers",
                "The record of the reader endpoint is stale: other clients read from the writer.",
                "Wait some seconds and repeat; if it stays so, flush caching name servers, and correct the record.",
            )


def _find_roles(facts: Facts) -> Iterator[Problem]:
    route, options = facts.setup.route, facts.setup.options
    sessions = [session for _, session in facts.sessions]
    if route is None or options is None or not sessions or route.mode is Mode.THROUGH:
        return
    has_writer = any(not each.standby for each in sessions)
    has_reader = any(each.standby for each in sessions) or any(
        not each.writer for each in (facts.topology.members if facts.topology else ())
    )
    if route.role is WantedRole.WRITER and not has_writer and len(facts.ends) < 2:  # else it may be reached next time
        yield error(
            "the writer is wanted, and only readers are reached",
            "Connects wait for a writer until aurora_failover_timeout, and fail.",
            "Give the host of the primary, or the cluster endpoint; for reads set aurora_role=reader.",
        )
    if route.role is WantedRole.READER and not has_reader and options.reader_fallback.value == "error":
        yield error(
            "a reader is wanted, there is none, and aurora_reader_fallback=error",
            "Connects wait for a reader until aurora_failover_timeout, and fail.",
            "Add a reader, or remove aurora_reader_fallback=error.",
        )
    elif route.role is WantedRole.READER and not has_reader:
        yield warning(
            "a reader is wanted, and there is none",
            "Reads go to the writer.",
            "Add a reader, or remove the wish for one.",
        )


def _find_unknown_ids(facts: Facts) -> Iterator[Problem]:
    topology, options = facts.topology, facts.setup.options
    if topology is None or options is None or not topology.members:
        return
    known = {each.id for each in topology.members}
    if options.instance is not None and options.instance.lower() not in known:
        yield error(
            f"aurora_instance={options.instance}: the cluster has no such instance",
            "Connects fail.",
            f"The instances are {join_short(sorted(known))}.",
        )
    for name, pairs in (("aurora_weights", options.weights), ("aurora_zone_map", options.zone_map)):
        unknown = [id_ for id_, _ in pairs if id_.lower() not in known]
        if unknown:
            yield warning(
                f"{name} names {join_short(unknown)}, which the cluster does not have",
                "That part of the option has no effect.",
                f"The instances are {join_short(sorted(known))}.",
            )


def _find_zones(facts: Facts) -> Iterator[Problem]:
    topology, options = facts.topology, facts.setup.options
    if topology is None or options is None or not topology.members or options.attributes is not None:
        return
    wanted = {zone for tier in options.zones for zone in tier} - {OWN_ZONE}
    zones = {each.zone for each in topology.members if each.zone is not None}
    if wanted and not zones:
        yield warning(
            f"aurora_zones prefers {join_short(sorted(wanted))}, and the zone of no instance is known",
            "The option has no effect: SQL does not report zones.",
            "Set aurora_attributes=rds, or aurora_zone_map.",
        )
    elif wanted - zones:
        yield warning(
            f"aurora_zones prefers {join_short(sorted(wanted - zones))}, where no instance is",
            "That part of the option has no effect.",
            f"The instances are in {join_short(sorted(zones))}.",
        )


def _find_lag(facts: Facts) -> Iterator[Problem]:
    options, topology = facts.setup.options, facts.topology
    if options is None or topology is None or options.max_lag is None:
        return
    late = [
        each for each in topology.members if not each.writer and each.lag is not None and each.lag > options.max_lag
    ]
    readers = [each for each in topology.members if not each.writer]
    if late and len(late) == len(readers):
        yield warning(
            f"every reader lags by more than aurora_max_lag={options.max_lag:g} s: "
            f"{join_short(f'{each.id} {each.lag:g} s' for each in late)}",
            "Reads go to the writer (or fail, with aurora_reader_fallback=error).",
            "Find what holds the readers up (`SELECT * FROM aurora_replica_status()`), or raise aurora_max_lag.",
        )


def _find_skew(facts: Facts) -> Iterator[Problem]:
    offsets: dict[str, float] = {}
    for server, session in facts.sessions:
        name = session.instance or server.name
        offsets[name] = max(session.clock, offsets.get(name, 0.0), key=abs)
    for each in facts.topology.members if facts.topology else ():
        if each.ahead is not None and each.ahead > SKEW_SECONDS:  # one that is behind may be an old row
            offsets[each.id] = each.ahead
    offsets = {name: offset for name, offset in offsets.items() if abs(offset) > SKEW_SECONDS}
    if offsets:
        yield warning(
            f"clocks differ from ours: {join_short(f'{name} {offset:+.0f} s' for name, offset in offsets.items())}",
            "Times in logs cannot be compared, and IAM tokens of a clock that is wrong by minutes are rejected. The "
            "driver compares no two clocks.",
            "Synchronise the clock of this host (chronyc tracking; on AWS 169.254.169.123), or of the server.",
        )


def _find_systems(facts: Facts) -> Iterator[Problem]:
    systems = {server.name: session.system for server, session in facts.sessions if session.system is not None}
    if len(set(systems.values())) > 1:
        yield error(
            f"the hosts are of different systems: {join_short(systems)}",
            "A connect may reach the other database: a writer of another system is accepted when the first is lost.",
            "Remove what is no copy of the same database from the list of hosts.",
        )


def _find_no_target(facts: Facts) -> Iterator[Problem]:
    topology = facts.topology
    if topology is not None and topology.is_aurora and len(topology.members) == 1:
        yield warning(
            "the cluster has one instance",
            "When it fails, a new one has to be created, which takes about ten minutes.",
            "Add a reader in another zone.",
        )


CHECKS = (
    Check("topology-rights", "rights to read the topology", _find_rights),
    Check("instance-hosts", "instances of which it is not known where they are dialled", _find_instance_hosts),
    Check("swapped", "names of instances that lead to other ones", _find_swapped),
    Check("stale-record", "endpoints that lead to an instance of the other role", _find_stale),
    Check("roles", "a role that no instance has", _find_roles),
    Check("unknown-instance", "options that name instances which are not there", _find_unknown_ids),
    Check("zones", "zones in which no instance is", _find_zones),
    Check("lag", "readers that are all beyond the lag bound", _find_lag),
    Check("clock", f"clocks that differ by more than {SKEW_SECONDS:g} s", _find_skew),
    Check("different-systems", "lists of hosts that are no copies of one database", _find_systems),
    Check("no-failover-target", "clusters without a reader", _find_no_target),
)
