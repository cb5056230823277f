"""How a request will be routed: decided from names and options alone, before anything is dialled.

==========  =======================================================================================
mode        what it does
==========  =======================================================================================
INSTANCES   chooses an instance by the topology and dials it by its own name
PINNED      dials the one instance that the name means
NAME        dials the given name, uses the topology to check the role alone
LIST        the hosts given are the instances (plain PostgreSQL)
THROUGH     hands the name to libpq and looks at nothing (proxies do their own routing)
==========  =======================================================================================
"""

from __future__ import annotations

import enum
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from aurora_router.errors import InvalidOption, MalformedHost
from aurora_router.frozen import frozen
from aurora_router.model.endpoint import (
    Endpoint,
    EndpointKind,
    WantedRole,
    default_role,
    instance_host,
    parse_endpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.model.instance import Instance
    from aurora_router.policy.options import Options


class Mode(enum.Enum):
    """How a connection finds its instance; the value is for people."""

    INSTANCES = "an instance chosen by the topology, dialled by its own name"
    PINNED = "the instance that the name means"
    NAME = "the given name, its role checked"
    LIST = "the hosts given, as instances"
    THROUGH = "the given name, as it is"


CHOOSING = frozenset({Mode.INSTANCES, Mode.LIST})
"""Where one of several instances may serve."""


@frozen
class Address:
    """A host and a port as given; None leaves it to libpq. `hostaddr`: the address to dial, if named as well."""

    host: str | None
    port: int | None
    hostaddr: str | None = None

    def __str__(self) -> str:
        """Where this leads, in one spelling: an instance that is named by its address has one id."""
        host = _spell(self.host or self.hostaddr or "") or "local socket"
        return host if self.port is None else f"{host}:{self.port}"


def _spell(host: str) -> str:
    """A host in the spelling of `Endpoint.host`; one that can't be read stays as it is."""
    try:
        return parse_endpoint(host).host
    except MalformedHost:
        return host


@frozen(eq=False)
class Request:
    """What a user asks for, once all ways of saying it are read.

    Equal to itself alone: the same call is read once and gives the same request, so hashing one costs nothing.

    Attributes:
        given: hosts in the order given; at least one.
        options: ours.
        verifies_name: whether libpq will verify the host's name (``sslmode=verify-full``).
        refuses_primary: whether, as by libpq's ``target_session_attrs=standby``, a cluster of primaries alone is
            refused at once, and not waited for.
        database: the database, by which a pooler may route; "" leaves it to libpq.
        wanted: whether the connection is still wanted; None: it is, until the time is over.
        managed: whether the hosts given are some members of a cluster whose manager lists the others.
        is_urgent: whether the outcome of a commit depends on it: a slow start's pauses do not use up all of its time.
    """

    given: tuple[Address, ...]
    options: Options
    verifies_name: bool = False
    refuses_primary: bool = False
    database: str = ""
    wanted: Callable[[], bool] | None = None
    managed: bool = False
    is_urgent: bool = False

    @property
    def first(self) -> Address:
        """The first host given, most often the only one."""
        return self.given[0]

    @property
    def hostaddr(self) -> str | None:
        """The address that the user gave, of a single host."""
        return self.first.hostaddr


@frozen(eq=False)
class Route:
    """The decision, with its reasons. Equal to itself alone, like the `Request` that it is for.

    Attributes:
        mode: how the instance is found.
        role: which instances may serve.
        endpoint: the (first) given host, read; for a name of one's own, what its CNAME led to where that counts.
        port: the port of the instances, None leaves it to libpq.
        domain: what follows ``{id}.`` in an instance's name, None when unknown.
        reasons: why, one sentence each.
        direct: whether what is dialled are Aurora's own names, which lead straight to instances; see `policy.paths`.
        custom_endpoint: the name of the custom endpoint whose members alone may serve; None: there is none, or it is
            dialled.
    """

    mode: Mode
    role: WantedRole
    endpoint: Endpoint
    port: int | None
    domain: str | None
    reasons: tuple[str, ...]
    direct: bool = False
    custom_endpoint: str | None = None

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return "; ".join(self.reasons)


_PASSED = frozenset({EndpointKind.PROXY, EndpointKind.PROXY_ENDPOINT, EndpointKind.SHARD_GROUP})
_OWN = frozenset({EndpointKind.OTHER, EndpointKind.GLOBAL})


@lru_cache(maxsize=256)
def leads_elsewhere(request: Request) -> bool:
    """Whether the given name may be an alias, so that it is worth to follow its CNAMEs before routing."""
    if len(request.given) > 1 or request.managed or request.hostaddr is not None:
        return False
    kind = parse_endpoint(request.first.host or "").kind
    return kind in _OWN and (request.options.trust_cname or not request.verifies_name)


@lru_cache(maxsize=256)
def route(request: Request, canonical: str | None = None) -> Route:
    """Decide how a request is routed.

    Args:
        request: what was asked for.
        canonical: the name at the end of the CNAMEs of the given one, where `leads_elsewhere`.
    """
    first = request.first
    endpoint = parse_endpoint(first.host or first.hostaddr or "")
    reasons = [f"{first} is {endpoint.kind.described}"]
    if canonical is not None and canonical != endpoint.host:
        endpoint = replace(parse_endpoint(canonical), given=endpoint.given)
        reasons.append(f"it is an alias of {canonical}, {endpoint.kind.described}")
    role = _role(request, endpoint, reasons)
    mode, domain = _mode(request, endpoint, reasons)
    direct = domain is not None and request.hostaddr is None and request.options.instance_host is None
    custom = endpoint.label if mode is Mode.INSTANCES and endpoint.kind is EndpointKind.CLUSTER_CUSTOM else None
    return Route(mode, role, endpoint, first.port, domain, tuple(reasons), direct, custom)


def _role(request: Request, endpoint: Endpoint, reasons: list[str]) -> WantedRole:
    if request.options.instance is not None:
        return WantedRole.ANY
    if request.options.role is not None:
        reasons.append(f"aurora_role={request.options.role.value} is given")
        return request.options.role
    role = default_role(endpoint.kind)
    reasons.append(f"such a name gives the role {role.value}")
    return role


def _mode(request: Request, endpoint: Endpoint, reasons: list[str]) -> tuple[Mode, str | None]:
    if request.options.instance is not None:
        reasons.append("aurora_instance is given")
        return Mode.PINNED, _domain_of_instances(request, endpoint)
    if request.managed or len(request.given) > 1:
        managed = "the hosts given are members of a cluster whose manager lists the others"
        reasons.append(managed if request.managed else "several hosts are given: they are the instances")
        return Mode.LIST, None
    if endpoint.kind in _PASSED:
        reasons.append("it does its own routing")
        return Mode.THROUGH, None
    is_custom = endpoint.kind is EndpointKind.CLUSTER_CUSTOM
    if is_custom and request.options.attributes is not None and request.hostaddr is None:
        reasons.append("its members are known by aurora_attributes, or else to DNS")
        return Mode.INSTANCES, endpoint.domain if request.options.instance_host is None else None
    if is_custom:
        reasons.append("its members are known to DNS alone")
        return Mode.NAME, endpoint.domain
    if request.options.instance_host is not None:
        reasons.append("aurora_instance_host says where the instances are")
        return Mode.INSTANCES, None
    if request.hostaddr is not None:
        reasons.append("hostaddr is given: that address, and no other, is dialled")
        return Mode.NAME, None
    if endpoint.kind is EndpointKind.INSTANCE and request.options.role is None:
        reasons.append("no aurora_role is given")
        return Mode.PINNED, endpoint.domain
    if endpoint.domain is not None:
        reasons.append(f"instances are named {{id}}.{endpoint.domain}")
        return Mode.INSTANCES, endpoint.domain
    reasons.append("it is not known how its instances are named (aurora_instance_host would say it)")
    return Mode.NAME, None


def _domain_of_instances(request: Request, endpoint: Endpoint) -> str | None:
    """Where the one instance that is asked for will be looked for; None: `Options.instance_host` says it."""
    if request.options.instance_host is not None:
        return None
    if len(request.given) > 1 or request.hostaddr is not None or endpoint.domain is None or endpoint.kind in _PASSED:
        raise InvalidOption(
            f"aurora_instance={request.options.instance!r}: it is not known where the instances of {endpoint.host!r} "
            "are; give the cluster's own endpoint as the only host, or aurora_instance_host"
        )
    return endpoint.domain


def locate(instance: Instance, route: Route, options: Options) -> Address | None:
    """Where an instance is dialled; None when it is not known.

    Raises:
        MalformedHost: the id that the server reported cannot be a name within the domain.
    """
    if options.instance_host is not None:
        found = options.instance_host.locate(instance.id)
        return Address(found[0], found[1] or route.port) if found is not None else None
    if instance.host is not None:
        return Address(instance.host, instance.port or route.port)
    if route.domain is not None:
        return Address(instance_host(route.domain, instance.id), route.port)
    return None


def find(instance: Instance, route: Route, request: Request) -> Address | None:
    """Where an instance is dialled, also where it is known by the host that was given; None: it is not known.

    A server that reports itself alone has no id but the host it was reached by, and a name that can be no host leads
    nowhere.
    """
    if route.mode is Mode.LIST or route.mode is Mode.NAME:
        given = next((each for each in request.given if str(each) == instance.id), None)
        if given is not None:
            host = given_host(request, route, given)
            return given if host == given.host else replace(given, host=host)
    try:
        return locate(instance, route, request.options)
    except MalformedHost:
        return None


def given_host(request: Request, chosen: Route, address: Address) -> str | None:
    """The host by which a given name is dialled; for an alias whose target is trusted, the name in the certificate."""
    trusted = request.verifies_name and request.options.trust_cname and len(request.given) == 1
    return chosen.endpoint.host if trusted else address.host


class Identity(NamedTuple):
    """What distinguishes a cluster from others, as far as names can.

    Attributes:
        scope: within which instance ids are unique: the domain or the template of the instances, with the port; or one
            name that says nothing about its instances.
        name: what the user named within it.
        sort: what kind of name that is; `CLUSTER` and `PINNED` are names of the cluster itself.
        detail: for a name that says nothing about its instances: the address and the database that were given with it.
    """

    scope: str
    name: str
    sort: str
    detail: str = ""

    @property
    def is_certain(self) -> bool:
        """Whether the name is the cluster's own: two different ones never are of one cluster."""
        return self.sort in {CLUSTER, PINNED}


CLUSTER = "cluster"
"""The label of a cluster endpoint or a reader endpoint."""
PINNED = "aurora_cluster"
"""The name that the user gave by that option."""


@lru_cache(maxsize=256)
def identity(request: Request, chosen: Route) -> Identity:
    """What distinguishes this cluster from others, as far as names can.

    The system identifier is no part of it (clones share it), and instance ids never are (two clusters may use the same
    ones behind tunnels). Where the name is none of Aurora's it may be a pooler's, which routes by the database, so that
    is a part of it.
    """
    label, endpoint, address = request.options.cluster, chosen.endpoint, request.first
    whole = endpoint.domain is not None and endpoint.kind in {EndpointKind.CLUSTER, EndpointKind.CLUSTER_READER}
    dialled = _spell(address.hostaddr or "")
    host, detail = endpoint.host or dialled or "local socket", f"{dialled} {request.database}"
    hosts = request.options.instance_host
    if hosts is not None:
        scope = f"at {hosts.identity} {chosen.port}" + (f" in {endpoint.domain}" if whole else "")
    elif chosen.mode is Mode.LIST:
        host = ",".join(sorted(map(str, request.given)))
        scope = f"list {host} {request.database}"
    elif chosen.domain is not None and address.hostaddr is None:
        scope = f"in {chosen.domain} {chosen.port}"
        host, detail = endpoint.label or "", ""
    else:
        scope, whole = f"name {host} {chosen.port} {detail}", False
    if label is not None:
        return Identity(scope, label, PINNED)
    if whole:
        return Identity(scope, endpoint.label or "", CLUSTER)
    return Identity(scope, host, endpoint.kind.name.lower(), detail)
