"""Where an instance is dialled: a template or a map turns its id into a host and a port.

Aurora reports ids, not addresses. Within Aurora's own domain the host follows from the id; behind an IP, a tunnel,
private DNS or a load balancer it does not, and the option ``aurora_instance_host`` says what it is:

- a template: ``{id}.db.internal``, ``db-{id}.internal:6432``;
- a map: ``demo-1=127.0.0.1:15432,demo-2=127.0.0.1:15433,demo-3=[::1]:15434``.

Invariant: two `InstanceHosts` have the same `identity` exactly when they locate every id alike, so it can distinguish
    clusters
that use the same ids.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from aurora_router.errors import MalformedHost
from aurora_router.frozen import frozen
from aurora_router.model.endpoint import EndpointKind, instance_host, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PORT = 65535
_PLACE = "{id}"


class HostPort(NamedTuple):
    """A host to dial; `port` None: the cluster's own."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


@frozen
class InstanceHosts:
    """Where instances are dialled; made by `parse_instance_hosts`.

    Attributes:
        template: the host with ``{id}`` in it, and the port; None when there is a map.
        table: host and port by id (lower case); empty when there is a template.
    """

    template: HostPort | None
    table: Mapping[str, HostPort]

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def identity(self) -> str:
        """The canonical spelling: what distinguishes a cluster from another one with the same ids."""
        if self.template is not None:
            return str(self.template)
        return ",".join(f"{id_}={place}" for id_, place in sorted(self.table.items()))

    def locate(self, instance: str) -> HostPort | None:
        """Host and port of an instance.

        Returns:
            None when the map does not have the instance, or when its id cannot be put into the template (the result
            would be no host name, or one in another domain).
        """
        if self.template is None:
            return self.table.get(instance.lower())
        try:
            label = instance_host("x", instance).removesuffix(".x")
            host = parse_endpoint(self.template.host.replace(_PLACE, label)).host
        except MalformedHost:
            return None
        return HostPort(host, self.template.port)


def parse_instance_hosts(text: str) -> InstanceHosts:
    """Read the value of ``aurora_instance_host``.

    Raises:
        ValueError: it is neither a template nor a map; the message says where it goes wrong.
    """
    text = text.strip()
    if "=" in text:
        return _map(text)
    if _PLACE not in text:
        raise ValueError(f"{text!r} has no {{id}} in it, so that every instance would be the same host")
    place = parse_host_port(text)
    return InstanceHosts(place, MappingProxyType({}))


def parse_host_port(text: str) -> HostPort:
    """Read ``host``, ``host:port`` or ``[IPv6]:port``; ``{id}`` may stand for a part of the host.

    Raises:
        ValueError: the host or the port is malformed.
    """
    if found := re.fullmatch(r"(\[[^\]]*\])(?::(.*))?", text):
        host, port = found[1], found[2]
    elif text.count(":") > 1 and not text.startswith("/"):
        raise ValueError(f"{text!r}: an IPv6 address belongs in brackets, like [::1]:5432")
    else:
        host, colon, after = text.rpartition(":")
        host, port = (host, after) if colon else (after, None)
    return HostPort(_host(host), None if port is None else _port(port))


def _host(host: str) -> str:
    if not host:
        raise ValueError("the host is missing")
    # {id} becomes a letter for the check: whatever else stands in braces is refused as a bad character.
    endpoint = parse_endpoint(host.replace(_PLACE, "x"))
    if _PLACE not in host:
        return endpoint.host
    if endpoint.kind is EndpointKind.SOCKET:
        return host
    return ".".join(_lower(label) for label in host.removesuffix(".").split("."))


def _lower(label: str) -> str:
    return _PLACE.join(part.lower() for part in label.split(_PLACE))


def _port(port: str) -> int:
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= MAX_PORT):
        raise ValueError(f"port {port!r} is no number of 1..{MAX_PORT}")
    return int(port)


def _map(text: str) -> InstanceHosts:
    table: dict[str, HostPort] = {}
    owner: dict[HostPort, str] = {}
    for entry in text.split(","):
        name, equals, place = (part.strip() for part in entry.partition("="))
        if not (name and equals and place):
            raise ValueError(f"the entry {entry.strip()!r} of the map is not id=host or id=host:port")
        if _PLACE in place:
            raise ValueError(f"the entry {entry.strip()!r} mixes a map with a template: use one of them")
        if name.lower() in table:
            raise ValueError(f"the instance {name!r} is in the map twice")
        located = parse_host_port(place)
        if located in owner:
            raise ValueError(f"{located} is given for both {owner[located]!r} and {name!r}")
        table[name.lower()] = located
        owner[located] = name
    return InstanceHosts(None, MappingProxyType(table))
