"""What the six copies survive, and what they refuse."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from aurora_router_cluster.errors import EngineError, FailoverImpossibleError, RequestError
from aurora_router_cluster.lsn import parse_lsn
from aurora_router_cluster.storage import writer_link
from aurora_router_cluster.storage.core.tracker import LAL
from aurora_router_cluster.storage.driver import Driver
from tests.cluster.storage.quorum.support import Cluster, until, value

pytestmark = pytest.mark.cluster


async def rows(connection) -> set[int]:
    return {row[0] for row in await (await connection.execute("select i from t")).fetchall()}


async def down(cluster, *nodes: int) -> None:
    for node in nodes:
        await cluster.volume.nodes.down(node)


async def up(cluster, *nodes: int) -> None:
    for node in nodes:
        await cluster.volume.nodes.up(node)


def whole(cluster) -> bool:
    """Whether all six copies hold everything."""
    nodes = cluster.volume.status()["nodes"]
    return len({(node.get("scl"), node.get("epoch")) for node in nodes}) == 1


async def test_a_zone_down_commits_go_on_three_down_they_wait_and_are_acknowledged_after_healing(cluster):
    writer, watcher = await cluster.connect(), await cluster.connect()
    reader = await cluster.connect(cluster.engines["reader-1"])
    await writer.execute("create table t(i int)")
    await down(cluster, 0, 1)
    await writer.execute("insert into t values (1)")
    await until(lambda: has(reader, 1), "the reader has the first row")
    await down(cluster, 2)
    waiting = asyncio.create_task(writer.execute("insert into t values (2)"))
    loop = asyncio.get_running_loop()
    await until(lambda: cluster.volume.status()["received_lsn"] != cluster.volume.status()["vdl"], "it is under way")
    assert await rows(watcher) == {1}
    assert await rows(reader) == {1}
    assert not waiting.done()
    began = loop.time()
    await up(cluster, 2)
    await waiting
    assert loop.time() - began < 5.0
    await until(lambda: has(reader, 2), "the reader has the second row")
    await up(cluster, 0, 1)
    await until(lambda: whole(cluster), "all six are whole again")


async def has(connection, number: int) -> bool:
    try:
        return number in await rows(connection)
    except psycopg.errors.UndefinedTable:
        return False


async def test_a_zone_and_one_more_down_readers_go_on_and_new_ones_are_built_but_nothing_can_be_recovered(cluster):
    writer = await cluster.connect()
    await writer.execute("create table t(i int)")
    await writer.execute("insert into t select generate_series(1, 20000)")
    await down(cluster, 0, 1, 2)
    cluster.writer.kill()
    reader = await cluster.connect(cluster.engines["reader-1"])
    assert len(await rows(reader)) == 20000
    newborn = await cluster.add_reader("newborn")
    connection = await cluster.connect(newborn)
    await until(lambda: has(connection, 20000), "a reader born from three copies, with the writer dead")
    with pytest.raises(FailoverImpossibleError, match="write quorum"):
        await cluster.volume.recover()
    await up(cluster, 0)
    await cluster.fail_over(newborn)
    connection = await cluster.connect()
    await connection.execute("insert into t values (0)")
    assert len(await rows(connection)) == 20001


async def test_a_writer_that_does_not_know_that_it_was_replaced_never_acknowledges_a_commit(cluster):
    zombie = cluster.writer
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    await connection.execute("insert into t values (1)")
    await cluster.fail_over(cluster.engines["reader-1"])
    ghost = asyncio.create_task(connection.execute("insert into t values (666)"))
    await until(lambda: not cluster.volume.status()["fenced_epochs"], "the nodes have refused the former writer")
    assert zombie.alive
    assert not ghost.done()
    new = await cluster.connect()
    await new.execute("insert into t values (2)")
    assert await rows(new) == {1, 2}
    follower = await cluster.connect(cluster.engines["reader-2"])
    await until(lambda: has(follower, 2), "the other reader follows")
    assert 666 not in await rows(follower)
    zombie.kill()
    with pytest.raises(psycopg.OperationalError):
        await ghost


async def test_the_former_writer_comes_back_as_a_reader(cluster):
    former = cluster.writer
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    former.kill()
    await cluster.fail_over(cluster.engines["reader-1"])
    await cluster.volume.seed(cluster.address(former), None)
    await cluster.start_reader(former)
    connection = await cluster.connect()
    await connection.execute("insert into t values (1)")
    again = await cluster.connect(former)
    await until(lambda: has(again, 1), "the former writer follows")


async def test_a_lost_tail_and_a_lost_node_are_filled_by_the_peers(cluster):
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    await down(cluster, 5)
    newest = max(cluster.volume.nodes[5].directory.glob("*.frames"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    await connection.execute("insert into t select generate_series(1, 5000)")
    await up(cluster, 5)
    await until(lambda: whole(cluster), "the torn copy is whole again")


async def test_a_flipped_byte_is_found_and_refilled_and_never_served(cluster):
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    await connection.execute("insert into t select generate_series(1, 5000)")
    await until(lambda: whole(cluster), "all six have everything")
    frames = max(cluster.volume.nodes[2].directory.glob("*.frames"))
    content = bytearray(frames.read_bytes())
    content[len(content) // 2] ^= 0x10
    with frames.open("r+b") as file:
        file.write(content)
    reports = {report.node: report for report in await cluster.volume.nodes.scrub()}
    assert reports[2].damaged == 1
    assert reports[2].refilled > 0
    assert not any(report.lost for report in reports.values())
    assert [report.node for report in reports.values() if report.damaged] == [2]
    await down(cluster, 0, 1, 2)
    await up(cluster, 2)
    await until(lambda: cluster.volume.status()["nodes"][2].get("holes") == 0, "the rewritten frames fill the hole")
    await up(cluster, 0, 1)
    await until(lambda: whole(cluster), "all six have everything after a restart")
    await connection.execute("insert into t values (0)")


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
async def test_a_node_is_replaced_under_load(cluster, alive):
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    await connection.execute("insert into t select generate_series(1, 20000)")
    if not alive:
        await down(cluster, 3)
    done = asyncio.Event()
    load = asyncio.create_task(keep_inserting(connection, done))
    new = await cluster.volume.membership_change.replace(3)
    done.set()
    inserted = await load
    status = cluster.volume.status()
    assert status["membership"] == {"slots": [[0], [1], [2], [new], [4], [5]], "joining": [], "version": 4}
    assert [node["node"] for node in status["nodes"]] == [0, 1, 2, 4, 5, new]
    await until(lambda: whole(cluster), "the newcomer is whole")
    await down(cluster, 0, 1)
    cluster.writer.kill()
    await cluster.fail_over(cluster.engines["reader-1"])
    connection = await cluster.connect()
    assert await value(connection, "select count(*) from t") == 20000 + inserted
    with pytest.raises(RequestError, match="not a member"):
        await cluster.volume.membership_change.replace(3)


async def test_a_writer_that_dies_before_its_first_commit_is_replaced(
    binaries, account, template, run_directory, monkeypatch
):
    """What its readers were copied with ends above the base's start, and is durable before a failover is possible."""
    feed = Driver.feed

    def late(driver, start, data):
        asyncio.get_running_loop().call_later(0.1, feed, driver, start, data)

    monkeypatch.setattr(Driver, "feed", late)
    cluster = Cluster(binaries, account, run_directory)
    try:
        await cluster.start(template, readers=1)
        monkeypatch.setattr(Driver, "feed", feed)
        cluster.writer.kill()
        await cluster.fail_over(cluster.engines["reader-1"])
        connection = await cluster.connect()
        await connection.execute("create table t(i int)")
        assert not await rows(connection)
    finally:
        await cluster.close()


