"""What the runtimes of threads and of event loops share: the real clock, libpq, nothing that waits.

That is: the parameters of a dial, the rows of a service query, and `RealRuntime`.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg
from psycopg import pq

from aurora_router import native
from aurora_router.flow.runtime import DialFailed, Rows, Target
from aurora_router.policy.addresses import decisive, order_by_family, share
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.psycopg_errors import FAMILY
from aurora_router.runtime import passfile, sockets
from aurora_router.runtime.faults import first_line

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from aurora_router.policy.role_reports import Path

Params = dict[str, Any]
"""Connection parameters as psycopg's ``connect`` takes them by keyword."""


NO_LOGIN: Mapping[str, str] = MappingProxyType({})


def dial_params(base: Mapping[str, Any], target: Target, seconds: float, login: Mapping[str, str] = NO_LOGIN) -> Params:
    """The parameters with which to dial a target: its host to verify, its address to dial.

    Args:
        base: what the user gave, without hosts and without our own options.
        target: where to dial: one address, see `one_by_one`.
        seconds: how long it may take. The runtimes keep to it; psycopg is only kept from giving up before.
        login: user and password, where a provider gives them.
    """
    params = dict(base)
    limit = base.get("connect_timeout")
    if _gives_up_within(os.environ.get("PGCONNECT_TIMEOUT") if limit is None else limit, seconds):
        params["connect_timeout"] = max(2, int(seconds + 0.999))
    if target.host is not None:
        params["host"] = target.host
    if target.addresses:
        params["hostaddr"] = target.addresses[0]
    elif target.host and (os.environ.get("PGHOSTADDR") or base.get("service") or os.environ.get("PGSERVICE")):
        params["hostaddr"] = ""  # or libpq would dial the address that it finds there, not this socket
    if target.port is not None:
        params["port"] = target.port
    if not base.get("password") and (password := passfile.password(base, target)) is not None:
        params["password"] = password
    params.update(login)
    return params


def _gives_up_within(connect_timeout: object, seconds: float) -> bool:
    """Whether psycopg would give up before `seconds` are over; its rule: whole seconds, at least 2, 0 means 130."""
    limit = int(float(str(connect_timeout))) if connect_timeout is not None else 0
    return (max(2, limit) if limit > 0 else 130) < seconds


def one_by_one(target: Target, seconds: float, *, v6_first: bool) -> Generator[tuple[Target, float], DialFailed, None]:
    """The dials of which a dial of several addresses consists, as (target, seconds); takes the failure of each.

    Raises:
        DialFailed: the last of them failed, too.
    """
    until = time.monotonic() + seconds
    failures: list[DialFailed] = []
    addresses = order_by_family(target.addresses, v6_first=v6_first)
    for position, address in enumerate(addresses):
        limit = share(until - time.monotonic(), len(addresses) - position - 1, [each.fault for each in failures])
        failures.append((yield replace(target, addresses=(address,)), limit))
    raise join_failures(addresses, failures)


def join_failures(addresses: Sequence[str], failures: Sequence[DialFailed]) -> DialFailed:
    """The failure of a dial of several addresses: of the kind that says most, with what each of them said."""
    main = failures[decisive([each.fault for each in failures])]
    listed = "".join(f"\n- {address}: {each.fault.text}" for address, each in zip(addresses, failures, strict=True))
    text = f"{main.fault.text}\nMultiple connection attempts failed. All failures were:{listed}"
    cause = main.cause
    if isinstance(cause, psycopg.Error):
        cause = type(cause)(text, pgconn=cause.pgconn)
    return DialFailed(Fault(main.fault.kind, main.fault.sqlstate, first_line(cause)), cause)


def reported_standby(pgconn: pq.abc.PGconn) -> bool | None:
    """What the server reported as ``in_hot_standby`` at start-up (PostgreSQL 14 and later)."""
    value = pgconn.parameter_status(b"in_hot_standby")
    return None if value is None else value == b"on"


def peer_address(pgconn: pq.abc.PGconn) -> str | None:
    """The numeric address at the other end; None for a local socket."""
    return pgconn.hostaddr.decode() or None


def path_of(pgconn: pq.abc.PGconn) -> Path:
    """The numeric address and the port at the other end."""
    return peer_address(pgconn), int(pgconn.port or b"0")


def rows_of(result: pq.abc.PGresult | None) -> Rows:
    """The rows of a finished service query.

    Raises:
        DialFailed: the server refused the query.
    """
    if result is None:
        raise new_connection_lost("the server sent no result")
    if result.status != pq.ExecStatus.TUPLES_OK:
        cause = psycopg.errors.error_from_result(result)
        raise DialFailed(Fault(FaultKind.REJECTED, cause.sqlstate, first_line(cause)), cause)
    return [
        tuple(_text(result.get_value(row, column)) for column in range(result.nfields)) for row in range(result.ntuples)
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def new_connection_lost(text: str) -> DialFailed:
    """A connection broke during a service query."""
    return DialFailed(Fault(FaultKind.RESET, None, text), psycopg.OperationalError(text))


def new_timeout(what: str, seconds: float) -> DialFailed:
    """Something took longer than it may."""
    text = f"{what}: no answer within {seconds:.1f} s"
    return DialFailed(Fault(FaultKind.TIMEOUT, None, text), psycopg.errors.ConnectionTimeout(text))


def new_dial_timeout(name: str, seconds: float) -> DialFailed:
    """A dial took longer than it may; in psycopg's words."""
    text = f"connection timeout expired: {name} was not connected within {seconds:.1f} s"
    return DialFailed(Fault(FaultKind.TIMEOUT, None, text), psycopg.errors.ConnectionTimeout(text))


_RANDOM = random.SystemRandom()
"""Not the module's own: that one is its users' to seed, and a background thread must not draw from it."""


class HasPgconn(Protocol):
    """A connection that stands on libpq."""

    @property
    def pgconn(self) -> pq.abc.PGconn:
        """The libpq connection under it."""
        ...


ConnT = TypeVar("ConnT", bound=HasPgconn)


class RealRuntime(Generic[ConnT]):
    """The part of a `Runtime` that asks no server and waits for nothing."""

    __slots__ = ()

    now = staticmethod(time.monotonic)
    """The monotonic clock, in seconds."""
    errors = FAMILY
    """What a procedure raises."""

    def random(self) -> float:
        """A random number in [0, 1)."""
        return _RANDOM.random()

    @property
    def thread(self) -> int:
        """The thread in which the procedure runs."""
        return native.get_ident()

    def can_wait_for(self, thread: int | None) -> bool:  # noqa: ARG002 - of an event loop: all of its tasks go on
        """Whether a procedure of that thread goes on while this one waits."""
        return True

    def in_hot_standby(self, connection: ConnT) -> bool | None:
        """What the server reported of itself when the connection began."""
        return reported_standby(connection.pgconn)

    def address(self, connection: ConnT) -> str | None:
        """The numeric address at the other end."""
        return peer_address(connection.pgconn)

    def path(self, connection: ConnT) -> Path:
        """The numeric address and the port at the other end."""
        return path_of(connection.pgconn)

    def backend_pid(self, connection: ConnT) -> int:
        """The backend's process id, as reported at start-up."""
        return connection.pgconn.backend_pid

    def local_port(self, connection: ConnT) -> int | None:
        """The port at this end."""
        return sockets.local_port(connection.pgconn.socket)
