"""A volume striped over protection groups, which grows by itself."""

from __future__ import annotations

import pytest

from tests.cluster.storage.quorum.support import Cluster, until, value

pytestmark = pytest.mark.cluster

GROUP = 4 << 20


@pytest.fixture
async def striped(binaries, account, template, run_directory):
    made = Cluster(binaries, account, run_directory, group_bytes=GROUP)
    try:
        await made.start(template, readers=2)
        yield made
    finally:
        await made.close()


def groups(cluster) -> set[int]:
    return set(cluster.volume.nodes[0].groups())


async def test_a_volume_grows_over_eight_groups_and_survives_failovers_and_lost_nodes(striped):
    connection = await striped.connect()
    for number in range(8):
        await connection.execute(f"create table t{number}(i int, filler text)")
        fill = f"insert into t{number} select i, repeat('x', 400) from generate_series(1, 8000) i"
        await connection.execute(fill)
    assert len(groups(striped)) >= 8
    await striped.volume.nodes.down(5)
    await connection.execute("insert into t3 select -i, 'late' from generate_series(1, 1000) i")
    striped.writer.kill()
    await striped.fail_over(striped.engines["reader-1"])
    await striped.volume.nodes.up(5)
    connection = await striped.connect()
    await connection.execute("insert into t7 values (-1, 'after')")
    assert await value(connection, "select count(*) from t3") == 9000
    before = groups(striped)
    await connection.execute("create table more as select i, repeat('y', 900) from generate_series(1, 20000) i")
    assert groups(striped) > before
    await striped.volume.nodes.down(0)
    await striped.volume.nodes.down(1)
    newborn = await striped.add_reader("newborn")
    reader = await striped.connect(newborn)
    await until(lambda: has_all(reader), "a reader built from four nodes has everything")


async def has_all(reader) -> bool:
    if await value(reader, "select to_regclass('more') is null"):
        return False
    return await value(reader, "select (select count(*) from t3) = 9000 and (select count(*) from more) = 20000")
