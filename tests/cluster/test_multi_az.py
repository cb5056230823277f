"""The flavour ``multi-az``: the SQL surface of RDS Multi-AZ DB clusters, and no commit lost that was acknowledged."""

from __future__ import annotations

import contextlib
import threading
import time

import psycopg
import pytest

import aurora_router
from aurora_router_cluster import LocalCluster, errors

pytestmark = pytest.mark.cluster

TOPOLOGY = "SELECT id, endpoint, port FROM rds_tools.show_topology('aws_jdbc_driver-4.4.0')"
SOURCE = "SELECT rds_tools.multi_az_db_cluster_source_dbi_resource_id()"


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(flavour="multi-az", detect=0.1) as cluster:
        yield cluster


def connect(cluster, target="writer"):
    return psycopg.connect(cluster.plain_conninfo(target), autocommit=True)


def settled(cluster):
    return all(one.state == "available" and not one.frozen for one in cluster.instances)


MUCH = 100  # commits


def write_much(conn, table):
    """More than the sockets to a reader that is held have room for."""
    for _ in range(MUCH):
        conn.execute(f"INSERT INTO {table} SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 1000)")


@pytest.fixture
def restored(cluster, eventually):
    yield
    for one in cluster.instances:
        if one.frozen:
            cluster.thaw(one.name)
        if one.state == "stopped" and one.pid is None:
            with contextlib.suppress(errors.RequestError):  # it is back meanwhile
                cluster.start_instance(one.name)
    eventually(lambda: settled(cluster))


def test_every_instance_lists_all_and_knows_the_source(cluster, eventually):
    eventually(lambda: settled(cluster))
    ids = {}
    for one in cluster.instances:
        with connect(cluster, f"instance:{one.name}") as conn:
            ids[one.name] = conn.execute("SELECT rds_tools.dbi_resource_id()").fetchone()[0]
            listed = conn.execute(TOPOLOGY).fetchall()
            assert sorted(listed, key=lambda row: row[1]) == sorted(
                [(row[0], each.endpoint, each.port) for row, each in zip(sorted(listed, key=lambda row: row[1]), sorted(
                    cluster.instances, key=lambda each: each.endpoint), strict=True)], key=lambda row: row[1],
            )  # fmt: skip
            assert ids[one.name] in {row[0] for row in listed}
    for one in cluster.instances:
        with connect(cluster, f"instance:{one.name}") as conn:
            assert conn.execute(SOURCE).fetchone()[0] == ids[cluster.writer]


def test_it_shows_what_other_drivers_recognise_it_by(cluster):
    with connect(cluster) as conn:
        (extensions,) = conn.execute("SELECT setting FROM pg_settings WHERE name = 'rds.extensions'").fetchone()
        assert "rds_tools" in extensions
        assert "aurora_stat_utils" not in extensions
        with pytest.raises(psycopg.errors.UndefinedFunction):
            conn.execute("SELECT aurora_db_instance_identifier()")


def test_the_driver_recognises_it(cluster):
    view = aurora_router.Router(cluster.conninfo()).topology()
    assert view.writer == cluster.writer
    assert set(view.instances) == {one.name for one in cluster.instances}
    with aurora_router.connect(cluster.conninfo("reader")) as conn:
        assert conn.placement.instance in cluster.readers
        assert conn.execute("SELECT current_setting('cluster_name')").fetchone()[0] == conn.placement.instance


def test_a_commit_waits_until_a_reader_has_it(cluster, restored):
    with connect(cluster) as conn:
        conn.execute("CREATE TABLE waits (n int)")
        for name in cluster.readers:
            cluster.freeze(name)
        done = threading.Event()

        def commit():
            conn.execute("INSERT INTO waits VALUES (1)")
            done.set()

        thread = threading.Thread(target=commit)
        thread.start()
        assert not done.wait(0.5)
        cluster.thaw(cluster.readers[0])
        assert done.wait(20)
        thread.join()


@pytest.mark.parametrize("round_", range(3))
def test_the_reader_with_the_most_log_is_promoted(cluster, restored, eventually, round_):
    """One reader is held while commits are acknowledged by the other, and answers again as the writer is lost."""
    with connect(cluster) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS most (n text)")
        before, behind = cluster.writer, cluster.readers[round_ % 2]
        (ahead,) = set(cluster.readers) - {behind}
        (there,) = conn.execute("SELECT count(*) FROM most").fetchone()
        cluster.freeze(behind)
        write_much(conn, "most")
        cluster.kill(before)
    cluster.thaw(behind)
    eventually(lambda: cluster.writer not in {None, before})
    assert cluster.writer == ahead
    with connect(cluster) as conn:
        assert conn.execute("SELECT count(*) FROM most").fetchone() == (there + MUCH,)


def test_a_reader_that_may_have_more_has_to_answer_first(cluster, restored, eventually):
    before, ahead = cluster.writer, cluster.readers[0]
    with connect(cluster) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS owed (n text)")
        behind = cluster.readers[1]
        cluster.freeze(behind)
        write_much(conn, "owed")
        cluster.kill(ahead, hold=True)
        cluster.kill(before)
    cluster.thaw(behind)
    time.sleep(1.5)
    assert cluster.writer in {None, before}, "the other one has all of the commits"
    cluster.start_instance(ahead)
    eventually(lambda: cluster.writer == ahead)
    with connect(cluster) as conn:
        assert conn.execute("SELECT count(*) FROM owed").fetchone() == (MUCH,)


def test_a_reader_that_was_down_long_before_is_not_waited_for(cluster, restored, eventually):
    before, other = cluster.writer, cluster.readers[1]
    cluster.kill(cluster.readers[0], hold=True)
    time.sleep(1.0)
    with connect(cluster) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS alone (n int)")
        conn.execute("INSERT INTO alone VALUES (1)")
    cluster.kill(before)
    eventually(lambda: cluster.writer == other)


def test_a_named_reader_that_lacks_log_is_refused(cluster, restored, eventually):
    behind, before = cluster.readers[0], cluster.writer
    with connect(cluster, f"instance:{behind}") as held:
        held.execute("SELECT 1")
        done = cluster.failover(behind)
    assert (done.writer, done.planned) == (behind, True)
    eventually(lambda: settled(cluster))
    with connect(cluster, f"instance:{before}") as conn:
        assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_it_has_two_readers(readers):
    with pytest.raises(errors.RequestError, match="a cluster of flavour 'multi-az' has 2 readers"):
        LocalCluster.start(flavour="multi-az", readers=readers)


def test_none_is_added_or_removed(cluster):
    for change in (cluster.add_reader, lambda: cluster.remove(cluster.readers[0])):
        with pytest.raises(errors.RequestError, match="has 2 readers: none is added or removed"):
            change()
