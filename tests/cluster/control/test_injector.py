"""Faults done to a real cluster, and healed; one cluster for all that leaves it whole."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import psycopg
import pytest

from aurora_router_cluster import LocalCluster, errors
from tests.superuser import connect_as_superuser

pytestmark = pytest.mark.cluster


@pytest.fixture
def is_healed():
    return settled


@pytest.fixture
def cluster(faulty_cluster):
    return faulty_cluster


def settled(cluster):
    """All answer, and only the writer takes itself for one."""
    return all(
        one.state == "available" and recovering(cluster, one) is (one.role == "reader") for one in cluster.instances
    )


def recovering(cluster, one):
    with contextlib.suppress(psycopg.OperationalError), connect_as_superuser(cluster, one.name) as session:
        return session.execute("select pg_is_in_recovery()").fetchone()[0]
    return None


def connect(cluster, target="writer", **extra):
    return psycopg.connect(cluster.plain_conninfo(target, **extra), autocommit=True)


def times_out(cluster, target):
    with pytest.raises(psycopg.errors.ConnectionTimeout), connect(cluster, target, connect_timeout=2):
        pass
    return True


def refused(cluster, target):
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(cluster, target)
    return "refused" in str(caught.value)


def resolve(cluster, target="writer", timeout=5.0):
    host, port = cluster.dns.split(":")
    return dns.query.udp(dns.message.make_query(cluster.endpoint(target), "A"), host, port=int(port), timeout=timeout)


def statuses(cluster, name, column="server_id"):
    with connect_as_superuser(cluster, name) as session:
        rows = session.execute(f"select server_id, {column} from aurora_replica_status()").fetchall()
    return dict(rows)


def test_a_partitioned_writer_is_failed_over_and_lives_on_as_a_zombie(cluster, eventually):
    old = cluster.writer
    pid = cluster.instance(old).pid
    with connect(cluster) as client, connect_as_superuser(cluster, old) as zombie:
        with cluster.faults.partition(old) as injected:
            assert [fault.text for fault in cluster.status().faults] == [f"{injected.id} partition {old}"]
            assert times_out(cluster, f"instance:{old}")
            eventually(lambda: cluster.writer != old)
            with connect(cluster) as writer:
                writer.execute("insert into ledger values (1)")
            assert zombie.execute("select pg_is_in_recovery()").fetchone() == (False,)
            assert cluster.instance(old).pid == pid
            assert cluster.instance(old).state == "unreachable"
            assert [name for name, session in statuses(cluster, old, "session_id").items()
                    if session == "MASTER_SESSION_ID"] == [old]  # fmt: skip
        eventually(lambda: settled(cluster))
        with pytest.raises(psycopg.OperationalError):
            client.execute("select 1")
    with connect(cluster, f"instance:{old}") as former:
        assert former.execute("select pg_is_in_recovery()").fetchone() == (True,)


def test_a_commit_of_a_partitioned_writer_is_not_acknowledged(cluster, eventually):
    """Its log does not reach the storage, so also a session inside waits, and its row never was."""
    old = cluster.writer
    with contextlib.closing(connect_as_superuser(cluster, old)) as zombie, cluster.faults.partition(old):
        zombie.pgconn.send_query(b"insert into public.ledger values (666)")
        eventually(lambda: cluster.writer != old)
        with connect(cluster) as writer:
            assert writer.execute("select * from ledger where i = 666").fetchall() == []
        zombie.pgconn.consume_input()
        assert zombie.pgconn.is_busy()
    eventually(lambda: settled(cluster))
    for each in cluster.instances:
        with connect(cluster, f"instance:{each.name}") as session:
            assert session.execute("select * from ledger where i = 666").fetchall() == []


def test_clients_only(cluster):
    old, reader = cluster.writer, cluster.readers[0]
    with cluster.faults.partition(old, clients_only=True), cluster.faults.partition(reader, clients_only=True):
        assert times_out(cluster, f"instance:{old}")
        with connect_as_superuser(cluster, old) as session:
            session.execute("insert into ledger values (2)")
        time.sleep(1.5)  # longer than a failover takes
        assert cluster.writer == old
        assert settled(cluster)
    with connect(cluster) as writer:
        assert writer.execute("select count(*) from ledger where i = 2").fetchone() == (1,)


def test_a_partitioned_reader_leaves_the_reader_endpoint_and_comes_back(cluster, eventually):
    cut, other = cluster.readers
    with cluster.faults.partition(cut):
        eventually(lambda: cluster.instance(cut).state == "unreachable")
        with connect(cluster) as writer:
            writer.execute("insert into ledger values (3)")
        with connect_as_superuser(cluster, cut) as session:
            assert session.execute("select * from ledger where i = 3").fetchall() == []
        found = {resolve(cluster, "reader").answer[0][0].to_text() for _ in range(4)}
        assert found == {cluster.instance(other).host}
    eventually(lambda: settled(cluster))

    def arrived():
        with connect_as_superuser(cluster, cut) as session:
            return session.execute("select * from ledger where i = 3").fetchall() == [(3,)]

    eventually(arrived)


def test_a_slow_instance(cluster):
    reader = cluster.readers[0]
    with connect(cluster, f"instance:{reader}") as client:
        with cluster.faults.slow(reader, latency=0.1):
            began = time.monotonic()
            client.execute("select 1")
            assert time.monotonic() - began >= 0.2
        with cluster.faults.slow(reader, bandwidth=100):
            began = time.monotonic()
            client.execute("select repeat('x', 100 * 1024)")
            assert time.monotonic() - began >= 0.9


def test_hang_and_kill_until_healed(cluster, eventually):
    one, two = cluster.readers
    with cluster.faults.hang(one), cluster.faults.kill(two, hold=True):
        assert cluster.instance(one).frozen
        eventually(lambda: cluster.instance(two).state == "stopped")
        eventually(lambda: refused(cluster, f"instance:{two}"))
        assert {fault.kind for fault in cluster.faults.list()} == {"hang", "kill"}
    assert cluster.instance(two).state == "available"
    assert not cluster.instance(one).frozen
    pid = cluster.instance(one).pid
    momentary = cluster.faults.kill(one)
    assert not momentary.fault.in_force
    eventually(lambda: cluster.instance(one).pid not in {None, pid})
    momentary.heal()  # nothing to do


def test_status_rows_of_a_skewed_clock_and_a_stale_view(cluster, eventually):
    stale, skewed = cluster.readers
    writer = cluster.writer

    def ahead(name):
        with connect_as_superuser(cluster, writer) as session:
            return session.execute(
                "select extract(epoch from last_update_timestamp - clock_timestamp())::float8 "
                "from aurora_replica_status() where server_id = %s",
                [name],
            ).fetchone()[0]

    with cluster.faults.clock_skew(skewed, 3600), cluster.faults.stale_view(stale):
        assert 3500 < ahead(skewed) <= 3600
        assert -60 < ahead(stale) <= 1
        with cluster.faults.kill(skewed, hold=True):
            cluster.failover(stale)  # of two readers, one is down
            assert cluster.writer == stale
            cluster.remove(skewed)
            assert skewed not in statuses(cluster, writer)
            assert skewed in statuses(cluster, stale)
    eventually(lambda: skewed not in statuses(cluster, stale))
    cluster.add_reader(skewed)


def test_dns_stale_and_down(cluster, eventually):
    def address():
        return resolve(cluster).answer[0][0].to_text()

    before = address()
    stale = cluster.faults.dns_stale()
    cluster.failover()
    assert address() == before
    stale.heal()
    assert address() == cluster.instance(cluster.writer).host != before
    with cluster.faults.dns_down(), pytest.raises(dns.exception.Timeout):
        resolve(cluster, timeout=0.5)
    with cluster.faults.dns_down(refuse=True):
        assert resolve(cluster).rcode() == dns.rcode.SERVFAIL
    assert address()


def test_a_zone_is_cut_off(cluster, eventually):
    old = cluster.instance(cluster.writer)
    with cluster.faults.partition(old.zone):
        eventually(lambda: cluster.writer != old.name)
        assert times_out(cluster, f"instance:{old.name}")
        with connect(cluster) as writer:
            writer.execute("insert into ledger values (5)")
    eventually(lambda: settled(cluster))


def test_what_is_refused(cluster):
    faults = cluster.faults
    with pytest.raises(errors.UnknownInstanceError, match="has no instance 'nobody'"):
        faults.hang("nobody")
    with pytest.raises(errors.RequestError, match="no fault 99 is in force"):
        faults.heal(99)
    with faults.stale_view(cluster.writer), pytest.raises(errors.RequestError, match="in force already"):
        faults.stale_view(cluster.writer)
    assert faults.list() == []


def test_the_relay_is_started_anew_when_it_is_killed(ledger_cluster, cluster, eventually):
    def relays():
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(path.read_text().rpartition(")")[2].split()[1]) == ledger_cluster.status().supervisor:
                    command = (path.parent / "cmdline").read_bytes()
                    found += [int(path.parent.name)] if b"faults/__main__.py" in command else []
        return found

    if not Path("/proc/self/stat").exists():
        pytest.skip("looks into /proc")
    (pid,) = relays()
    with connect(cluster) as client:
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            client.execute("select 1")

    def writes():
        with contextlib.suppress(psycopg.OperationalError), connect(cluster) as again:
            again.execute("insert into ledger values (6)")
            return True
        return False

    eventually(writes)
    assert relays() != [pid]


def test_without_the_relay_the_network_cannot_be_disturbed():
    with LocalCluster.start(readers=0) as plain:
        with pytest.raises(errors.RequestError, match="start the cluster with faults=True"):
            plain.faults.partition(plain.writer)
        with plain.faults.stale_view(plain.writer):
            assert len(plain.faults.list()) == 1


@pytest.mark.parametrize("flavour", ["direct"])
def test_plain_streaming_can_be_cut_off_too(flavour, eventually):
    with LocalCluster.start(readers=2, faults=True, flavour=flavour) as cluster:
        old = cluster.writer
        with connect(cluster) as writer:
            writer.execute("create table ledger (i int)")
        cut = cluster.readers[0]
        with cluster.faults.partition(cut):
            with connect(cluster) as writer:
                writer.execute("insert into ledger values (1)")
            with connect_as_superuser(cluster, cut) as session:
                assert session.execute("select * from ledger").fetchall() == []
        eventually(lambda: settled(cluster))
        with cluster.faults.partition(old):
            eventually(lambda: cluster.writer not in {None, old})
            with connect(cluster) as writer:
                writer.execute("insert into ledger values (2)")
        eventually(lambda: settled(cluster))
