"""A dial with TLS from the first byte on where that is known to work, and as usual where it is refused.

See `policy.direct_tls`. Where the user gave ``sslnegotiation=direct``, and the server does not take it, libpq reports
no more than that the connection was closed, as of a server that has crashed. A usual dial shows which it is.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import psycopg

from aurora_router import native
from aurora_router.policy.direct_tls import FIRST_VERSION, MAY_BE_REFUSAL, DirectTls, Path
from aurora_router.policy.verdict import FaultKind
from aurora_router.runtime.faults import fault_of
from aurora_router.runtime.libpq import NO_LOGIN, HasPgconn
from aurora_router.runtime.passfile import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aurora_router.flow.runtime import Target

T = TypeVar("T")

DIRECT, USUAL = {"sslnegotiation": "direct"}, {"sslnegotiation": "postgres"}


class _Paths:
    """What this process knows of the paths that it dials."""

    def __init__(self) -> None:
        self._lock = native.new_lock()
        self.known = DirectTls()

    def record_session(self, path: Path, connection: HasPgconn) -> None:
        pgconn = connection.pgconn
        version, encrypted = pgconn.server_version, bool(pgconn.ssl_in_use)
        with self._lock:
            self.known = self.known.record_session(path, version, encrypted=encrypted)

    def record_refusal(self, path: Path) -> None:
        with self._lock:
            self.known = self.known.record_refusal(path)

    def record_silence(self, path: Path) -> None:
        with self._lock:
            self.known = self.known.record_silence(path)


PATHS = _Paths()


class _Dial(NamedTuple):
    """One dial: decided first, so that threads and event loops share what is not I/O.

    Attributes:
        path: what is dialled.
        until: when its time is over, by the monotonic clock.
        demanded: whether the user gave ``sslnegotiation=direct``.
        direct: whether TLS begins at once.
    """

    path: Path
    until: float
    demanded: bool
    direct: bool

    @classmethod
    def begin(cls, target: Target, seconds: float, *, demanded: bool) -> _Dial:
        host = target.addresses[0] if target.addresses else target.host
        path = host, int(target.port or os.environ.get("PGPORT") or DEFAULT_PORT)
        is_local = not target.addresses and (not host or host[0] in "/@")
        direct = demanded or (not is_local and PATHS.known.is_promising(path))
        return cls(path, time.monotonic() + seconds, demanded, direct)

    def login(self, login: Mapping[str, str]) -> Mapping[str, str]:
        """What the first try is made with."""
        return {**login, **DIRECT} if self.direct and not self.demanded else login

    @property
    def left(self) -> float:
        """How much of the time is left."""
        return max(0.1, self.until - time.monotonic())

    def may_be_refused(self, error: psycopg.OperationalError) -> bool:
        """Whether to dial as usual after the first try failed."""
        kind = fault_of(error).kind
        if self.direct and kind is FaultKind.TIMEOUT:
            PATHS.record_silence(self.path)
        return self.direct and kind in MAY_BE_REFUSAL and time.monotonic() < self.until

    def take(self, connection: Any, refused: psycopg.OperationalError | None = None) -> Any:
        """Learn from a session; `refused`: what the direct dial before it said.

        Raises:
            psycopg.OperationalError: the user wants none but a direct one.
        """
        PATHS.record_session(self.path, connection)
        if refused is None:
            return connection
        if not self.demanded:
            PATHS.record_refusal(self.path)
            return connection
        version = connection.pgconn.server_version
        if version >= FIRST_VERSION:  # something else was wrong, for all that is known
            raise refused
        raise psycopg.OperationalError(
            f"sslnegotiation=direct: the server at {self.path[0]}, port {self.path[1]}, is PostgreSQL "
            f"{version // 10000}, which takes no direct TLS (17 and later do): remove sslnegotiation, or give "
            "aurora_tls_direct=auto instead"
        ) from refused


def make_dial(open_: Callable[..., T], *, demanded: bool) -> Callable[..., T]:
    """A function that dials as `open_` does, directly where that works; `demanded`: the user gave ``direct``."""

    def dial(target: Target, seconds: float, login: Mapping[str, str] = NO_LOGIN) -> Any:
        this = _Dial.begin(target, seconds, demanded=demanded)
        refused = None
        try:
            return this.take(open_(target, seconds, this.login(login)))
        except psycopg.OperationalError as error:
            if not this.may_be_refused(error):
                raise
            refused = error
        return _settle(this, open_(target, this.left, _usual(login, demanded=demanded)), refused)

    return dial


def make_async_dial(open_: Callable[..., Awaitable[T]], *, demanded: bool) -> Callable[..., Awaitable[T]]:
    """The same for asyncio."""

    async def dial(target: Target, seconds: float, login: Mapping[str, str] = NO_LOGIN) -> Any:
        this = _Dial.begin(target, seconds, demanded=demanded)
        refused = None
        try:
            return this.take(await open_(target, seconds, this.login(login)))
        except psycopg.OperationalError as error:
            if not this.may_be_refused(error):
                raise
            refused = error
        return _settle(this, await open_(target, this.left, _usual(login, demanded=demanded)), refused)

    return dial


def _usual(login: Mapping[str, str], *, demanded: bool) -> Mapping[str, str]:
    return {**login, **USUAL} if demanded else login


def _settle(dial: _Dial, connection: Any, refused: psycopg.OperationalError) -> Any:
    """See `_Dial.take`; a session that is not wanted is closed."""
    try:
        return dial.take(connection, refused)
    except BaseException:
        connection.pgconn.finish()
        raise
