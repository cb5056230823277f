from __future__ import annotations

import threading
import time

import dns.message
import dns.query
import psycopg
import pytest

from aurora_router_cluster import LocalCluster, errors

pytestmark = pytest.mark.cluster


@pytest.fixture(params=["direct", "quorum"])
def start(request):
    running = []

    def go(**options):
        running.append(LocalCluster.start(flavour=request.param, **options))
        return running[-1]

    yield go
    for cluster in running:
        cluster.close()


def connect(cluster, target="writer"):
    return psycopg.connect(cluster.plain_conninfo(target), autocommit=True)


def settled(cluster):
    return all(one.state == "available" for one in cluster.instances)


def resolve(cluster, target="writer"):
    host, port = cluster.dns.split(":")
    query = dns.message.make_query(cluster.endpoint(target), "A")
    return dns.query.udp(query, host, port=int(port), timeout=5).answer[0][0].to_text()


def rows(cluster, target):
    with connect(cluster, target) as connection:
        return [row[0] for row in connection.execute("select i from ledger order by 1").fetchall()]


def test_a_switchover_loses_nothing_and_everybody_follows(start, eventually):
    cluster = start(readers=2)
    with connect(cluster) as writer:
        writer.execute("create table ledger (i int)")
        writer.execute("insert into ledger select generate_series(1, 1000)")
    for turn, target in enumerate(("demo-3", "demo-1", "demo-2"), start=1):
        done = cluster.failover(target)
        assert (done.writer, done.epoch, done.planned) == (target, turn + 1, True)
        assert done.seconds > 0
        assert resolve(cluster) == cluster.instance(target).host
        with connect(cluster) as writer:
            writer.execute("insert into ledger values (%s)", (1000 + turn,))
        eventually(lambda: settled(cluster))
        for name in cluster.readers:
            eventually(lambda name=name, turn=turn: len(rows(cluster, f"instance:{name}")) == 1000 + turn)
    assert cluster.status().epoch == 4


def test_the_new_writer_never_shows_the_old_one_as_writer(start):
    """From the first answer after the promotion on, whatever the status file still says."""
    cluster = start(readers=1)
    query = "select server_id from aurora_replica_status() where session_id = 'MASTER_SESSION_ID'"
    seen = set()
    with connect(cluster, "instance:demo-2") as session:
        failing_over = threading.Thread(target=cluster.failover)
        failing_over.start()
        promoted = 0
        while promoted < 20:
            recovering = session.execute("select pg_is_in_recovery()").fetchone()[0]
            writers = tuple(row[0] for row in session.execute(query).fetchall())
            if recovering and session.execute("select not pg_is_in_recovery()").fetchone()[0]:
                continue  # promoted between two questions: either answer was right
            seen.add((recovering, writers))
            promoted += not recovering
        failing_over.join()
    assert seen == {(True, ("demo-1",)), (False, ("demo-2",))}


def test_a_killed_writer_is_replaced_and_comes_back_as_a_reader(start, eventually):
    cluster = start(readers=2)
    with connect(cluster) as writer:
        writer.execute("create table ledger (i int)")
    cluster.kill("demo-1")
    successor = eventually(lambda: cluster.writer != "demo-1" and cluster.writer)
    with connect(cluster) as writer:
        writer.execute("insert into ledger values (1)")
    eventually(lambda: settled(cluster))
    assert cluster.instance("demo-1").role == "reader"
    eventually(lambda: rows(cluster, "instance:demo-1") == [1])
    assert cluster.status().writer == successor


def test_what_only_the_lost_writer_had_is_rewound(start, eventually):
    """Replication is asynchronous here: the reader is held, the writer goes on and is lost."""
    cluster = start(readers=1, detect=0.1)
    with connect(cluster) as writer:
        writer.execute("create table ledger (i int)")
        eventually(lambda: rows_or_none(cluster, "instance:demo-2") == [])
        cluster.freeze("demo-2")
        for i in range(2000):
            writer.execute("insert into ledger select %s", (i,))
        cluster.kill("demo-1", hold=True)
    cluster.thaw("demo-2")
    eventually(lambda: cluster.writer == "demo-2")
    survivors = rows(cluster, "writer")
    with connect(cluster) as writer:
        writer.execute("insert into ledger values (-1)")
    cluster.start_instance("demo-1")
    eventually(lambda: settled(cluster))
    eventually(lambda: rows_or_none(cluster, "instance:demo-1") == [-1, *survivors])


def rows_or_none(cluster, target):
    try:
        return rows(cluster, target)
    except (psycopg.errors.UndefinedTable, psycopg.OperationalError):  # not replayed yet; just being rebuilt
        return None


def test_a_frozen_writer_is_noticed_and_replaced(start, eventually):
    cluster = start(readers=1)
    with connect(cluster) as old:
        cluster.freeze("demo-1")
        assert cluster.instance("demo-1").frozen
        eventually(lambda: cluster.writer == "demo-2")
        hung = cluster.instance("demo-1")
        assert (hung.role, hung.state, hung.frozen) == ("reader", "unreachable", True)
        assert hung.pid is not None
        assert resolve(cluster, "reader") == cluster.instance("demo-2").host
        cluster.thaw("demo-1")
        eventually(lambda: settled(cluster) and not cluster.instance("demo-1").frozen)
        with pytest.raises(psycopg.OperationalError):
            old.execute("select 1")
    with connect(cluster, "instance:demo-1") as former:
        assert former.execute("select pg_is_in_recovery()").fetchone() == (True,)


