"""A whole cluster over eleven processes on addresses of their own: the same behaviour as in one process."""

from __future__ import annotations

import os
import signal

import dns.message
import dns.query
import psycopg
import pytest

import aurora_router
from aurora_router_cluster import errors
from aurora_router_cluster.postgres import processes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def remote(remote_factory):
    return remote_factory(instances=4)


@pytest.fixture
def cluster(remote, eventually):
    found = remote[0]
    eventually(lambda: settled(found))
    return found


@pytest.fixture
def hosts(remote):
    return remote[1]


def settled(cluster):
    status = cluster.status()
    everybody = all(one.state == "available" for one in status.instances)
    return everybody and all(node["up"] for node in status.volume["nodes"]) and status.volume["attached"]


def resolve(cluster, target="writer"):
    host, port = cluster.dns.split(":")
    query = dns.message.make_query(cluster.endpoint(target), "A")
    return dns.query.udp(query, host, port=int(port), timeout=30).answer[0][0].to_text()


def connect(cluster, target="writer"):
    return psycopg.connect(cluster.plain_conninfo(target), autocommit=True)


def count(cluster, table, target="writer"):
    try:
        with connect(cluster, target) as connection:
            return connection.execute(f"select count(*) from {table}").fetchone()[0]
    except psycopg.Error:
        return None


def test_everybody_is_somewhere_else_and_they_are_one_cluster(cluster, hosts, eventually):
    status = cluster.status()
    assert [one.host for one in status.instances] == [one.address for one in hosts.instances[:3]]
    assert [one.zone for one in status.instances] == ["eu-test-1a", "eu-test-1b", "eu-test-1c"]
    assert cluster.dns.split(":")[0] == hosts.names.address
    assert resolve(cluster) == cluster.instance(status.writer).host
    with aurora_router.connect(cluster.conninfo()) as connection:
        connection.execute("create table one (i int)")
        connection.execute("insert into one select generate_series(1, 1000)")
        assert len(connection.execute("select server_id from aurora_replica_status()").fetchall()) == 3
    for name in cluster.readers:
        eventually(lambda name=name: count(cluster, "one", f"instance:{name}") == 1000)


def test_the_superuser_needs_the_secret(cluster):
    with pytest.raises(psycopg.OperationalError, match=r"no password supplied|password authentication failed"):
        psycopg.connect(cluster.plain_conninfo(user="postgres", password=None, dbname="postgres"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.plain_conninfo(user="postgres", password="app", dbname="postgres"))


def test_a_switchover(cluster, eventually):
    target = cluster.readers[-1]
    former = cluster.writer
    done = cluster.failover(target)
    assert (done.former, done.writer, done.planned) == (former, target, True)
    assert resolve(cluster) == cluster.instance(target).host
    eventually(lambda: settled(cluster))
    assert cluster.instance(former).role == "reader"


def test_a_host_that_dies_is_replaced_and_comes_back_when_it_does(cluster, hosts, eventually):
    former = cluster.instance(cluster.writer)
    with connect(cluster) as connection:
        connection.execute("create table two as select generate_series(1, 100)")
    host = hosts.find(former.host)
    host.kill()
    eventually(lambda: cluster.writer not in {None, former.name})
    eventually(lambda: cluster.instance(former.name).state == "stopped")
    with connect(cluster) as connection:
        connection.execute("insert into two values (0)")
    host.start()
    eventually(lambda: settled(cluster))
    eventually(lambda: count(cluster, "two", f"instance:{former.name}") == 101)


def test_a_host_that_hangs_is_replaced_fenced_and_built_anew(cluster, hosts, eventually):
    """Agent and PostgreSQL stop, as under `docker pause`: connections stay, nothing answers."""
    former = cluster.instance(cluster.writer)
    agent = hosts.find(former.host).process.pid
    with connect(cluster) as connection:
        connection.execute("create table three (i int)")
        os.kill(agent, signal.SIGSTOP)
        processes.freeze(former.pid)
        try:
            eventually(lambda: cluster.writer not in {None, former.name})
            eventually(lambda: cluster.instance(former.name).state == "unreachable")
            with connect(cluster) as other:
                other.execute("insert into three values (1)")
        finally:
            processes.thaw(former.pid)
            os.kill(agent, signal.SIGCONT)
        eventually(lambda: settled(cluster))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("insert into three values (2)")
    eventually(lambda: count(cluster, "three", f"instance:{former.name}") == 1)
    assert count(cluster, "three") == 1


def test_two_nodes_may_go_and_come_back_with_what_they_had(cluster, hosts, eventually):
    lost = hosts.nodes[4:]
    with connect(cluster) as connection:
        connection.execute("create table four (i int)")
        for node in lost:
            node.kill()
        eventually(lambda: sum(node["up"] for node in cluster.status().volume["nodes"]) == 4)
        connection.execute("insert into four select generate_series(1, 500)")
        for node in lost:
            node.start()
    eventually(lambda: settled(cluster))

    def level():
        volume = cluster.status().volume
        return {node.get("scl") for node in volume["nodes"]} == {volume["vdl"]}

    eventually(level)


def test_a_reader_takes_the_free_host_and_gives_it_back(cluster, hosts, eventually):
    added = cluster.add_reader("extra")
    assert added.host == hosts.instances[3].address
    with pytest.raises(errors.AddressInUseError, match="no host is free"):
        cluster.add_reader()
    cluster.remove("extra")
    again = cluster.add_reader("again")
    assert again.host == added.host
    cluster.remove("again")


def test_there_is_no_host_for_another_storage_node(cluster):
    with pytest.raises(errors.RequestError, match="no host is left for a storage node 6"):
        cluster.nodes.replace(0)
