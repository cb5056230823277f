"""A host name, read: which kind of endpoint it is, of which cluster, in which domain.

Theory. Every name that Aurora gives out follows one grammar (documentation: "Amazon Aurora endpoints", "Endpoints
for Aurora global databases", "Working with RDS Proxy endpoints")::

    host   = label "." [kind] dom | name ".endpoint.proxy-" dom | name ".global-" xyz ".global.rds." suffix
    kind   = "cluster-" | "cluster-ro-" | "cluster-custom-" | "shardgrp-" | "proxy-"      (none: an instance)
    dom    = xyz "." region "." rds "." suffix          commercial, GovCloud, EU sovereign, older China
           | xyz "." rds "." region "." suffix          China, the isolated partitions, GovCloud too
    rds    = "rds" | "rds-fips"

so a name is read from its right end: suffix, order of region and service, then what is left. Whatever does not fit is
legal all the same (a name of one's own, an address, a socket) and only says less.

Invariants (property tests): parsing is total but for hosts that no resolver could take; `Endpoint.render` of what was
parsed is the canonical host; parsing a canonical host gives the same endpoint.
"""

from __future__ import annotations

import enum
import re
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from aurora_router.errors import MalformedHost, redact
from aurora_router.forks import IMPORTING
from aurora_router.frozen import frozen

MAX_HOST_LENGTH = 253
"""Longest host name in characters (RFC 1035, section 2.3.4, in its presentation form)."""
MAX_LABEL_LENGTH = 63
"""Longest part between two dots (RFC 1035, section 2.3.4)."""


class EndpointKind(enum.Enum):
    """What a host name is for; the value is how people call it."""

    CLUSTER = "cluster endpoint"
    CLUSTER_READER = "reader endpoint"
    CLUSTER_CUSTOM = "custom endpoint"
    INSTANCE = "instance endpoint"
    GLOBAL = "global endpoint"
    PROXY = "proxy"
    PROXY_ENDPOINT = "proxy endpoint"
    SHARD_GROUP = "shard group"
    IP = "IP address"
    SOCKET = "local socket"
    OTHER = "own name"

    @property
    def described(self) -> str:
        """The kind in a sentence: ``a cluster endpoint``, ``an IP address`` and so on."""
        if self is EndpointKind.OTHER:
            return "a name of one's own"
        return f"{'an' if self.value[0] in 'aeiouI' else 'a'} {self.value}"


class WantedRole(enum.Enum):
    """Which instances may serve a connection; the value is how the option ``aurora_role`` spells it."""

    WRITER = "writer"
    READER = "reader"
    PREFER_READER = "prefer-reader"
    ANY = "any"


@frozen
class Endpoint:
    """A host, as read by `parse_endpoint`.

    Attributes:
        given: the host as it was written.
        host: the canonical form: lower case (ASCII letters alone), no trailing dot; IPv6 compressed, no brackets.
        kind: what the name is for.
        label: the cluster's, instance's, custom endpoint's or proxy's own name; None when the name has none.
        domain: what follows ``{id}.`` in the name of an instance (``c9akciq32.us-east-1.rds.amazonaws.com``); None
            where the name does not say it.
        region: ``us-east-1``; None where the name does not say it (a global endpoint has none).
        partition: ``aws``, ``aws-cn`` …, ``test`` for ``aurora.test``; None outside of them.
        xyz: the part that the account and the region share in all of their names.
        blue_green: ``green`` for the new side of a blue/green deployment, ``old`` for the retired one.
    """

    given: str
    host: str
    kind: EndpointKind
    label: str | None = None
    domain: str | None = None
    region: str | None = None
    partition: str | None = None
    xyz: str | None = None
    blue_green: str | None = None

    def render(self) -> str:
        """The canonical host, put together again from the parts."""
        if self.kind is EndpointKind.GLOBAL:
            suffix = next(each.suffix for each in _PARTITIONS if each.name == self.partition)
            return f"{self.label}.global-{self.xyz}.global.rds.{suffix}"
        if self.domain is None:
            return self.host
        return f"{self.label}.{_PREFIX_OF[self.kind]}{self.domain}"

    @property
    def sibling(self) -> str | None:
        """The host of a cluster's reader endpoint, from its cluster endpoint, and the other way round; else None."""
        other = _SIBLINGS.get(self.kind)
        return None if other is None or self.domain is None else replace(self, kind=other).render()


def parse_endpoint(host: str) -> Endpoint:
    """Read a host.

    Args:
        host: a host name (any case, a trailing dot is allowed), an IPv4 or IPv6 address (brackets and a zone index
            are allowed), a socket directory (``/…``), an abstract socket (``@…``) or ``""`` (libpq's default socket).

    Raises:
        MalformedHost: no resolver could take it: an empty or too long label, a blank, a character that no host has,
            a port glued on.
    """
    return _parse(host)


