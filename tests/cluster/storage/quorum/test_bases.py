"""Bases kept in the storage, and the log that they make superfluous."""

from __future__ import annotations

import pytest

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.lsn import parse_lsn
from aurora_router_cluster.storage.bases import ARCHIVE
from tests.cluster.storage.quorum.support import until, value

pytestmark = pytest.mark.cluster


async def test_new_instances_are_built_from_the_newest_base_and_older_log_is_forgotten(cluster):
    connection = await cluster.connect()
    await connection.execute("create table t(i int, filler text)")
    fill = "insert into t select i, repeat('x', 1000) from generate_series(1, 30000) i"
    await connection.execute(fill)
    before = sum(node.size for node in cluster.volume.nodes.values())
    reader = await cluster.connect(cluster.engines["reader-1"])
    await until(lambda: value(reader, "select to_regclass('t') is not null"), "the reader has the table")
    await until(lambda: value(reader, "select count(*) = 30000 from t"), "the reader has the rows")
    first = cluster.volume.status()["first_lsn"]
    await cluster.volume.add_base(cluster.address(cluster.writer))
    await cluster.volume.collect()
    await until(lambda: collected(cluster, first), "readers have applied enough for a collection")
    assert sum(node.size for node in cluster.volume.nodes.values()) < before / 2
    cluster.writer.kill()
    former = cluster.writer
    newborn = await cluster.add_reader("newborn")
    born = await cluster.connect(newborn)
    await until(lambda: value(born, "select count(*) = 30000 from t"), "the newborn has the rows")
    await cluster.volume.nodes.down(4)
    await cluster.fail_over(newborn)
    new = await cluster.volume.membership_change.replace(4)
    await cluster.volume.seed(cluster.address(former), None)
    await cluster.start_reader(former)
    connection = await cluster.connect()
    await connection.execute("insert into t values (0, 'last')")
    again = await cluster.connect(former)
    await until(lambda: value(again, "select count(*) = 30001 from t"), "the former writer follows")
    for node in (0, 1):
        await cluster.volume.nodes.down(node)
        await cluster.volume.nodes.up(node)
    nodes = cluster.volume.nodes
    await until(lambda: len({tuple(nodes[n].groups().items()) for n in (0, 1, 2, 3, 5, new)}) == 1, "all are equal")


async def collected(cluster, first: str) -> bool:
    await cluster.volume.collect()
    return parse_lsn(cluster.volume.status()["first_lsn"]) > parse_lsn(first)


async def test_a_large_base_is_an_archive_and_an_unfinished_one_is_kept(cluster, monkeypatch):
    connection = await cluster.connect()
    await connection.execute("create table t as select i, repeat('x', 1000) from generate_series(1, 2000) i")
    monkeypatch.setattr(cluster.volume, "compress_from", 0)
    writer = cluster.address(cluster.writer)
    real = cluster.volume._until_durable

    async def not_yet(copied):
        raise EngineError("not durable yet")

    monkeypatch.setattr(cluster.volume, "_until_durable", not_yet)
    with pytest.raises(EngineError, match="not durable yet"):
        await cluster.volume.add_base(writer)
    monkeypatch.setattr(cluster.volume, "_until_durable", real)
    cluster.writer.kill()  # what was copied does not need it any more
    await cluster.fail_over(cluster.engines["reader-1"])
    await cluster.volume.add_base(writer)
    made = list(cluster.volume.history.bases)[-1]
    assert (made.directory / ARCHIVE).exists()
    assert 0 < made.size < made.data
    newborn = await cluster.add_reader("newborn")
    born = await cluster.connect(newborn)
    await until(lambda: value(born, "select count(*) = 2000 from t"), "the newborn has the rows")
