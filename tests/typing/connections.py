"""What users write, as the type checkers see it. Checked by mypy and pyright (`nox -s types`), never run."""

from __future__ import annotations

# pyright: reportUnnecessaryTypeIgnoreComment=true
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import TupleRow, class_row, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from typing_extensions import assert_type

import aurora_router
import aurora_router.pool
from aurora_router.balance import Candidate


@dataclass
class Item:
    number: int


def blocking() -> None:
    with aurora_router.connect("host=h aurora_role=reader") as conn:
        assert_type(conn, aurora_router.Connection[TupleRow])
        assert_type(conn.execute("select 1").fetchone(), TupleRow | None)
        stock: psycopg.Connection[Any] = conn
        stock.execute("select 1")
        assert_type(conn.placement.instance, str | None)
        assert_type(conn.placement.current, bool | None)
    plain = aurora_router.Connection.connect("host=h", port=5432, aurora_max_lag=0.1)
    assert_type(plain, aurora_router.Connection[TupleRow])
    dicts = aurora_router.Connection.connect("host=h", row_factory=dict_row)
    assert_type(dicts, aurora_router.Connection[dict[str, Any]])
    named = aurora_router.connect("host=h", row_factory=class_row(Item), aurora_role="reader")
    assert_type(named.execute("select 1").fetchall(), list[Item])
    settings: dict[str, Any] = {"host": "h", "aurora_role": "reader"}
    unpacked: aurora_router.Connection[TupleRow] = aurora_router.connect("", **settings)
    unpacked.close()
    assert_type(
        aurora_router.connect("host=h", cursor_factory=psycopg.ClientCursor), aurora_router.Connection[TupleRow]
    )


def mistaken() -> None:
    # each of these is an error of both type checkers: an ignore that is not needed is one, too
    aurora_router.connect("host=h", aurora_rol="reader")  # type: ignore[call-overload]
    aurora_router.connect("host=h", autocomit=True)  # type: ignore[call-overload]
    aurora_router.connect("host=h", sslmod="require")  # type: ignore[call-overload]
    aurora_router.connect("host=h", aurora_max_lag=["1"])  # type: ignore[call-overload]
    aurora_router.Connection.connect("host=h", aurora_rol="reader")  # type: ignore[call-overload]
    aurora_router.Router("host=h", aurora_rol="reader")  # type: ignore[call-arg]
    aurora_router.Router("host=h", autocommit=True, row_factory=dict_row)
    row: str | None = aurora_router.connect("host=h").execute("select 1").fetchone()  # type: ignore[assignment]
    del row


async def awaited() -> None:
    conn = await aurora_router.AsyncConnection.connect("host=h", autocommit=True)
    assert_type(conn, aurora_router.AsyncConnection[TupleRow])
    dicts = await aurora_router.AsyncConnection.connect("host=h", row_factory=dict_row)
    assert_type(dicts, aurora_router.AsyncConnection[dict[str, Any]])
    await aurora_router.AsyncConnection.connect("host=h", aurora_rol="reader")  # type: ignore[call-overload]
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


def our_pools() -> None:
    pool = aurora_router.pool.ConnectionPool("host=h", role="reader", kwargs=lambda: {"password": "x"}, open=False)
    with pool.connection() as conn:
        assert_type(conn, aurora_router.Connection[TupleRow])
    aurora_router.pool.ConnectionPool(lambda: "host=h", kwargs={"password": "x"})
    aurora_router.pool.ConnectionPool("host=h", kwargs="password=x")  # type: ignore[arg-type]
    aurora_router.pool.ConnectionPool(5)  # type: ignore[arg-type]

    async def token() -> dict[str, Any]:
        return {"password": "x"}

    aurora_router.pool.AsyncNullConnectionPool("host=h", kwargs=token, open=False)


def routers() -> None:
    router = aurora_router.Router("host=h", aurora_balance="fastest")

    def nearest(candidates: Sequence[Candidate]) -> Candidate:
        return min(candidates, key=lambda each: each.latency or 0.0)

    aurora_router.Router("host=h", balance=nearest).connect(role="reader", balance=lambda each: each[0].id)
    assert_type(router.connect(role="reader", max_lag=0.1), aurora_router.Connection[Any])
    assert_type(router.explain().reasons, tuple[str, ...])
    aurora_router.conect("host=h")  # type: ignore[attr-defined] # a misspelt name is reported
    view = router.topology()
    assert_type(view.writer, str | None)
    assert_type([each.role for each in view.readers()], list[aurora_router.Role])
    assert_type(aurora_router.subscribe(print)(), None)