@lru_cache(maxsize=256)
def _parse(host: str) -> Endpoint:
    """`parse_endpoint`, remembered: a process connects to few hosts, often."""
    if not host or host[0] in "/@":
        return _socket(host)
    refuse_url(host)
    _refuse_blanks(host)
    if ":" in host or host[0] == "[":
        return Endpoint(host, _ipv6(host), EndpointKind.IP)
    name = host.removesuffix(".").translate(_ASCII_LOWER)
    labels = _labels(host, name)
    if len(labels) > 1 and all(label.isdecimal() for label in labels):
        return Endpoint(host, _ipv4(host, name), EndpointKind.IP)
    return _global(host, name) or _regional(host, name) or Endpoint(host, name, EndpointKind.OTHER)


def default_role(kind: EndpointKind) -> WantedRole:
    """The role that a kind of endpoint gives when ``aurora_role`` is not set.

    An instance endpoint and a custom endpoint pin the instances, not the role; the name of a further proxy endpoint
    does not say whether it is a read-only one. All of these give `WantedRole.ANY`.
    """
    return _ROLE_OF.get(kind, WantedRole.WRITER)


@lru_cache(maxsize=256)
def instance_host(domain: str, instance: str) -> str:
    """The name of an instance's own endpoint.

    Args:
        domain: `Endpoint.domain`.
        instance: the instance's id, in any case (an id equals its name in DNS but for the case).

    Raises:
        MalformedHost: the id is not one DNS label. A server reports ids, so this keeps every name that is made of one
            within `domain`.
    """
    label = instance.translate(_ASCII_LOWER)
    if "." in label:
        raise MalformedHost(f"instance id {instance!r} is no DNS label: it contains a dot")
    _labels(instance, label)
    return f"{label}.{domain}"


# ---------------------------------------------------------------- tables

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

_KIND_OF = {
    "cluster-": EndpointKind.CLUSTER,
    "cluster-ro-": EndpointKind.CLUSTER_READER,
    "cluster-custom-": EndpointKind.CLUSTER_CUSTOM,
    "shardgrp-": EndpointKind.SHARD_GROUP,
    "proxy-": EndpointKind.PROXY,
    "endpoint.proxy-": EndpointKind.PROXY_ENDPOINT,
    "": EndpointKind.INSTANCE,
}
_PREFIX_OF = {kind: prefix for prefix, kind in _KIND_OF.items()}

_SIBLINGS = {
    EndpointKind.CLUSTER: EndpointKind.CLUSTER_READER,
    EndpointKind.CLUSTER_READER: EndpointKind.CLUSTER,
}

_ROLE_OF = {
    EndpointKind.CLUSTER_READER: WantedRole.READER,
    EndpointKind.CLUSTER_CUSTOM: WantedRole.ANY,
    EndpointKind.INSTANCE: WantedRole.ANY,
    EndpointKind.PROXY_ENDPOINT: WantedRole.ANY,
}

_REGION_FIRST = r"(?P<region>{region})\.(?:rds|rds-fips)"
_SERVICE_FIRST = r"(?:rds|rds-fips)\.(?P<region>{region})"
_HEAD = r"(?P<label>[^.]+)\.(?P<prefix>cluster-ro-|cluster-custom-|cluster-|shardgrp-|endpoint\.proxy-|proxy-|)"
_XYZ = r"(?P<xyz>[0-9a-z]+)"


class _Partition(NamedTuple):
    """A partition of AWS: its DNS suffix, the shape of its regions, the orders of region and service in use."""

    name: str
    suffix: str
    region: str
    orders: tuple[str, ...]


_PARTITIONS = (
    _Partition("aws", "amazonaws.com", r"(?!cn-)[a-z]{2}-[a-z]+-[0-9]+", (_REGION_FIRST,)),
    _Partition("aws-us-gov", "amazonaws.com", r"us-gov-[a-z]+-[0-9]+", (_REGION_FIRST, _SERVICE_FIRST)),
    _Partition("aws-cn", "amazonaws.com.cn", r"cn-[a-z]+-[0-9]+", (_SERVICE_FIRST, _REGION_FIRST)),
    _Partition("aws-eusc", "amazonaws.eu", r"eusc-de-[a-z]+-[0-9]+", (_REGION_FIRST,)),
    _Partition("aws-iso", "c2s.ic.gov", r"us-iso-[a-z]+-[0-9]+", (_SERVICE_FIRST,)),
    _Partition("aws-iso-b", "sc2s.sgov.gov", r"us-isob-[a-z]+-[0-9]+", (_SERVICE_FIRST,)),
    _Partition("aws-iso-e", "cloud.adc-e.uk", r"eu-isoe-[a-z]+-[0-9]+", (_SERVICE_FIRST,)),
    _Partition("aws-iso-f", "csp.hci.ic.gov", r"us-isof-[a-z]+-[0-9]+", (_SERVICE_FIRST,)),
    _Partition("test", "aurora.test", r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]+", (_REGION_FIRST, _SERVICE_FIRST)),
)


# ---------------------------------------------------------------- names of the grammar


