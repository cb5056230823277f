"""The dialects behind ``postgresql+aurora://``, for `create_engine` and `create_async_engine`.

They are SQLAlchemy's psycopg dialects in everything but the making of a connection and the check at its checkout. What
is made is psycopg's own class, so isolation levels, server-side cursors, type adaptation and exceptions are the stock
dialect's by inheritance, and ``dialect.driver`` goes on saying ``psycopg`` to whoever decides by it: it names the
driver, not who placed it.

The query of the URL, like ``connect_args``, takes what libpq takes and every ``aurora_…`` option. Options are read at
the first connect, where `aurora_router.InvalidOption` comes out as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg

import aurora_router
from aurora_router_sqlalchemy.checkout import guard

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection


class AuroraDialect(PGDialect_psycopg):
    """``postgresql+aurora`` under `create_engine`: its connections are `aurora_router.Connection`."""

    supports_statement_cache = True  # SQLAlchemy wants it said by each class itself

    def connect(self, *cargs: Any, **cparams: Any) -> DBAPIConnection:
        """Connect to the right instance.

        Raises:
            InvalidOption: an ``aurora_…`` option is unknown, malformed or contradicts another.
            MalformedHost: a host name that no resolver could take.
            psycopg.OperationalError: no instance could be reached, or what psycopg raises; the engine wraps it in its
                own `sqlalchemy.exc.OperationalError`, as it does with every error of a driver.
        """
        return cast("DBAPIConnection", aurora_router.Connection.connect(*cargs, **cparams))

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[AuroraAsyncDialect]:  # noqa: ARG003 - the hook's signature
        """The dialect that `create_async_engine` takes for the same URL."""
        return AuroraAsyncDialect

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Let the engine's pool refuse stale connections."""
        guard(engine)


class AuroraAsyncDialect(PGDialectAsync_psycopg):
    """``postgresql+aurora`` under `create_async_engine`: its connections are `aurora_router.AsyncConnection`."""

    supports_statement_cache = True

    def connect(self, *cargs: Any, **cparams: Any) -> DBAPIConnection:
        """Connect to the right instance; raises what `AuroraDialect.connect` does."""
        cparams.setdefault("async_creator_fn", aurora_router.AsyncConnection.connect)
        return super().connect(*cargs, **cparams)

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[AuroraAsyncDialect]:  # noqa: ARG003 - the hook's signature
        """This very dialect."""
        return cls

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Let the engine's pool refuse stale connections."""
        guard(engine)
