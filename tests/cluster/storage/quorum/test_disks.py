"""Disks of storage nodes that are full, under real engines: absent, reported, and back when there is room."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from tests.cluster.storage.mounts import fill, free, small_disk
from tests.cluster.storage.quorum.support import Cluster, until, value

pytestmark = pytest.mark.cluster


@pytest.fixture(params=[False, True], ids=["here", "isolated"])
async def cluster(request, binaries, account, template, run_directory):
    with ExitStack() as mounted:
        for number in range(6):
            mounted.enter_context(small_disk(run_directory / "storage" / f"node-{number}", 24))
        made = Cluster(binaries, account, run_directory, sync=True, isolated=request.param)
        try:
            await made.start(template)
            yield made
        finally:
            await made.close()


def disks(cluster):
    return [cluster.directory / "storage" / f"node-{number}" for number in range(6)]


async def states(cluster):
    await cluster.volume.look()
    status = cluster.volume.status()
    return status["quorum"], [node["state"] for node in status["nodes"]]


async def back(cluster):
    await cluster.volume.nodes.reopen_failed()
    return await states(cluster) == ("write", ["complete"] * 6)


async def test_full_disks_make_copies_absent_until_there_is_room(cluster):
    session = await cluster.connect()
    await session.execute("create table t(i int, filler text)")
    one, *_ = disks(cluster)
    fill(one)
    await session.execute("insert into t select i, repeat('x', 500) from generate_series(1, 500) i")

    async def failed():
        return (await states(cluster))[1][0] == "failed"

    await until(failed, "the full copy is absent")
    assert await states(cluster) == ("write", ["failed", *["complete"] * 5])
    (absent,) = [node for node in cluster.volume.status()["nodes"] if node["state"] == "failed"]
    assert "No space left on device" in absent["failure"]
    await cluster.volume.nodes.reopen_failed()
    assert (await states(cluster))[1][0] == "failed"
    reports = await cluster.volume.nodes.scrub()
    assert [report.damaged for report in reports] == [0] * 6
    assert [report.failure is None for report in reports] == [False, *[True] * 5]
    free(one)
    await until(lambda: back(cluster), "the copy is whole again")

    for disk in disks(cluster):
        fill(disk)
    waiting = asyncio.ensure_future(
        session.execute("insert into t select i, repeat('y', 500) from generate_series(501, 1000) i")
    )

    async def all_failed():
        return (await states(cluster))[1] == ["failed"] * 6

    await until(all_failed, "no copy takes anything")
    assert (await states(cluster))[0] == "lost"
    assert not waiting.done()
    other = await cluster.connect()
    assert await value(other, "select count(*) from t") == 500
    for disk in disks(cluster):
        free(disk)
    await until(lambda: back(cluster), "all copies are whole again")
    await asyncio.wait_for(waiting, 20)
    reader = await cluster.connect(cluster.engines["reader-1"])

    async def arrived():
        return await value(reader, "select count(*) from t") == 1000

    await until(arrived, "the reader has all that was acknowledged")