def _regional(given: str, name: str) -> Endpoint | None:
    """`name` as an endpoint within a region; None when it is none."""
    for partition, rest in _within(name):
        for order in partition.orders:
            pattern = rf"{_HEAD}(?P<dom>{_XYZ}\.{order.format(region=partition.region)})"
            if found := re.fullmatch(pattern, rest):
                label = found["label"]
                return Endpoint(
                    given,
                    name,
                    _KIND_OF[found["prefix"]],
                    label,
                    f"{found['dom']}.{partition.suffix}",
                    found["region"],
                    partition.name,
                    found["xyz"],
                    _blue_green(label),
                )
    return None


def _global(given: str, name: str) -> Endpoint | None:
    """`name` as the endpoint of a global database; None when it is none."""
    for partition, rest in _within(name):
        if found := re.fullmatch(rf"(?P<label>[^.]+)\.global-{_XYZ}\.global\.rds", rest):
            return Endpoint(
                given,
                name,
                EndpointKind.GLOBAL,
                found["label"],
                partition=partition.name,
                xyz=found["xyz"],
                blue_green=_blue_green(found["label"]),
            )
    return None


def _within(name: str) -> list[tuple[_Partition, str]]:
    """The partitions that `name` can be of, with what stands before their suffix."""
    return [
        (partition, name[: -len(partition.suffix) - 1])
        for partition in _PARTITIONS
        if name.endswith("." + partition.suffix)
    ]


def _blue_green(label: str) -> str | None:
    if re.search(r".-green-[0-9a-z]{6}$", label):
        return "green"
    return "old" if re.search(r".-old[0-9]+$", label) else None


# ---------------------------------------------------------------- everything else


def _socket(host: str) -> Endpoint:
    if "\0" in host:
        raise MalformedHost(f"host {host!r} contains a NUL character: remove it")
    return Endpoint(host, host, EndpointKind.SOCKET)


AS_CONNINFO = (
    "pass a whole URL as the conninfo, the first argument; in a URL, percent-encode the special characters of user and "
    "password (@ as %40, / as %2F)"
)
"""What to do with a URL where a connect takes one."""


def refuse_url(host: str, advice: str = AS_CONNINFO) -> None:
    """Refuse a host that may hold a password, before it gets into messages and representations.

    Args:
        host: as it was given.
        advice: what to do with a URL.

    Raises:
        MalformedHost: it is a URL, a conninfo, or begins with a part of a password.
    """
    is_cut_off = re.match("//[^/]*:[^/]*@", host) is not None
    if is_cut_off or (host[:1] not in {"/", "@"} and ("://" in host or "@" in host or "=" in host)):
        raise MalformedHost(f"host {redact(host)} is no host name: {advice}")


def _refuse_blanks(host: str) -> None:
    for char in host:
        if char.isspace() or not char.isprintable():
            raise MalformedHost(f"host {host!r} contains the character {char!r}: remove blanks and control characters")
        if char == ",":
            raise MalformedHost(f"host {host!r} is a list: give one host here")


def _labels(given: str, name: str) -> list[str]:
    if len(name) > MAX_HOST_LENGTH:
        raise MalformedHost(f"host {given!r} has {len(name)} characters: DNS allows {MAX_HOST_LENGTH} at most")
    labels = name.split(".")
    for label in labels:
        if not label:
            raise MalformedHost(f"host {given!r} has an empty label (two dots, or one in front): remove the dot")
        if len(label) > MAX_LABEL_LENGTH:
            raise MalformedHost(f"label {label!r} of host {given!r} is longer than {MAX_LABEL_LENGTH} characters")
        if bad := re.search(r"[\x21-\x2c\x2f\x3a-\x40\x5b-\x5e`\x7b-\x7e]", label):
            raise MalformedHost(f"host {given!r} contains {bad[0]!r}, which no host name has")
    return labels


def _ipv4(given: str, name: str) -> str:
    with IMPORTING:
        from ipaddress import AddressValueError, IPv4Address  # noqa: PLC0415 - only for an address

    try:
        return str(IPv4Address(name))
    except AddressValueError:
        hint = "write four numbers of 0..255 without leading zeros"
        raise MalformedHost(f"host {given!r} looks like an IPv4 address but is none: {hint}") from None


def _ipv6(given: str) -> str:
    with IMPORTING:
        from ipaddress import AddressValueError, IPv6Address  # noqa: PLC0415 - only for an address

    if "/" in given:
        raise MalformedHost(f"host {given!r} is no host name: is it a whole URL?")
    if port := re.fullmatch(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[0-9]*)", given):
        raise MalformedHost(f"host {given!r} has a port glued on: pass {port['host']!r} as host, the port as port")
    bare = given[1:-1] if given[0] == "[" and given[-1] == "]" else given
    try:
        return str(IPv6Address(bare))
    except AddressValueError as error:
        raise MalformedHost(f"host {given!r} has a colon but is no IPv6 address ({error})") from None
