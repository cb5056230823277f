"""Names: whether they resolve, for how long answers hold, and where aliases lead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aurora_router.doctor.finding import Check, error, join_short, warning
from aurora_router.model.endpoint import EndpointKind, parse_endpoint
from aurora_router.policy.route import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts, Name
    from aurora_router.doctor.finding import Problem

LONGEST_TTL = 60
"""Seconds; Aurora's own records have 5."""
_WRITES, _READS = (
    r"(?i)(^|[.-])(rw|writer|write|primary|master)([.-]|$)",
    r"(?i)(^|[.-])(ro|reader|read|replica)([.-]|$)",
)


def _given_names(facts: Facts) -> list[Name]:
    request = facts.setup.request
    hosts = {each.host for each in request.given} if request is not None else set()
    return [each for each in facts.names if each.host in hosts]


def _find_unresolved(facts: Facts) -> Iterator[Problem]:
    given = _given_names(facts)
    for each in facts.names:
        if each.error is None or each.is_silent:
            continue
        if each not in given and any(other.error is not None for other in given):
            continue  # derived from a name that is reported
        instance = "" if each in given else " (a name that the driver derives from what was given)"
        make = error if each in given else warning
        yield make(
            f"{each.host} has no address{instance}: {each.error}",
            "It cannot be dialled by this name.",
            "Check the spelling, the region and the VPC's DNS (enableDnsHostnames, private hosted zones); "
            f"`dig {each.host}` from this host shows what DNS says.",
        )


def _find_silence(facts: Facts) -> Iterator[Problem]:
    silent = [each.host for each in facts.names if each.is_silent]
    options = facts.setup.options
    if silent and options is not None:
        asked = "the name servers of resolv.conf" if options.dns is None else f"aurora_dns={options.dns}"
        resolved = any(each.addresses for each in facts.names if each.host in silent)
        make = warning if resolved else error
        yield make(
            f"{asked} did not answer for {join_short(silent)}",
            "Each new connect waits for them, and new addresses are not learned.",
            "Correct aurora_dns or /etc/resolv.conf, and permit UDP and TCP port 53 to them.",
        )


def _find_long_lives(facts: Facts) -> Iterator[Problem]:
    for each in facts.names:
        for name, ttl in ((each.host, each.ttl or 0), *((alias.name, alias.ttl) for alias in each.aliases)):
            if ttl > LONGEST_TTL:
                yield warning(
                    f"the record of {name} holds for {ttl} s",
                    "After a failover, or when the record is changed, caches lead to the former instance for so long. "
                    "Aurora's own records hold for 5 s.",
                    f"Set the time to live of {name} to 5..{LONGEST_TTL} s.",
                )
                break


def _find_pinned(facts: Facts) -> Iterator[Problem]:
    for each in _given_names(facts):
        if each.in_hosts_file and parse_endpoint(each.host).domain is not None:
            yield warning(
                f"/etc/hosts says that {each.host} is {join_short(each.addresses)}",
                "The address of an Aurora endpoint changes with each failover, and the entry does not.",
                f"Remove {each.host} from /etc/hosts.",
            )


def _find_alias(facts: Facts) -> Iterator[Problem]:
    setup, route = facts.setup, facts.setup.route
    if setup.request is None or route is None or len(setup.request.given) > 1:
        return
    for each in _given_names(facts):
        target = parse_endpoint(each.aliases[-1].target) if each.aliases else None
        if target is None or setup.kind is not EndpointKind.OTHER:
            continue
        is_followed = route.mode is not Mode.NAME
        if target.domain is not None and not is_followed and setup.options and setup.options.instance_host is None:
            yield warning(
                f"{each.host} is an alias of {target.host}, and is not followed",
                "Under sslmode=verify-full the name in the certificate would be one that only DNS vouches for. So each "
                "connect goes through the alias: no instance is chosen, and a failover is as slow as DNS.",
                f"Give {target.host} as the host, or set aurora_trust_cname=on if you trust your name servers.",
            )
        reads = target.kind is EndpointKind.CLUSTER_READER
        writes = target.kind is EndpointKind.CLUSTER
        if (reads and re.search(_WRITES, each.host)) or (writes and re.search(_READS, each.host)):
            yield warning(
                f"{each.host} is an alias of {target.host}, {target.kind.described}",
                "By its own name it should be the other endpoint: they seem to be swapped.",
                f"Let {each.host} be an alias of {target.sibling}.",
            )


CHECKS = (
    Check("unresolved", "names without an address", _find_unresolved),
    Check("name-server", "name servers that do not answer", _find_silence),
    Check("long-ttl", f"records that hold for more than {LONGEST_TTL} s", _find_long_lives),
    Check("hosts-file", "endpoints of Aurora in /etc/hosts", _find_pinned),
    Check("alias", "aliases that are not followed, or lead to the other endpoint", _find_alias),
)
