"""A resolver that connects after the password has changed."""

from __future__ import annotations

import asyncio

import pytest

import aurora_router
from aurora_router.pool import AsyncConnectionPool, ConnectionPool

from .relay import Cut
from .test_cut_off import insert, rows

pytestmark = pytest.mark.cluster

psycopg_pool = pytest.importorskip("psycopg_pool", "3.3")


def change(pair, current):
    pair.run("alter role app password 'new'")
    current["password"] = "new"
    pair.relays[pair.one].arm(Cut.AFTER_ACK)


@pytest.mark.case
def test_the_callable_of_a_pool_is_asked(pair):
    current = {"password": "app"}
    router = aurora_router.Router(pair.conninfo())
    with ConnectionPool(
        pair.conninfo(), kwargs=lambda: {**current, "autocommit": False}, min_size=1, open=True
    ) as pool:
        pool.wait()
        change(pair, current)
        assert router.run_transaction(insert, pool=pool) == "done"
    assert rows(pair) == 1


@pytest.mark.parametrize("awaits", [False, True])
def test_the_callable_of_an_async_pool_is_asked(pair, awaits):
    current = {"password": "app"}

    def conninfo():
        return f"{pair.conninfo()} password={current['password']}"

    async def conninfo_async():
        return conninfo()

    async def work(connection):
        await connection.execute("insert into public.ledger values (1)")
        return "done"

    async def main():
        router = aurora_router.AsyncRouter(pair.conninfo())
        given = conninfo_async if awaits else conninfo
        async with AsyncConnectionPool(given, min_size=1, open=False) as pool:
            await pool.wait()
            change(pair, current)
            assert await router.run_transaction(work, pool=pool) == "done"

    asyncio.run(main())
    assert rows(pair) == 1


def test_a_resolver_that_is_given(pair):
    current = {"password": "app"}
    router = aurora_router.Router(pair.conninfo())

    def work(connection):
        if current["password"] == "app":
            change(pair, current)
        return insert(connection)

    def resolver():
        return aurora_router.Router(pair.conninfo(), **current)

    assert router.run_transaction(work, resolver=resolver) == "done"
    assert rows(pair) == 1


def test_a_resolver_that_raises_leaves_the_outcome_unknown(pair):
    pair.relays[pair.one].arm(Cut.AFTER_ACK)

    def resolver():
        raise PermissionError("no token")

    with pytest.raises(aurora_router.CommitOutcomeUnknown, match="no token") as raised:
        aurora_router.Router(pair.conninfo()).run_transaction(insert, resolver=resolver)
    assert aurora_router.Router(pair.conninfo()).outcome_of(raised.value) is aurora_router.Outcome.COMMITTED
