"""The dialects behind ``postgresql+aurora://``, for `create_engine` and `create_async_engine`.

They are SQLAlchemy's psycopg dialects in everything but the driver's ``connect`` and the check at the checkout. The
driver is psycopg with a ``connect`` of ours, so whatever SQLAlchemy offers to replace it (``create_engine(module=…)``,
``creator``, ``dialect.loaded_dbapi.connect``, the event ``do_connect``) works as with the stock dialect. What is made
is psycopg's own class, so isolation levels, server-side cursors, type adaptation and exceptions are the stock
dialect's by inheritance, and ``dialect.driver`` goes on saying ``psycopg`` to code that decides by it: it names the
driver, not what chose the instance.

The query of the URL, like ``connect_args``, takes what libpq takes and every ``aurora_…`` option. Options are read at
the first connect, where `aurora_router.InvalidOption` comes out as it is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.engine.default import DefaultDialect

import aurora_router
from aurora_router_sqlalchemy.checkout import guard
from aurora_router_sqlalchemy.read_part import has_nothing_to_commit

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.pool import PoolProxiedConnection


class _Driver:
    """The driver as SQLAlchemy sees it: psycopg, but for ``connect``; one of its own for each engine.

    ``connect`` raises `aurora_router.InvalidOption` and `aurora_router.MalformedHost`, which leave as they are, and
    errors of psycopg, which the engine wraps in its own as it does with every error of a driver.
    """

    def __init__(self) -> None:
        self.connect = aurora_router.Connection.connect

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg, name)


def _connect_async(stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What SQLAlchemy's wrapper of psycopg does to connect, with a connection of ours by default."""
    return stock(*args, **{"async_creator_fn": aurora_router.AsyncConnection.connect, **kwargs})


class _Routed(DefaultDialect):
    """What both dialects have in common."""

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Let the engine's pool refuse stale connections."""
        guard(engine)

    def do_commit(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Commit. Where `run_transaction` resolved it, the connection is lost, and the pool must not reset it.

        The reader's part of a `RoutingSession` may be lost: its transaction is over as well as by a COMMIT.
        """
        try:
            super().do_commit(dbapi_connection)  # type: ignore[no-untyped-call] # as SQLAlchemy has it
        except psycopg.OperationalError:
            if not has_nothing_to_commit(dbapi_connection):
                raise
        if getattr(dbapi_connection.driver_connection, "closed", False):
            dbapi_connection.invalidate()


class AuroraDialect(_Routed, PGDialect_psycopg):
    """``postgresql+aurora`` under `create_engine`: its connections are `aurora_router.Connection`."""

    supports_statement_cache = True  # SQLAlchemy wants it said by each class itself

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import psycopg; its ``connect`` is ours."""
        return _Driver()

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[AuroraAsyncDialect]:  # noqa: ARG003 - the hook's signature
        """The dialect that `create_async_engine` takes for the same URL."""
        return AuroraAsyncDialect


class AuroraAsyncDialect(_Routed, PGDialectAsync_psycopg):
    """``postgresql+aurora`` under `create_async_engine`: its connections are `aurora_router.AsyncConnection`."""

    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import SQLAlchemy's wrapper of psycopg; its ``connect`` makes connections of ours."""
        stock: Any = PGDialectAsync_psycopg
        wrapper = stock.import_dbapi()
        wrapper.connect = partial(_connect_async, wrapper.connect)
        return wrapper

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[AuroraAsyncDialect]:  # noqa: ARG003 - the hook's signature
        """This dialect."""
        return cls
