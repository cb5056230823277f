"""Reading a call of ``connect``: a conninfo and keywords in, a request for routing and the rest for libpq out."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict

from aurora_router.errors import InvalidOption
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.conninfo import split_conninfo
from aurora_router.policy.options import split
from aurora_router.policy.route import Address, Request
from aurora_router.runtime.dns import Names, names_for
from aurora_router.runtime.passfile import Parameters
from aurora_router.runtime.sources import BY_CHOICE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.flow.source import Source
    from aurora_router.policy.options import OutcomeWay

_SQLALCHEMY = re.compile(r"^postgresql\+aurora(_async)?:")
"""The URL of an engine is taken as well: what a person has at hand is what he pastes."""

_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "sslmode": "PGSSLMODE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
"""What libpq takes from the environment and routing has to know."""

_SESSION_ROLES = {
    "read-write": WantedRole.WRITER,
    "primary": WantedRole.WRITER,
    "read-only": WantedRole.READER,
    "standby": WantedRole.READER,
    "prefer-standby": WantedRole.PREFER_READER,
    "any": WantedRole.ANY,
}
"""libpq's target_session_attrs -> the role that it asks for."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of ``connect``, read.

    Attributes:
        request: what routing has to know.
        params: what is left for libpq: no host, no port, none of our options.
        ways: how commits can be asked for, by database; learned once for all who connect like this.
    """

    request: Request
    params: Mapping[str, Any]
    ways: dict[str, OutcomeWay] = field(default_factory=dict, compare=False)

    @property
    def sources(self) -> tuple[Source, ...]:
        """How to ask for the topology, in the order in which to try."""
        return BY_CHOICE[self.request.options.source]

    @property
    def names(self) -> Names:
        """How to resolve host names."""
        options = self.request.options
        server = None if options.dns is None else (options.dns.host, options.dns.port or 53)
        return names_for(server, options.dns_timeout)


def read_call(conninfo: str, keywords: Mapping[str, Any]) -> Call:
    """Read a call of ``connect``.

    Raises:
        InvalidOption: one of our options is unknown, malformed or contradicts another.
        MalformedHost: a host name that no resolver could take.
        psycopg.ProgrammingError: libpq does not understand the conninfo.
    """
    environment = tuple(os.environ.get(variable) for variable in _ENVIRONMENT.values())
    try:
        return _read(conninfo, tuple(sorted(keywords.items())), environment)
    except TypeError:
        return _read.__wrapped__(conninfo, tuple(keywords.items()), environment)


@lru_cache(maxsize=256)
def _read(conninfo: str, keywords: tuple[tuple[str, Any], ...], environment: tuple[str | None, ...]) -> Call:
    ours, rest = split_conninfo(_SQLALCHEMY.sub("postgresql:", conninfo))
    options, kept = split({**ours, **dict(keywords)})
    params = Parameters(conninfo_to_dict(rest, **cast("dict[str, Any]", kept)))
    for name, value in zip(_ENVIRONMENT, environment, strict=True):
        if value is not None and params.get(name) is None and "service" not in params:
            params[name] = value
    attributes = params.pop("target_session_attrs", None)
    if options.role is None and attributes is not None:
        options = replace(options, role=_session_role(str(attributes)))
    params.given = given = _addresses(params)
    verifies = params.get("sslmode") == "verify-full"
    return Call(Request(given, options, verifies_name=verifies), params)


def _session_role(attributes: str) -> WantedRole:
    try:
        return _SESSION_ROLES[attributes]
    except KeyError:
        known = ", ".join(_SESSION_ROLES)
        raise InvalidOption(f"target_session_attrs={attributes!r}: accepted are {known}") from None


def _addresses(params: dict[str, Any]) -> tuple[Address, ...]:
    """The hosts of a conninfo, taken out of `params`; lists as libpq reads them."""
    hosts, addresses, ports = (_listed(params.pop(key, None)) for key in ("host", "hostaddr", "port"))
    count = max(len(hosts), len(addresses), 1)
    if hosts and addresses and len(hosts) != len(addresses):
        raise psycopg.OperationalError(f"could not match {len(hosts)} host names with {len(addresses)} hostaddr values")
    if len(ports) > 1 and len(ports) != count:
        raise psycopg.OperationalError(f"could not match {len(ports)} port numbers to {count} hosts")
    ports = ports * count if len(ports) == 1 else ports
    return tuple(Address(_at(hosts, index), _port(_at(ports, index)), _at(addresses, index)) for index in range(count))


def _listed(value: object) -> list[str]:
    return [] if value is None or value == "" else str(value).split(",")


def _at(values: list[str], index: int) -> str | None:
    return values[index] or None if values else None


def _port(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.strip().isdecimal() or not 0 < int(value) < 65536:
        raise psycopg.OperationalError(f'invalid port number: "{value}"')
    return int(value)
