"""What the runtimes of threads and of event loops know of libpq; nothing here waits.

That is: the parameters of a dial, the rows of a service query, and `LibpqRuntime`.
"""

from __future__ import annotations

import logging
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from aurora_router.flow.runtime import POSTGRESQL, DialFailed, Rows, Target
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.psycopg_errors import FAMILY
from aurora_router.runtime import passfile, sequential_dial, sockets
from aurora_router.runtime.faults import fault_of, first_line
from aurora_router.runtime.real_runtime import RealRuntime

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

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


# ---------------------------------------------------------------- the environment


def as_keys(variables: Iterable[str]) -> frozenset[str | bytes]:
    """Names of variables, as `is_any_set` takes them."""
    return frozenset(each for name in variables for each in (name, name.encode()))


def is_any_set(keys: frozenset[str | bytes]) -> bool:
    """Whether the environment has one of these variables. Each look-up in `os.environ` takes 1 us, all of these 0.5."""
    return not keys.isdisjoint(getattr(os.environ, "_data", os.environ))


# ---------------------------------------------------------------- the conninfo of a dial

# psycopg makes a conninfo of the parameters of each dial and has libpq parse it, to see that its keywords are valid and
# its values quoted; that takes 50 us. Here it does so for the first dial with certain keywords. Later ones differ in
# their values alone, which are quoted here.
#
# psycopg reads some parameters itself, from their keywords or from the environment: several hosts, a name to be
# resolved, the limit in time. A dial with one of those is left to psycopg. So is each while psycopg logs them.

_PSYCOPGS = frozenset({"connect_timeout", "gssencmode", "load_balance_hosts", "target_session_attrs"})
_VARIABLES = as_keys(
    ["PGCONNECT_TIMEOUT", "PGHOST", "PGHOSTADDR", "PGLOADBALANCEHOSTS", "PGPORT", "PGTARGETSESSIONATTRS"]
)
"""What psycopg would read from the environment where it is given no parameters."""
_log = logging.getLogger("psycopg")
_MAX_VALID = 64

_valid: set[tuple[str, ...]] = set()


def make_conninfo(params: Mapping[str, object]) -> str | None:
    """Return the conninfo with these parameters; None: psycopg has to make it."""
    keywords = tuple(params)
    if keywords not in _valid:
        _examine(keywords, params)
        return None
    if _log.isEnabledFor(logging.DEBUG) or is_any_set(_VARIABLES):
        return None
    values = [str(value) for value in params.values()]
    text = "".join(values)
    if not params["hostaddr"] or None in params.values() or "," in text or "\0" in text:
        return None
    if "'" in text or "\\" in text:
        values = [value.replace("\\", "\\\\").replace("'", "\\'") for value in values]
    return " ".join([f"{keyword}='{value}'" for keyword, value in zip(keywords, values, strict=True)])


def _examine(keywords: tuple[str, ...], params: Mapping[str, object]) -> None:
    """Remember keywords that libpq knows, and of which psycopg reads none but the address."""
    if "hostaddr" not in params or not _PSYCOPGS.isdisjoint(keywords) or len(_valid) >= _MAX_VALID:
        return
    conninfo_to_dict(" ".join(f"{keyword}=''" for keyword in keywords))
    _valid.add(keywords)


# ---------------------------------------------------------------- what a dial leads to


def rewrite(cause: BaseException, text: str) -> BaseException:
    """Return an error of psycopg's like `cause`, with another text; another error as it is."""
    return type(cause)(text, pgconn=cause.pgconn) if isinstance(cause, psycopg.Error) else cause


def one_by_one(target: Target, seconds: float, *, v6_first: bool) -> Generator[tuple[Target, float], DialFailed, None]:
    """The dials of which a dial of several addresses consists; see `sequential_dial.one_by_one`."""
    return sequential_dial.one_by_one(target, seconds, v6_first=v6_first, rewrite=rewrite)


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


class HasPgconn(Protocol):
    """A connection that stands on libpq."""

    @property
    def pgconn(self) -> pq.abc.PGconn:
        """The libpq connection under it."""
        ...


ConnT = TypeVar("ConnT", bound=HasPgconn)


class LibpqRuntime(RealRuntime[ConnT]):
    """The part of a `Runtime` that knows libpq's connections, and asks no server."""

    __slots__ = ()

    errors = FAMILY
    """What a procedure raises."""
    queries = POSTGRESQL
    """What a procedure asks servers."""
    driver_errors = psycopg.Error
    fault_of = staticmethod(fault_of)
    rewrite = staticmethod(rewrite)
    new_dial_timeout = staticmethod(new_dial_timeout)

    @staticmethod
    def drop(connection: ConnT) -> None:
        """Close a connection at once."""
        connection.pgconn.finish()

    def in_hot_standby(self, connection: ConnT) -> bool | None:
        """What the server reported of itself when the connection began."""
        return reported_standby(connection.pgconn)

    def may_wait_for_snapshot(self, connection: ConnT) -> bool:
        """Whether the session is read-only by default, as the server reports."""
        return connection.pgconn.parameter_status(b"default_transaction_read_only") == b"on"

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
