"""Whether a connection from a pool may still be used: found out without a round trip, except behind poolers.

Each instance has a generation, which grows when its role changes or it is declared failed. A connection remembers the
one that it was made in, so a look at the view shows whether it is stale; a look at the socket shows whether the other
end hung up.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast, overload
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import ConnStatus

from aurora_router.connection import AsyncConnection, Connection
from aurora_router.forks import IMPORTING
from aurora_router.psycopg_errors import StaleConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from aurora_router.placement import Placement
    from aurora_router.policy.recycling import HeldConnection


class _Nothing:
    """An awaitable that is done."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


_NOTHING = _Nothing()
_CLOSED = ConnStatus.BAD

ASK_SECONDS = 0.01
"""For so long `is_surplus` does not look again, for all connections that were made by the same rules."""
DRAIN_SECONDS = 1.0
"""A pool replaces all that lies idle in it at most this often."""
_drained_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


@overload
def check(connection: psycopg.AsyncConnection[Any]) -> Awaitable[None]: ...
@overload
def check(connection: psycopg.Connection[Any]) -> None: ...
def check(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Awaitable[None] | None:
    """Refuse a connection that is stale; for ``psycopg_pool``: ``ConnectionPool(…, check=aurora_router.check)``.

    Costs no round trip if the connection always leads to the same server: its role is known here. Behind a pooler
    the server is asked for its role, which costs one round trip (a connection within a pipeline, or whose transaction
    has failed, is not asked). A stale connection is closed; if idle ones of its ``psycopg_pool`` are stale as well, the
    pool is made to replace them at once (it would otherwise try them one by one, with growing pauses). The result of an
    `AsyncConnection` is to be awaited, as its pool does.

    Raises:
        StaleConnection: it was lost, or its instance has another role than it had, failed, or left the cluster.
    """
    placement: Placement | None = getattr(connection, "placement", None)
    reason = stale(connection)
    if reason is None and placement is not None and placement.pooled:
        with IMPORTING:
            from aurora_router.runtime import pooler_check  # noqa: PLC0415 - loaded where it is needed

        if isinstance(connection, psycopg.AsyncConnection):
            return _is_alive(connection, pooler_check.find_reason_async(connection))
        reason = pooler_check.find_reason(connection)
    if reason is None:
        return _NOTHING if isinstance(connection, psycopg.AsyncConnection) else None
    return _refuse(connection, reason)


def is_surplus(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether a pool has to recycle a connection: it is stale, or its instance has too many.

    For your own pool classes; those of `aurora_router.pool`, SQLAlchemy and Django ask by themselves. Costs no round
    trip. After True the connection counts as recycled: the pool has to close it before its next use. Of the connections
    that are not stale at most a tenth per second gets True (``aurora_rebalance``), and each one to a drained instance.
    A busy process asks far more often than there is something to find, so it looks at most a hundred times per second;
    in between the answer is False.
    """
    rebalancer, now = getattr(connection, "rebalancer", None), time.monotonic()
    if rebalancer is not None and now < rebalancer.ask_at:
        return False
    if connection.pgconn.status == _CLOSED:
        return True
    placement: Placement | None = getattr(connection, "placement", None)
    if placement is None or placement.instance is None:
        return False
    if not placement.view.is_current(placement.instance, placement.generation):
        return True
    if rebalancer is None:
        with IMPORTING:
            from aurora_router.runtime.rebalancing import find_rebalancer  # noqa: PLC0415 - when first needed

        rebalancer = find_rebalancer(connection)
    claimed = rebalancer.claim(connection, placement._cluster)  # noqa: SLF001 - the package's own
    rebalancer.ask_at = now if rebalancer.is_draining else now + ASK_SECONDS
    return claimed


def find_drained_idle(connection: Any, idle: Iterable[Any]) -> list[Any]:
    """The idle ones of a pool's connections that lead to a drained instance, where one that was returned was surplus.

    They count as recycled, as with `is_surplus`.
    """
    rebalancer = getattr(connection, "rebalancer", None)
    return [] if rebalancer is None or not rebalancer.is_draining else rebalancer.claim_drained(idle)


def _refuse(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], reason: str) -> Awaitable[None]:
    """Close a stale connection, and have its pool replace its idle connections if others are stale as well."""
    placement: Placement | None = getattr(connection, "placement", None)
    error, pool = StaleConnection(reason), getattr(connection, "_pool", None)
    held = _describe(connection)
    if placement is not None:
        error = StaleConnection(reason, view=placement.view, trail=placement.trail)
        cast("Connection[Any]", connection).discard()
    drain = _drain_of(pool, _find_stale_idle(pool, placement, held))
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


def _find_stale_idle(pool: Any, placement: Placement | None, refused: HeldConnection) -> list[Any] | None:
    """The idle connections of a pool to the same cluster that are to be recycled, too.

    None if that is not known: the pool is not one of psycopg_pool's, or the connection is in no cluster.
    """
    idle = getattr(pool, "_pool", None)
    if idle is None or placement is None:
        return None
    with IMPORTING:
        from aurora_router.policy.recycling import choose_recycled  # noqa: PLC0415 - few connections are stale

    cluster = placement._cluster  # noqa: SLF001 - the package's own
    same = [each for each in idle.copy() if getattr(getattr(each, "placement", None), "_cluster", None) is cluster]
    reasons = choose_recycled(placement.view, [_describe(each) for each in same], refused)
    return [each for each, reason in zip(same, reasons, strict=True) if reason is not None]


def _drain_of(pool: Any, those: list[Any] | None) -> Callable[[], Any] | None:
    """How to let a pool replace idle connections; None: there is nothing to replace, or it did so a moment ago.

    A pool of `aurora_router.pool` replaces only those. psycopg_pool's own replace all; before 3.3 they have only
    ``check``, which asks each connection over the network.
    """
    drain: Callable[[], Any] | None = getattr(pool, "drain", None) or getattr(pool, "check", None)
    if those is not None and hasattr(pool, "replace_idle"):
        drain = partial(pool.replace_idle, those)
    now = time.monotonic()
    if drain is None or those == [] or now - _drained_at.get(pool, -DRAIN_SECONDS) < DRAIN_SECONDS:
        return None
    _drained_at[pool] = now
    return drain


def stale(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> str | None:
    """Why a connection is not to be used any more; None: it may be. A connection of psycopg's own class always may.

    The rules of `policy.recycling` decide; they are asked where what `sound` looks at has changed.
    """
    if connection.pgconn.status != _CLOSED and (  # what `closed` asks for
        not isinstance(connection, (Connection, AsyncConnection)) or connection.sound()
    ):
        return None
    with IMPORTING:
        from aurora_router.policy.recycling import judge_held  # noqa: PLC0415 - few connections are stale

    placement: Placement | None = getattr(connection, "placement", None)
    found = judge_held(None if placement is None else placement.view, _describe(connection))
    if found is None:
        return None
    if placement is not None and found.suspicion is not None:
        placement._cluster.suspect_writer(found.suspicion, time.monotonic())  # noqa: SLF001 - the package's own
    return found.reason


def _describe(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> HeldConnection:
    """What is known of a connection here, without a round trip."""
    with IMPORTING:
        from aurora_router.policy.recycling import HeldConnection  # noqa: PLC0415 - see above
        from aurora_router.runtime import libpq, sockets  # noqa: PLC0415

    placement, pgconn = getattr(connection, "placement", None), connection.pgconn
    try:
        ended = sockets.end_of(pgconn.socket)()
    except psycopg.OperationalError:  # it has no socket any more
        return HeldConnection(None, 0, closed=True)
    if not isinstance(connection, (Connection, AsyncConnection)):
        return HeldConnection(None, 0)
    return HeldConnection(
        None if placement is None else placement.instance,
        connection.generation,
        ended=ended,
        pooled=placement is not None and placement.pooled,
        process=connection.process if connection.is_inherited else None,
        reported=connection.reported,
        reports=libpq.reported_standby(pgconn),
        endpoint=connection.endpoint,
    )
