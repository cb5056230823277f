"""What users write, as the type checkers see it. Checked by mypy and pyright (`nox -s types`), never run."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from typing_extensions import assert_type

import aurora_router


def blocking() -> None:
    with aurora_router.connect("host=h aurora_role=reader") as conn:
        assert_type(conn, aurora_router.Connection[Any])
        stock: psycopg.Connection[Any] = conn
        stock.execute("select 1")
        if conn.placement is not None:
            assert_type(conn.placement.instance, str | None)
            assert_type(conn.placement.current, bool | None)
    plain = aurora_router.Connection.connect("host=h", port=5432, aurora_max_lag=0.1)
    assert_type(plain, aurora_router.Connection[TupleRow])
    # psycopg's own signature is read by mypy as meant, and by pyright as if the row type were fixed
    dicts = aurora_router.Connection.connect("host=h", row_factory=dict_row)  # pyright: ignore[reportArgumentType]
    assert_type(dicts, aurora_router.Connection[dict[str, Any]])  # pyright: ignore[reportAssertTypeFailure]


async def awaited() -> None:
    conn = await aurora_router.AsyncConnection.connect("host=h", autocommit=True)
    stock: psycopg.AsyncConnection[Any] = conn
    await stock.close()
    router = aurora_router.AsyncRouter("host=h")
    assert_type(await router.topology(), aurora_router.View)
    assert_type(await router.connect(role="reader"), aurora_router.AsyncConnection[Any])


def pools() -> None:
    pool = ConnectionPool("host=h", connection_class=aurora_router.Connection[TupleRow], open=False)
    with pool.connection() as conn:
        assert_type(conn, aurora_router.Connection[TupleRow])
    AsyncConnectionPool("host=h", connection_class=aurora_router.AsyncConnection[TupleRow], open=False)


def routers() -> None:
    router = aurora_router.Router("host=h", aurora_balance="fastest")
    assert_type(router.connect(role="reader", max_lag=0.1), aurora_router.Connection[Any])
    assert_type(router.explain().reasons, tuple[str, ...])
    view = router.topology()
    assert_type(view.writer, str | None)
    assert_type([each.role for each in view.readers()], list[aurora_router.Role])
    assert_type(aurora_router.subscribe(print)(), None)
