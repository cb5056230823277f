from __future__ import annotations

import threading
import urllib.parse

import dns.message
import dns.query
import psycopg
import pytest

from aurora_router_cluster import LocalCluster, errors

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(binaries):
    with LocalCluster.start(readers=2, postgres=str(binaries.directory)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def binaries(request, account):
    from pathlib import Path

    from aurora_router_cluster.postgres import binaries as module

    return module.find(account, Path(request.param) if request.param else None)


def pytest_generate_tests(metafunc):
    if "cluster" in metafunc.fixturenames:
        from pathlib import Path

        system = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        metafunc.parametrize("binaries", [None, *map(str, system[-1:])], indirect=True, scope="module")


def resolve(cluster, name):
    host, port = cluster.dns.split(":")
    response = dns.query.udp(dns.message.make_query(name, "A"), host, port=int(port), timeout=5)
    return [item.to_text() for rrset in response.answer for item in rrset if rrset.rdtype == 1]


def connect(cluster, target, **options):
    return psycopg.connect(cluster.plain_conninfo(target), autocommit=True, **options)


def test_a_commit_reaches_both_readers(cluster, eventually):
    with connect(cluster, "writer") as writer:
        writer.execute("create table if not exists first_commit (i int)")
        for name in cluster.readers:
            with connect(cluster, f"instance:{name}") as reader:
                query = "select to_regclass('first_commit') is not null"
                assert eventually(lambda reader=reader, query=query: reader.execute(query).fetchone()[0])
                assert reader.execute("select pg_is_in_recovery()").fetchone() == (True,)
                assert reader.execute("select aurora_db_instance_identifier()").fetchone() == (name,)


def test_status_is_typed_and_complete(cluster):
    status = cluster.status()
    assert [one.role for one in status.instances] == ["writer", "reader", "reader"]
    assert [one.zone for one in status.instances] == ["eu-test-1a", "eu-test-1b", "eu-test-1c"]
    assert len({(one.host, one.port) for one in status.instances}) == 3
    assert status.writer == "demo-1"
    assert type(status).from_dict(status.as_dict()) == status
    assert cluster.key in repr(cluster)


def test_names_lead_to_instances(cluster):
    status = cluster.status()
    hosts = {one.name: one.host for one in status.instances}
    assert resolve(cluster, cluster.endpoint("writer")) == [hosts["demo-1"]]
    assert resolve(cluster, cluster.endpoint("instance:demo-2")) == [hosts["demo-2"]]
    seen = {tuple(resolve(cluster, cluster.endpoint("reader"))) for _ in range(4)}
    assert seen == {(hosts["demo-2"],), (hosts["demo-3"],)}


def test_conninfo_and_url_carry_the_name_server(cluster):
    assert f"aurora_dns={cluster.dns}" in cluster.conninfo("writer")
    assert "aurora_dns" not in cluster.conninfo("writer", aurora_dns=None)
    assert cluster.conninfo("reader", application_name="it's me").endswith(r"application_name='it\'s me'")
    parts = urllib.parse.urlsplit(cluster.url("reader", aurora_balance="random"))
    assert (parts.scheme, parts.hostname, parts.port) == (
        "postgresql+aurora",
        cluster.endpoint("reader"),
        cluster.port,
    )
    assert dict(urllib.parse.parse_qsl(parts.query)) == {"aurora_dns": cluster.dns, "aurora_balance": "random"}


def test_targets_that_do_not_exist(cluster):
    with pytest.raises(errors.UnknownEndpointError, match="writer, reader, instance:NAME"):
        cluster.conninfo("master")
    with pytest.raises(errors.UnknownInstanceError, match="it has demo-1, demo-2, demo-3"):
        cluster.conninfo("instance:demo-9")
    with pytest.raises(errors.UnknownEndpointError, match="no custom endpoint 'nosuch'"):
        cluster.plain_conninfo("custom:nosuch")


def test_replica_status_is_real(cluster, eventually):
    """22 columns; positions, lag and processor use of every instance, as each one reports it."""
    columns = "server_id, session_id, durable_lsn, current_read_lsn, replica_lag_in_msec, last_update_timestamp, cpu"
    for asked in (one.name for one in cluster.instances):
        with connect(cluster, f"instance:{asked}") as connection:

            def rows(connection=connection):
                found = connection.execute(f"select {columns} from aurora_replica_status() order by 1").fetchall()
                return found if all(row[6] is not None for row in found) else None

            by_name = {row[0]: row for row in eventually(rows)}
            assert list(by_name) == ["demo-1", "demo-2", "demo-3"]
            assert by_name["demo-1"][1] == "MASTER_SESSION_ID"
            assert by_name["demo-1"][3:5] == (None, None)
            for reader in ("demo-2", "demo-3"):
                assert len(by_name[reader][1]) == 36
                assert by_name[reader][2] > 0
                assert by_name[reader][3] > 0
                assert 0 <= by_name[reader][4] < 60_000
            assert [name for name, row in by_name.items() if row[5] is None] == [asked]


def test_lag_shows_while_a_reader_is_held_back(cluster, eventually):
    lag = "select replica_lag_in_msec from aurora_replica_status() where server_id = 'demo-2'"
    with connect(cluster, "writer") as writer, psycopg.connect(
        host=cluster.instance("demo-2").socket_directory, port=cluster.port, user="postgres", dbname="app",
        autocommit=True,
    ) as reader:  # fmt: skip
        reader.execute("select pg_wal_replay_pause()")
        try:
            writer.execute("create table if not exists held_back (i int)")
            eventually(lambda: writer.execute(lag).fetchone()[0] > 300)
        finally:
            reader.execute("select pg_wal_replay_resume()")
        eventually(lambda: writer.execute(lag).fetchone()[0] < 100)


def test_custom_endpoints(cluster):
    hosts = {one.name: one.host for one in cluster.instances}
    name = cluster.create_custom_endpoint("olap", ["demo-3"])
    assert name == f"olap.cluster-custom-{cluster.domain}"
    assert resolve(cluster, name) == [hosts["demo-3"]]
    assert cluster.address("custom:olap") == hosts["demo-3"]
    rest = cluster.create_custom_endpoint("rest", ["demo-3"], exclude=True)
    assert resolve(cluster, rest) == [hosts["demo-2"]]
    assert cluster.address("custom:rest") == hosts["demo-2"]
    assert [custom.label for custom in cluster.status().custom_endpoints] == ["olap", "rest"]
    with pytest.raises(errors.NameTakenError, match="delete it first"):
        cluster.create_custom_endpoint("olap", ["demo-2"])
    with pytest.raises(errors.UnknownInstanceError, match="demo-9"):
        cluster.create_custom_endpoint("bad", ["demo-9"])
    with pytest.raises(errors.RequestError, match="at least one member"):
        cluster.create_custom_endpoint("bad", [])
    cluster.delete_custom_endpoint("olap")
    cluster.delete_custom_endpoint("rest")
    assert resolve(cluster, name) == []
    with pytest.raises(errors.UnknownEndpointError, match="'olap'; there are: none"):
        cluster.delete_custom_endpoint("olap")


def test_aliases(cluster):
    cluster.add_cname("DB.example.com.", cluster.endpoint("writer"))
    assert resolve(cluster, "db.example.com") == [cluster.address("writer")]
    assert cluster.status().cnames == {"db.example.com": cluster.endpoint("writer")}
    with pytest.raises(errors.NameTakenError, match="a name of the cluster itself"):
        cluster.add_cname(cluster.endpoint("reader"), "elsewhere.example.com")
    with pytest.raises(errors.NameTakenError, match="is not a host name"):
        cluster.add_cname("a..b", "elsewhere.example.com")


def test_a_reader_is_added_serves_and_is_removed(cluster, eventually):
    added = cluster.add_reader("extra", zone="eu-test-1b", tier=0)
    assert (added.role, added.state, added.zone, added.tier) == ("reader", "available", "eu-test-1b", 0)
    with connect(cluster, "instance:extra") as connection:
        assert connection.execute("select aurora_db_instance_identifier()").fetchone() == ("extra",)
        assert added.host in {resolve(cluster, cluster.endpoint("reader"))[0] for _ in range(3)}
        cluster.remove("extra")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert "extra" not in [one.name for one in cluster.instances]
    assert added.host not in {resolve(cluster, cluster.endpoint("reader"))[0] for _ in range(3)}
    with connect(cluster, "writer") as connection:
        listed = "select count(*) from aurora_replica_status() where server_id = 'extra'"
        assert connection.execute(listed).fetchone() == (0,)


def test_refusals_leave_the_cluster_as_it_was(cluster):
    before = [(one.name, one.role, one.pid) for one in cluster.instances]
    with pytest.raises(errors.UnknownInstanceError, match="no instance 'demo-9'; it has demo-1"):
        cluster.remove("demo-9")
    with pytest.raises(errors.UnknownInstanceError, match="no instance None; it has demo-1"):
        cluster.freeze(None)
    with pytest.raises(errors.WriterRequiredError, match="demo-1 is the writer: fail over to a reader first"):
        cluster.remove("demo-1")
    with pytest.raises(errors.NameTakenError, match="has an instance 'demo-2' already"):
        cluster.add_reader("demo-2")
    with pytest.raises(errors.NameTakenError, match="cannot name an instance"):
        cluster.add_reader("No Good")
    with pytest.raises(errors.RequestError, match="unknown zone 'mars'; this cluster has eu-test-1a"):
        cluster.add_reader(zone="mars")
    with pytest.raises(errors.RequestError, match="tier 16 does not exist"):
        cluster.add_reader(tier=16)
    with pytest.raises(errors.RequestError, match="demo-2 is running; use restart"):
        cluster.start_instance(cluster.instance("demo-2"))
    with pytest.raises(errors.FailoverImpossibleError, match="demo-1 is the writer already"):
        cluster.failover("demo-1")
    assert [(one.name, one.role, one.pid) for one in cluster.instances] == before


@pytest.mark.parametrize("name", ["demo-1", "demo-2"])
def test_a_restart_keeps_the_role(cluster, name, eventually):
    before = cluster.instance(name)
    cluster.restart(name)
    after = cluster.instance(name)
    assert after.pid != before.pid
    assert (after.role, after.host, after.state) == (before.role, before.host, "available")
    with connect(cluster, "writer") as writer:
        writer.execute(f"create table after_restart_of_{name.replace('-', '_')} (i int)")


def test_several_threads_may_use_one_object(cluster):
    found = []
    threads = [threading.Thread(target=lambda: found.append(cluster.status().epoch)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8


def test_two_phase_commits_and_hundreds_of_sessions_fit(cluster):
    with connect(cluster, "writer") as connection:
        assert int(connection.execute("show max_prepared_transactions").fetchone()[0]) > 0
        assert int(connection.execute("show max_connections").fetchone()[0]) >= 400