def test_a_short_stop_is_no_failure(start, eventually):
    cluster = start(readers=1)
    cluster.freeze("demo-1")
    cluster.thaw("demo-1")
    eventually(lambda: settled(cluster))
    assert cluster.status().epoch == 1


def test_the_lowest_tier_is_promoted(start, eventually):
    cluster = start(readers=2)
    cluster.add_reader("first", tier=0)
    assert cluster.failover().writer == "first"


def test_without_a_reader_the_writer_is_restarted(start, eventually):
    cluster = start(readers=0)
    assert resolve(cluster, "reader") == cluster.instance("demo-1").host
    with connect(cluster) as writer:
        writer.execute("create table ledger as select 1 as i")
    pid = cluster.instance("demo-1").pid
    with pytest.raises(errors.FailoverImpossibleError, match="none answers as a reader; add a reader"):
        cluster.failover()
    cluster.kill("demo-1")
    eventually(lambda: cluster.instance("demo-1").pid not in {None, pid} and settled(cluster) and cluster.writer)
    assert rows(cluster, "writer") == [1]
    assert cluster.status().epoch == {"direct": 1, "quorum": 2}[cluster.status().flavour]  # there it is a promotion


def test_a_killed_reader_stays_down_only_when_held(start, eventually):
    cluster = start(readers=2)
    cluster.kill("demo-2", hold=True)
    eventually(lambda: cluster.instance("demo-2").state == "stopped")
    assert {resolve(cluster, "reader") for _ in range(3)} == {cluster.instance("demo-3").host}
    cluster.start_instance("demo-2")
    assert cluster.instance("demo-2").state == "available"
    pid = cluster.instance("demo-3").pid
    cluster.kill("demo-3")
    eventually(lambda: cluster.instance("demo-3").pid not in {None, pid} and settled(cluster))


def test_without_automation_nothing_happens_until_asked(start, eventually):
    cluster = start(readers=1, auto=False)
    with connect(cluster) as writer:
        writer.execute("create table ledger (i int)")
    cluster.kill("demo-1")
    eventually(lambda: cluster.instance("demo-1").state == "stopped")
    assert cluster.writer == "demo-1"
    done = cluster.failover()
    assert (done.writer, done.planned) == ("demo-2", False)
    eventually(lambda: settled(cluster))


def test_the_cluster_name_follows_after_the_delay(start, eventually):
    cluster = start(readers=1, dns_delay=1.5)
    former = cluster.instance("demo-1").host
    cluster.failover()
    assert resolve(cluster) == former
    eventually(lambda: resolve(cluster) == cluster.instance("demo-2").host)


def test_a_reader_that_lost_its_way_is_built_anew(start, eventually):
    """Its log is gone from the writer: it can never catch up by streaming."""
    cluster = start(readers=1, settings={"wal_keep_size": "0", "min_wal_size": "2MB", "max_wal_size": "2MB"})
    with connect(cluster) as writer:
        writer.execute("create table ledger (i int)")
        cluster.kill("demo-2", hold=True)
        with psycopg.connect(
            host=cluster.instance("demo-1").socket_directory, port=cluster.port, user="postgres", dbname="app",
            autocommit=True,
        ) as superuser:  # fmt: skip
            for _ in range(6):
                superuser.execute("insert into ledger select generate_series(1, 20000)")
                superuser.execute("select pg_switch_wal()")
                superuser.execute("checkpoint")
        writer.execute("truncate ledger")
        writer.execute("insert into ledger values (7)")
    cluster.start_instance("demo-2")
    eventually(lambda: settled(cluster) and rows_or_none(cluster, "instance:demo-2") == [7])


def test_at_the_pace_of_aws_a_failover_takes_time_and_the_readers_along(eventually):
    with LocalCluster.start(readers=2, pace="aws", detection=0.5, promotion=0.5, dns_delay=20.0) as cluster:
        paced(cluster, eventually)


def paced(cluster, eventually):
    with connect(cluster) as writer:
        writer.execute("create table ledger (i int)")
        writer.execute("insert into ledger values (1)")
    sessions = [connect(cluster, f"instance:{name}") for name in cluster.readers]
    former, before = cluster.writer, resolve(cluster)
    began = time.monotonic()
    cluster.kill(former)
    eventually(lambda: cluster.status().epoch == 2)
    assert time.monotonic() - began >= 1.0
    for session in sessions:
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("select 1")
        session.close()
    assert resolve(cluster) == before
    eventually(lambda: settled(cluster))
    assert rows(cluster, f"instance:{cluster.writer}") == [1]
    done = cluster.failover()
    assert done.planned
    assert done.phases["pace"] >= 0.5
    eventually(lambda: settled(cluster))
    assert len(cluster.readers) == 2
