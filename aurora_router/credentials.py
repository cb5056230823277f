"""Credentials that are asked for at each dial: tokens, secrets that rotate, passwords of a vault.

Pass a callable to ``connect``, `Router`, a pool's ``kwargs``, SQLAlchemy's ``connect_args`` or Django's ``OPTIONS``::

    def credentials(login: Login) -> Credential:
        token = vault.token_for(login.host, login.user)
        return Credential(token.text, expires_at=token.expires_at)

    aurora_router.connect(url, credentials=credentials)

The callable may be a coroutine function. Users, the monitor and the resolver of commit outcomes ask it alike, from any
thread and any event loop. What it returns decides how long it counts: a text for this one dial; a `Credential` until it
expires, or until the server rejects it. One that expires is renewed in the background when four fifths of its time are
over, also while nothing connects. Where the server rejects a cached one (SQLSTATE 28P01 or 28000), the callable is
asked again, and if it returns another one the dial is repeated once.

``aurora_credentials=NAME`` takes a provider from the entry points of the group ``aurora_router.credentials``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable

GROUP = "aurora_router.credentials"
"""The group of entry points: name -> a provider."""


class Login(NamedTuple):
    """What a credential is wanted for.

    Attributes:
        host: the name of the instance or endpoint that is dialled; None: a local socket.
        port: the port there.
        user: the user that was named; None: none was, so the system's user counts, or what the provider says.
        database: the database that was named.
    """

    host: str | None
    port: int
    user: str | None
    database: str | None


@dataclass(frozen=True, slots=True)
class Credential:
    """A password, or a token that is used as one.

    Attributes:
        password: the secret; no repr shows it.
        user: the user that it belongs to; None: the one that was named.
        expires_at: when it ends, in seconds since 1970 as by `time.time`; None: it does not, until it is rejected.
    """

    password: str = field(repr=False)
    user: str | None = None
    expires_at: float | None = None


class Provider(Protocol):
    """What gives credentials."""

    def __call__(self, login: Login, /) -> Credential | str | Awaitable[Credential | str]:
        """Return the credential for a login; any exception means that there is none now."""
        ...
