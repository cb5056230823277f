"""Situations that are no fault of ours get the text that docs/bad-input.md has; legal ones work."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import tempfile
import threading
from pathlib import Path

import psycopg
import pytest
import yaml

import aurora_router
from aurora_router.runtime import dns
from aurora_router.runtime.registry import REGISTRY
from aurora_router_cluster import LocalCluster, errors
from aurora_router_cluster.datadir import DataDirectory
from aurora_router_cluster.postgres import binaries
from aurora_router_cluster.postgres.account import Account
from tests.patroni.test_rest import serving

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]

CASES = yaml.safe_load((Path(__file__).parent / "bad_situations.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cluster():
    """Loses its third instance and gets it again, as each situation needs it, and gets databases of its own."""
    with LocalCluster.start(readers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def multi_az():
    with LocalCluster.start(flavour="multi-az") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def nothing_known():
    REGISTRY.reset()
    dns.forget()


def database(cluster, *statements):
    """Another database of the cluster, changed by its superuser; returns how to connect to it."""
    name = f"d{secrets.token_hex(4)}"
    writer = cluster.instance(cluster.writer)
    keys = {"host": writer.socket_directory, "port": writer.port, "user": "postgres", "autocommit": True}
    with psycopg.connect(**keys) as conn:
        conn.execute(f"CREATE DATABASE {name} OWNER {cluster.user}")
    with psycopg.connect(**keys, dbname=name) as conn:
        for each in statements:
            conn.execute(each)
    return {"dbname": name, "aurora_cluster": name}


def has_third(cluster):
    return "demo-3" in [each.name for each in cluster.instances]


def reader_removed_while_connecting(cluster):
    if not has_third(cluster):
        cluster.add_reader("demo-3")
    found, ending, failed = [], threading.Event(), []

    def connects():
        try:
            while not ending.is_set():
                with aurora_router.connect(cluster.conninfo("reader")) as conn:
                    found.append(conn.placement.instance)
        except psycopg.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=connects) for _ in range(4)]
    for each in threads:
        each.start()
    cluster.remove("demo-3")
    del found[:]
    ending.wait(0.5)
    ending.set()
    for each in threads:
        each.join(30)
    assert not failed
    assert set(found[-8:]) == {"demo-2"}


def removed_reader_by_its_id(cluster):
    if has_third(cluster):
        cluster.remove("demo-3")
    aurora_router.connect(cluster.conninfo()).close()  # the cluster is known
    aurora_router.connect(cluster.conninfo(aurora_instance="demo-3", aurora_failover_timeout=0.5))


def plain_postgresql(cluster):
    found = database(cluster, "DROP FUNCTION aurora_replica_status", "DROP FUNCTION aurora_db_instance_identifier")
    with aurora_router.connect(cluster.conninfo("writer", **found)) as conn:
        assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def plain_postgresql_said_to_be_aurora(cluster):
    found = database(cluster, "DROP FUNCTION aurora_replica_status", "DROP FUNCTION aurora_db_instance_identifier")
    aurora_router.connect(cluster.conninfo("writer", aurora_source="aurora", **found))


def no_permission(cluster):
    found = database(cluster, "REVOKE EXECUTE ON FUNCTION aurora_replica_status FROM PUBLIC")
    return advised_once(cluster, found)


def multi_az_without_permission(multi_az):
    return advised_once(multi_az, database(multi_az, "REVOKE USAGE ON SCHEMA rds_tools FROM PUBLIC"))


def multi_az_without_extension(multi_az):
    return advised_once(multi_az, database(multi_az, "DROP SCHEMA rds_tools CASCADE"))


def patroni_unreachable(cluster):
    return patroni_advice(cluster, "http://127.0.0.1:1")


def patroni_without_rights(cluster):
    with serving(login="Basic x") as url:
        return patroni_advice(cluster, url)


def patroni_of_another_cluster(cluster):
    with serving(system="1") as url:
        return patroni_advice(cluster, url)


def patroni_members_that_disagree(cluster):
    with psycopg.connect(cluster.plain_conninfo()) as conn:
        (system,) = conn.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    with serving(system=str(system)) as one, serving(system=str(system), members=[]) as other:
        return patroni_advice(cluster, f"{one},{other}")


def patroni_advice(cluster, urls):
    """The advice that connects of the writer give while one reader is given, and the list is of no use."""
    reader = cluster.instance(cluster.readers[0])
    login = {"user": cluster.user, "password": cluster.password, "dbname": cluster.dbname}
    heard = []
    end = aurora_router.subscribe(lambda _, event: heard.append(str(event)))
    try:
        with pytest.raises(aurora_router.NoInstanceAvailable):
            aurora_router.connect(
                host=reader.host, port=reader.port, aurora_source="patroni", aurora_patroni=urls, aurora_role="writer",
                aurora_failover_timeout=2.5, **login,
            )  # fmt: skip
    finally:
        end()
    (advice,) = [each for each in heard if "atroni" in each]
    return f"routed by SQL, and logs once: {advice}"


def advised_once(cluster, found):
    heard = []
    end = aurora_router.subscribe(lambda _, event: heard.append(str(event)))
    try:
        for _ in range(2):
            aurora_router.connect(cluster.conninfo("writer", **found)).close()
    finally:
        end()
    (advice,) = [each for each in heard if "EXECUTE" in each]
    return f"connects, and logs once: {advice}"


def no_binaries(cluster):
    LocalCluster.start(postgres="/nowhere")


def _lacks(symbol):
    found = binaries.find(Account.default())
    if symbol in found.program("postgres").read_bytes():
        pytest.skip("the PostgreSQL that is found first has it")


def tls_of_a_server_without_it(cluster):
    _lacks(b"SSL_CTX_new")
    LocalCluster.start(tls=True)


def iam_of_a_server_without_ldap(cluster):
    _lacks(b"ldap_simple_bind_s")
    LocalCluster.start(iam=True)


def lifetime_of_tokens_without_iam(cluster):
    LocalCluster.start(iam_token_lifetime=60.0)


def closed_directory(cluster, tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root has PostgreSQL run by another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("AURORA_ROUTER_CACHE", str(closed))
    LocalCluster.start()


def address_in_use(cluster):
    with socket.create_server(("127.91.4.5", 0)) as server:
        LocalCluster.start(readers=0, address="127.91.4.5", port=server.getsockname()[1])


def address_of_another_kind(cluster):
    LocalCluster.start(address="::1")


def directory_that_is_missing(cluster):
    LocalCluster.start(directory="/nowhere")


def data_in_use(cluster):
    with tempfile.TemporaryDirectory(prefix="ar-", dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        claimed = DataDirectory.claim(Path(place, "data"), "first", Account.default())
        try:
            LocalCluster.start(data=Path(place, "data"))
        finally:
            claimed.close()


def data_of_something_else(cluster, tmp_path):
    (tmp_path / "PG_VERSION").touch()
    LocalCluster.start(data=tmp_path)


def dns_port_in_use(cluster):
    with socket.create_server(("127.0.0.1", 0)) as server:
        LocalCluster.start(readers=0, dns_port=server.getsockname()[1])


def name_of_a_running_cluster(cluster):
    name = f"twice{os.getpid()}"
    with LocalCluster.start(name, readers=0):
        try:
            LocalCluster.start(name, readers=0)
        except errors.ClusterRunningError as error:
            raise type(error)(str(error).replace(name, "demo")) from error


def leftover_of_a_killed_cluster(cluster):
    name = f"killed{os.getpid()}"
    killed = LocalCluster.start(name, readers=0)
    os.kill(killed.status().supervisor, signal.SIGKILL)
    killed.close()
    with LocalCluster.start(name, readers=0) as again:
        assert again.writer == f"{name}-1"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["situation"])
def test_a_bad_situation(case, cluster, request):
    function = globals()[case["situation"]]
    if function.__code__.co_varnames[0] == "multi_az":
        cluster = request.getfixturevalue("multi_az")
    needed = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    arguments = [request.getfixturevalue(name) for name in needed]
    if "error" not in case:
        found = function(cluster, *arguments)
        assert found is None or matches(found, case)
        return
    expected = getattr(aurora_router, case["error"], None) or getattr(errors, case["error"])
    with pytest.raises(expected) as caught:
        function(cluster, *arguments)
    assert type(caught.value) is expected
    assert matches(str(caught.value), case)


def matches(text, case):
    pattern = ".*".join(map(re.escape, case["output"].split("…")))
    found = " ".join(text.split())
    assert re.fullmatch(pattern, found), found
    return True