async def keep_inserting(connection, done: asyncio.Event) -> int:
    inserted = 0
    while not done.is_set():
        await connection.execute("insert into t values (-1)")
        inserted += 1
    return inserted


async def test_a_writer_is_held_back_ten_megabytes_above_the_durable_log(cluster):
    connection = await cluster.connect()
    await connection.execute("create table t(i int, filler text)")
    await down(cluster, 0, 1, 2)
    fill = "insert into t select i, repeat('x', 1000) from generate_series(1, 30000) i"
    filling = asyncio.create_task(connection.execute(fill))
    await until(lambda: above(cluster) >= LAL, "the limit is reached")
    watcher = await cluster.connect()
    received = parse_lsn(cluster.volume.status()["received_lsn"])
    more = "select pg_current_wal_lsn() - '0/0' > %s"
    await until(lambda: value(watcher, more, received + (4 << 20)), "the writer is ahead of the storage")
    assert above(cluster) < LAL + (1 << 20)
    await up(cluster, 0, 1, 2)
    await filling
    assert above(cluster) == 0


def above(cluster) -> int:
    status = cluster.volume.status()
    return parse_lsn(status["received_lsn"]) - parse_lsn(status["vdl"])


async def test_a_writer_that_was_promoted_too_early_is_refused(cluster):
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    early = cluster.engines["reader-1"]
    await early.promote()
    await connection.execute("insert into t values (1)")
    cluster.writer.kill()
    point = await cluster.volume.recover()
    watcher = await cluster.connect(cluster.engines["reader-2"])
    await until(
        lambda: value(watcher, "select pg_last_wal_replay_lsn() - '0/0' >= %s", point.lsn), "the other reader replays"
    )
    with pytest.raises(EngineError, match="promoted"):
        await cluster.volume.attach(cluster.address(early))


