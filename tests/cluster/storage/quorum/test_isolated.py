"""The same volume over nodes in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal

import psycopg
import pytest

from aurora_router_cluster.errors import FailoverImpossibleError, RequestError
from tests.cluster.storage.quorum.support import Cluster, until, value
from tests.cluster.storage.quorum.test_quorum import down, has, keep_inserting, up, whole

pytestmark = pytest.mark.cluster


@pytest.fixture
async def cluster(binaries, account, template, run_directory):
    made = Cluster(binaries, account, run_directory, isolated=True)
    try:
        await made.start(template, readers=2)
        yield made
    finally:
        await made.close()


async def fresh(cluster) -> bool:
    await cluster.volume.look()
    return whole(cluster)


async def test_killed_nodes_a_lost_quorum_a_failover_and_a_replacement(cluster):
    connection = await cluster.connect()
    reader = await cluster.connect(cluster.engines["reader-1"])
    await connection.execute("create table t(i int)")
    await down(cluster, 0, 1)
    await connection.execute("insert into t values (1)")
    os.kill(cluster.volume.nodes[2].pid, signal.SIGKILL)
    await until(lambda: not cluster.volume.nodes[2].connected, "its loss is noticed")
    waiting = asyncio.create_task(connection.execute("insert into t values (2)"))
    await until(lambda: cluster.volume.status()["received_lsn"] != cluster.volume.status()["vdl"], "it is under way")
    assert not waiting.done()
    cluster.volume.nodes.revive()
    await waiting
    await until(lambda: has(reader, 2), "the reader has the row")
    await up(cluster, 0, 1)
    await until(lambda: fresh(cluster), "all six are whole again")
    done = asyncio.Event()
    load = asyncio.create_task(keep_inserting(connection, done))
    new = await cluster.volume.membership_change.replace_zone("eu-test-1c")
    done.set()
    inserted = await load
    assert new == {4: 6, 5: 7}
    cluster.writer.kill()
    await cluster.fail_over(cluster.engines["reader-1"])
    connection = await cluster.connect()
    assert await value(connection, "select count(*) from t") == 2 + inserted
    reports = await cluster.volume.nodes.scrub()
    assert [(report.node, report.damaged) for report in reports] == [(0, 0), (1, 0), (2, 0), (3, 0), (6, 0), (7, 0)]


async def test_a_node_that_hangs_delays_nobody_and_catches_up(cluster):
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    pid = cluster.volume.nodes[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await connection.execute("insert into t select generate_series(1, 50000)")
        cluster.writer.kill()
        await cluster.fail_over(cluster.engines["reader-1"])
        newborn = await cluster.add_reader("newborn")
    finally:
        os.kill(pid, signal.SIGCONT)
    born = await cluster.connect(newborn)
    await until(lambda: has(born, 50000), "a reader built meanwhile has the rows")
    await until(lambda: fresh(cluster), "the node that hung is whole again")


async def test_with_three_nodes_gone_for_good_a_new_membership_is_formed(cluster):
    connection = await cluster.connect()
    await connection.execute("create table t(i int)")
    await connection.execute("insert into t select generate_series(1, 20000)")
    with pytest.raises(RequestError, match="are a write quorum"):
        await cluster.volume.membership_change.repair(force=True)
    await down(cluster, 0, 1, 4)
    waiting = asyncio.create_task(connection.execute("insert into t values (-1)"))
    with pytest.raises(RequestError, match="storage nodes 0, 1, 4 do not answer, 2, 3, 5 are left"):
        await cluster.volume.membership_change.repair(force=False)
    await down(cluster, 5)
    with pytest.raises(FailoverImpossibleError, match=r"only nodes \[2, 3\] are left"):
        await cluster.volume.membership_change.repair(force=True)
    await up(cluster, 5)
    done = await cluster.volume.membership_change.repair(force=True)
    assert done == {"survivors": [2, 3, 5], "replaced": [[0, 6], [1, 7], [4, 8]]}
    cluster.writer.kill()
    with pytest.raises(psycopg.OperationalError):
        await waiting
    await cluster.fail_over(cluster.engines["reader-1"])
    connection = await cluster.connect()
    assert await value(connection, "select count(*) from t where i > 0") == 20000
    await connection.execute("insert into t values (-2)")
    status = cluster.volume.status()["membership"]
    assert (status["slots"], status["joining"]) == ([[6], [7], [2], [3], [8], [5]], [])
    await until(lambda: fresh(cluster), "all six are whole")
    await down(cluster, 2, 3, 5)
    newborn = await cluster.connect(await cluster.add_reader("newborn"))
    await until(lambda: has(newborn, -2), "the newcomers alone hold everything")
