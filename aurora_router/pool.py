"""Pools of ``psycopg_pool`` (extra ``pool``) that never hand out a stale connection.

>>> with ConnectionPool("host=mydb.cluster-… dbname=app", role="writer", min_size=4) as pool:
...     with pool.connection() as conn: ...

They are psycopg's own pools, with the class of the connections and the check at checkout set.
"""

from __future__ import annotations

from typing import Any

import psycopg_pool

from aurora_router.checking import check
from aurora_router.connection import AsyncConnection, Connection

__all__ = ["AsyncConnectionPool", "ConnectionPool"]


class ConnectionPool(psycopg_pool.ConnectionPool[Connection[Any]]):
    """A `psycopg_pool.ConnectionPool` of connections to one role of a cluster.

    Args:
        conninfo: as for `aurora_router.connect`.
        role: ``writer``, ``reader``, ``prefer-reader`` or ``any``; None: by the endpoint.
        kwargs: further keywords of each connect.
        pool: everything else that psycopg's pool takes.
    """

    def __init__(
        self, conninfo: str = "", *, role: str | None = None, kwargs: dict[str, Any] | None = None, **pool: Any
    ) -> None:
        super().__init__(
            conninfo, **{"connection_class": Connection, "check": check, **pool}, kwargs=_with_role(kwargs, role)
        )


class AsyncConnectionPool(psycopg_pool.AsyncConnectionPool[AsyncConnection[Any]]):
    """A `psycopg_pool.AsyncConnectionPool`; otherwise like `ConnectionPool`."""

    def __init__(
        self, conninfo: str = "", *, role: str | None = None, kwargs: dict[str, Any] | None = None, **pool: Any
    ) -> None:
        super().__init__(
            conninfo, **{"connection_class": AsyncConnection, "check": check, **pool}, kwargs=_with_role(kwargs, role)
        )


def _with_role(kwargs: dict[str, Any] | None, role: str | None) -> dict[str, Any]:
    return {**(kwargs or {}), **({"aurora_role": role} if role is not None else {})}