async def test_a_replication_secret_guards_the_endpoint(cluster):
    good = cluster.volume.reader_settings("nobody", None)["primary_conninfo"]
    secret = dict(word.split("=") for word in good.split())["password"]
    with pytest.raises(psycopg.OperationalError, match=r"(?i)password|authentication"):
        await psycopg.AsyncConnection.connect(good.replace(secret, "guess"), replication="true", dbname="replication")


async def promise(cluster, epoch: int, *nodes: int) -> None:
    """What a recovery leaves behind that ends before it opened its epoch."""
    for node in nodes:
        await cluster.volume.nodes[node].promise(epoch)


@pytest.mark.case
@pytest.mark.parametrize("nodes", [(2, 3), (2, 3, 5)], ids=["commits go on", "commits wait"])
async def test_nodes_that_obey_an_epoch_that_nobody_opened_come_back_with_another_one(cluster, nodes):
    writer, volume = await cluster.connect(), cluster.volume
    await writer.execute("create table t(i int)")
    await promise(cluster, 2, *nodes)
    waiting = asyncio.create_task(writer.execute("insert into t values (1)"))
    await until(lambda: volume.disputed, "that they refuse is known")
    if len(nodes) == 2:
        await waiting
        assert [each["state"] for each in volume.status()["nodes"]].count("outside") == 2
    else:
        await until(lambda: not volume.attached, "too few are left")
        assert not waiting.done()
        with pytest.raises(EngineError, match="epoch 1 is over"):
            await volume.attach(cluster.address(cluster.writer))
    await volume.recover()
    await volume.attach(cluster.address(cluster.writer))
    await waiting
    await writer.execute("insert into t values (2)")
    assert not volume.disputed
    assert volume.status()["epoch"] == 3
    assert volume.status()["fenced_epochs"] == []
    await until(lambda: whole(cluster), "all six are whole")
    reader = await cluster.connect(cluster.engines["reader-1"])
    await until(lambda: has(reader, 2), "readers follow")


REPORTED = "select flush_lsn::text from pg_stat_replication where application_name = 'aurora_storage'"


@pytest.mark.case
async def test_attaching_does_not_wait_for_a_quorum_that_is_gone(cluster, monkeypatch):
    """The control plane holds its lock meanwhile, without which not even a repair can begin."""
    monkeypatch.setattr(writer_link, "CATCH_UP", 0.2)
    writer, volume = await cluster.connect(), cluster.volume
    await writer.execute("create table t(i int)")
    await down(cluster, 0, 1, 2)
    waiting = asyncio.create_task(writer.execute("insert into t values (1)"))
    await until(lambda: volume.status()["received_lsn"] != volume.status()["vdl"], "it is under way")
    other = await cluster.connect()
    await other.execute("select pg_terminate_backend(pid) from pg_stat_replication where application_name ~ 'storage'")
    await until(lambda: not volume.attached, "the stream has ended")
    await asyncio.wait_for(volume.attach(cluster.address(cluster.writer)), 5.0)
    assert volume.attached
    assert await value(other, REPORTED) == volume.status()["vdl"]
    assert not waiting.done(), "what the storage has received is not what is durable"
    await until(lambda: volume.status()["stalled"] is not None or volume.status()["quorum"] != "write", "it is said")
    await up(cluster, 0, 1, 2)
    await waiting
