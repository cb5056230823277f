from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.cluster.storage.quorum.support import until, value

pytestmark = pytest.mark.cluster


async def test_a_commit_reaches_the_readers(cluster):
    writer = await cluster.connect()
    await writer.execute("create table t(i int)")
    await writer.execute("insert into t values (1)")
    for name in ("reader-1", "reader-2"):
        reader = await cluster.connect(cluster.engines[name])
        await until(lambda reader=reader: count(reader), f"{name} has the row")
    assert cluster.volume.status()["attached"]


async def count(connection) -> int:
    try:
        return await value(connection, "select count(*) from t")
    except psycopg.errors.UndefinedTable:
        return 0


async def test_failovers_lose_nothing_that_was_acknowledged(cluster):
    writer = await cluster.connect()
    await writer.execute("create table t(i int primary key)")
    acknowledged: list[int] = []
    for candidate in ("reader-1", "reader-2"):
        load = asyncio.create_task(insert(cluster, acknowledged))
        before = len(acknowledged)
        await until(lambda before=before: len(acknowledged) > before + 50, "fifty commits")
        cluster.writer.kill()
        await load
        times = await cluster.fail_over(cluster.engines[candidate])
        connection = await cluster.connect()
        rows = {row[0] for row in await (await connection.execute("select i from t")).fetchall()}
        assert set(acknowledged) <= rows, times
    assert cluster.volume.status()["timelines"][-1]["tli"] == 3


async def insert(cluster, acknowledged: list[int]) -> None:
    connection = await cluster.connect()
    number = max(acknowledged, default=0)
    while True:
        number += 1
        try:
            await connection.execute("insert into t values (%s) on conflict do nothing", (number,))
        except psycopg.OperationalError:
            return
        acknowledged.append(number)
