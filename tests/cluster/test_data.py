"""A cluster that is kept: stopped, killed or lost with its machine, and started again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal

import psycopg
import pytest

from aurora_router_cluster import LocalCluster, errors, registry
from benchmarks import power

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]


def rows(cluster, target="writer", **keys):
    with psycopg.connect(cluster.plain_conninfo(target, **keys), autocommit=True) as connection:
        return sorted(number for (number,) in connection.execute("SELECT number FROM kept"))


def insert(cluster, number, **keys):
    with psycopg.connect(cluster.plain_conninfo(**keys), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", (number,))


def instances(cluster):
    return {(one.name, one.role, one.zone, one.tier) for one in cluster.instances}


def test_everything_is_there_again(run_directory):
    data, secret = run_directory / "data", {"password": "secret"}
    with LocalCluster.start(
        "shop", key=f"shop-{secrets.token_hex(4)}", data=data, readers=1, settings={"work_mem": "7MB"}
    ) as cluster:
        insert(cluster, 1)
        cluster.history.snapshot("tested")
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
            connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'secret'")
        cluster.add_reader("extra", zone="eu-test-1b", tier=4)
        cluster.failover("extra")
        cluster.remove("shop-2")
        cluster.create_custom_endpoint("reports", ["shop-1"])
        insert(cluster, 2, **secret)
        key, url, known = cluster.key, cluster.url(), instances(cluster)
    assert key not in registry.running()
    with LocalCluster.start(data=data) as cluster:
        assert (cluster.name, cluster.url()) == ("shop", url)
        assert instances(cluster) == known
        assert rows(cluster, **secret) == rows(cluster, "custom:reports", **secret) == [1, 2]
        with psycopg.connect(cluster.plain_conninfo("reader", **secret)) as connection:
            assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        with cluster.history.restore(snapshot="tested", readers=0, data=run_directory / "then") as then:
            assert rows(then) == [1]
        with LocalCluster.start(data=run_directory / "then") as then:
            assert rows(then) == [1]
        with pytest.raises(errors.DirectoryError, match=r"is in use by the cluster 'shop-"):
            LocalCluster.start(data=data)
        cluster.failover()
        insert(cluster, 3, **secret)
        os.kill(cluster.status().supervisor, signal.SIGKILL)
    with LocalCluster.start(data=data, readers=2) as cluster:
        assert rows(cluster, **secret) == rows(cluster, "reader", **secret) == [1, 2, 3]
        assert len(cluster.readers) == 2


@pytest.mark.case
@pytest.mark.parametrize(
    "isolated", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one-process", "isolated"]
)
def test_a_reboot_loses_nothing_that_was_acknowledged(isolated):
    if not power.possible():
        pytest.skip("losing power takes loop devices, for root")
    with power.PoweredDisk() as disk:
        data = disk.path / "data"
        cluster = LocalCluster.start(data=data, readers=1, isolated=isolated)
        insert(cluster, 1)
        power.crash(cluster)
        (disk.path / "unsynced").write_bytes(b"x" * 100_000)
        disk.lose_power()
        assert not (disk.path / "unsynced").exists()
        with LocalCluster.start(data=data) as cluster:
            assert rows(cluster) == rows(cluster, "reader") == [1]


def test_nodes_that_are_missing_are_made_up_for_or_named(run_directory):
    data = run_directory / "data"
    with LocalCluster.start(data=data, readers=0) as cluster:
        insert(cluster, 1)
    for number in (1, 4):
        shutil.rmtree(data / "storage" / f"node-{number}")
    with LocalCluster.start(data=data) as cluster:
        assert rows(cluster) == [1]
        new = cluster.nodes.replace(1)
        insert(cluster, 2)
    assert not (data / "storage" / "node-1").exists()
    with LocalCluster.start(data=data) as cluster:
        assert rows(cluster) == [1, 2]
    for number in (new, 2):
        shutil.rmtree(data / "storage" / f"node-{number}")
    with pytest.raises(errors.DirectoryError, match=r"data .--data. is incomplete: .*put the missing directories"):
        LocalCluster.start(data=data)
    assert (data / "storage" / "node-3").exists()


def test_what_is_not_written_down_is_not_deleted_before_everything_was_found(run_directory):
    data = run_directory / "data"
    storage = data / "storage"
    with LocalCluster.start(data=data, readers=0) as cluster:
        insert(cluster, 1)
    written = {path.name: path.read_text(encoding="utf-8") for path in storage.glob("*.json")}
    kept = sorted(path.name for path in storage.iterdir() if path.is_dir())

    def refuses(match):
        with pytest.raises(errors.DirectoryError, match=match):
            LocalCluster.start(data=data)
        assert sorted(path.name for path in storage.iterdir() if path.is_dir()) == kept

    facts = json.loads(written["nodes.json"])
    for left_out, match in (
        ("0 1 2", r"node-0, node-1, node-2 are there, but not written down: is a file in .* an old copy"),
        ("5", r"nodes.json is out of date: it does not list 5, which .* members"),
    ):
        some = {number: zone for number, zone in facts["zones"].items() if number not in left_out.split()}
        (storage / "nodes.json").write_text(json.dumps({**facts, "zones": some}))
        refuses(match)
    (storage / "nodes.json").write_text(written["nodes.json"])
    (base,) = storage.glob("base-*.json")
    base.unlink()
    refuses(r"put the missing directories base-N back, each with its base-N.json. base-\d+ are there")
    base.write_text(written[base.name])
    (storage / "node-17").mkdir()
    with LocalCluster.start(data=data) as cluster:
        assert rows(cluster) == [1]
    assert not (storage / "node-17").exists(), "what an interrupted work has left is deleted then"


def test_the_certificate_authority_is_the_same(run_directory):
    pytest.importorskip("trustme")
    from aurora_router_cluster.control.tls import _make_authority

    certificate, key = run_directory / "ca.pem", run_directory / "ca.key"
    first = _make_authority(certificate, key).cert_pem.bytes()
    assert _make_authority(certificate, key).cert_pem.bytes() == first == certificate.read_bytes()
    assert key.stat().st_mode & 0o077 == 0
    key.write_text("nonsense")
    with pytest.raises(errors.DirectoryError, match=r"certificate authority cannot be read from .*put good copies"):
        _make_authority(certificate, key)
