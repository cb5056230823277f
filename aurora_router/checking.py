"""Whether a connection that a pool kept may still be used: known without a round trip, but for poolers.

Each instance has a generation, which grows when its role changes or it is declared failed. A connection remembers the
one that it was made in, so a look at the view shows whether it is stale; a look at the socket shows whether the other
end hung up.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast, overload
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import ConnStatus

from aurora_router.connection import AsyncConnection, Connection
from aurora_router.errors import StaleConnection
from aurora_router.forks import IMPORTING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from aurora_router.connection import Placement


class _Nothing:
    """An awaitable that is done."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


_NOTHING = _Nothing()
_CLOSED = ConnStatus.BAD

DRAIN_SECONDS = 1.0
"""A pool replaces all that lies idle in it at most this often."""
_drained_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


@overload
def check(connection: psycopg.AsyncConnection[Any]) -> Awaitable[None]: ...
@overload
def check(connection: psycopg.Connection[Any]) -> None: ...
def check(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Awaitable[None] | None:
    """Refuse a connection that is stale; for ``psycopg_pool``: ``ConnectionPool(…, check=aurora_router.check)``.

    Costs no round trip where the connection leads to one server for good: what is known is compared. Behind a pooler
    the server is asked for its role, which costs one round trip (a connection within a pipeline, or whose transaction
    has failed, is not asked). A stale connection is closed, and its ``psycopg_pool`` is made to replace those that lie
    idle as well (it would otherwise try them one by one, with growing pauses). The result of an `AsyncConnection` is to
    be awaited, as its pool does.

    Raises:
        StaleConnection: it was lost, or its instance has another role than it had, failed, or left the cluster.
    """
    placement: Placement | None = getattr(connection, "placement", None)
    reason = stale(connection)
    if reason is None and placement is not None and placement.pooled:
        with IMPORTING:
            from aurora_router.runtime import pooled  # noqa: PLC0415 - loaded where it is needed

        if isinstance(connection, psycopg.AsyncConnection):
            return _is_alive(connection, pooled.find_reason_async(connection))
        reason = pooled.find_reason(connection)
    if reason is None:
        return _NOTHING if isinstance(connection, psycopg.AsyncConnection) else None
    return _refuse(connection, reason)


def _refuse(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], reason: str) -> Awaitable[None]:
    """Close a stale connection, and have its pool replace those that lie idle."""
    placement = getattr(connection, "placement", None)
    error = StaleConnection(reason)
    if placement is not None:
        error = StaleConnection(reason, view=placement.view, trail=placement.trail)
        cast("Connection[Any]", connection).discard()
    drain = _drain_of(getattr(connection, "_pool", None))
    if isinstance(connection, psycopg.AsyncConnection) and drain is not None:
        return _drain(drain, error)
    if drain is not None:
        drain()
    raise error


async def _is_alive(connection: psycopg.AsyncConnection[Any], asking: Awaitable[str | None]) -> None:
    reason = await asking
    if reason is not None:
        await _refuse(connection, reason)


async def _drain(drain: Callable[[], Any], error: StaleConnection) -> None:
    await drain()
    raise error


def _drain_of(pool: Any) -> Callable[[], Any] | None:
    """How to let a pool replace what lies idle in it; None: there is no pool, or it did so a moment ago.

    psycopg_pool before 3.3 has but ``check``, which asks each connection over the network.
    """
    drain: Callable[[], Any] | None = getattr(pool, "drain", None) or getattr(pool, "check", None)
    now = time.monotonic()
    if drain is None or now - _drained_at.get(pool, -DRAIN_SECONDS) < DRAIN_SECONDS:
        return None
    _drained_at[pool] = now
    return drain


def stale(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> str | None:
    """Why a connection is not to be used any more; None: it may be. A connection of psycopg's own class always may."""
    if connection.pgconn.status == _CLOSED:  # what `closed` asks for
        return "the connection was lost"
    if not isinstance(connection, (Connection, AsyncConnection)) or connection.sound():
        return None
    placement = connection.placement
    if connection.is_inherited:
        return f"the connection was opened by process {connection.process}, of which this one was forked"
    reported = connection.pgconn.parameter_status(b"in_hot_standby")
    if placement is not None and connection.reported is not (None if reported is None else reported == b"on"):
        now = "a writer" if connection.reported else "a reader"
        placement._cluster.suspect_writer(f"{placement.instance} reports that it is {now} now", time.monotonic())  # noqa: SLF001
        return f"the connection to {placement.instance} is stale: its server reports that it is {now} now"
    if placement is None or placement.current is not False:
        return f"{placement.instance if placement and placement.instance else 'the server'} has ended the connection"
    known = placement.view.instances.get(placement.instance or "")
    now = "has left the cluster" if known is None else f"is not what it was, and now a {known.role.value}"
    return f"the connection to {placement.instance} is stale: the instance {now}"
