"""Credentials that are asked for at each dial: tokens, secrets that rotate, passwords of a vault.

Pass a callable to ``connect``, `Router`, a pool's ``kwargs``, SQLAlchemy's ``connect_args`` or Django's ``OPTIONS``::

    def credentials(login: Login) -> Credential:
        token = vault.token_for(login.host, login.user)
        return Credential(token.text, expires_at=token.expires_at)

    aurora_router.connect(url, credentials=credentials)

The callable may be a coroutine function. Users, the monitor and the resolver of commit outcomes ask it alike, from any
thread and any event loop. What it returns decides how long it counts: a text for this one dial; a `Credential` until it
expires, or until the server rejects it. One that expires is renewed in the background when four fifths of its time are
over, or at its `Credential.renew_at`, also while nothing connects. Where the server rejects a cached one (SQLSTATE
28P01 or 28000), the callable is asked again, and if it returns another one the dial is repeated with that.

``aurora_credentials=NAME`` takes a provider from the entry points of the group ``aurora_router.credentials``. A
provider may have more than a call; each of these is optional:

- ``requires_tls = True``: an unset ``sslmode`` becomes ``require``, and one that does without TLS is refused.
- ``scope(login) -> Login``: what of a login matters to this provider. Logins with an equal scope share a credential,
  and the provider is asked for the scope. It must not block or raise.
- ``stand_in(login, rejected) -> Credential | None``: what to try once where the server rejected a credential that the
  provider had just given. One that the server accepts is kept until it expires. It may be a coroutine function.
- ``from_options(options) -> Provider`` and ``options``, a set of names: the entry point makes its provider from these
  options of the connection (name without ``aurora_`` -> value), as far as they are given. They are of this library.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aurora_router.errors import MalformedHost
from aurora_router.frozen import frozen
from aurora_router.model.endpoint import EndpointKind, instance_host, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aurora_router.model.endpoint import Endpoint

GROUP = "aurora_router.credentials"
"""The group of entry points: name -> a provider."""


class Login(NamedTuple):
    """What a credential is wanted for.

    Attributes:
        host: the name of the instance or endpoint that is dialled; None: a local socket.
        port: the port there.
        user: the user that was named; None: none was, so the system's user counts, or what the provider says.
        database: the database that was named.
        instance: the id of the instance that is dialled; None where it is not known yet.
    """

    host: str | None
    port: int
    user: str | None
    database: str | None
    instance: str | None = None


@frozen
class Credential:
    """A password, or a token that is used as one.

    Attributes:
        password: the secret; no repr shows it.
        user: the user that it belongs to; None: the one that was named.
        expires_at: when it ends, in seconds since 1970 as by `time.time`; None: it does not, until it is rejected.
        renew_at: when to ask for the next one in the background, in the same way; this one counts meanwhile, also if
            the provider fails. None: when four fifths of its time are over.
    """

    password: str = field(repr=False)
    user: str | None = None
    expires_at: float | None = None
    renew_at: float | None = None


class Provider(Protocol):
    """What gives credentials."""

    def __call__(self, login: Login, /) -> Credential | str | Awaitable[Credential | str]:
        """Return the credential for a login; any exception means that there is none now."""
        ...


def region_of(host: str) -> str | None:
    """Return the region that a name of RDS says; None: it says none, or is none, or no resolver could take it."""
    endpoint = _read(host)
    return None if endpoint is None else endpoint.region


def is_of_rds(host: str) -> bool:
    """Return whether a host is a name of RDS: of an instance, an endpoint, a proxy or a global database."""
    endpoint = _read(host)
    return endpoint is not None and endpoint.partition is not None


def is_custom_endpoint(host: str) -> bool:
    """Return whether a host is the name of a custom endpoint."""
    endpoint = _read(host)
    return endpoint is not None and endpoint.kind is EndpointKind.CLUSTER_CUSTOM


def name_of_instance(endpoint: str, instance: str) -> str | None:
    """Return the name of an instance in the domain of an endpoint; None: there is none."""
    read = _read(endpoint)
    if read is None or read.domain is None or read.kind not in _OF_INSTANCES:
        return None
    try:
        return instance_host(read.domain, instance)
    except MalformedHost:
        return None


_OF_INSTANCES = frozenset(
    {EndpointKind.CLUSTER, EndpointKind.CLUSTER_READER, EndpointKind.CLUSTER_CUSTOM, EndpointKind.INSTANCE}
)
"""Endpoints whose instances have their names in the same domain, and may be dialled."""


def _read(host: str) -> Endpoint | None:
    try:
        return parse_endpoint(host)
    except MalformedHost:
        return None
