"""Which directories a cluster can be kept in, and what is said of the others."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess

import pytest

from aurora_router_cluster import datadir
from aurora_router_cluster.datadir import DataDirectory, choose
from aurora_router_cluster.errors import DirectoryError, RequestError
from aurora_router_cluster.options import ClusterOptions
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.inventory import Identity, Inventory

ROSTER = {"instances": [{"name": "demo-1"}, {"name": "demo-2"}, {"name": "demo-3"}], "writer": "demo-2"}


class Programs:
    """PostgreSQL's, of which only the version and how they were built count here."""

    def __init__(self, version="18.6", compression="on"):
        self.version, self.major, self.directory = version, int(version.partition(".")[0]), "/programs"
        self.compression = compression

    def wal_compression(self):
        return self.compression


@pytest.fixture
def place(run_directory):
    return run_directory / "data"


@pytest.fixture
def made(place, account):
    """A directory with a cluster that has ended."""
    directory = DataDirectory.claim(place, "demo", account)
    options = ClusterOptions("shop", "demo", domain="a.b.test", settings={"work_mem": "5MB"}, isolated=True, tls=True)
    directory.begin(options, Programs(), account, "1.0")
    asyncio.run(directory.keep(ROSTER))
    directory.close()
    return place


def test_what_a_cluster_was_made_with_need_not_be_repeated(made):
    chosen = choose(made, {"data": str(made), "tls": False})
    assert chosen["name"] == "shop"
    assert chosen["domain"] == "a.b.test"
    assert chosen["settings"] == {"work_mem": "5MB"}
    assert (chosen["isolated"], chosen["tls"], chosen["readers"]) == (True, False, 2)
    assert choose(made, {"isolated": True, "name": "shop", "readers": 0})["readers"] == 0


@pytest.mark.parametrize(
    "given", [{"isolated": False}, {"name": "other"}, {"domain": "x.y.test"}, {"flavour": "direct"}]
)
def test_a_cluster_of_another_kind_is_refused(made, given):
    ((name, value),) = given.items()
    with pytest.raises(
        DirectoryError, match=f"holds a cluster with {name}=.*{name}={value!r} is asked for: leave that"
    ):
        choose(made, given)


def test_nothing_is_remembered_of_a_directory_that_is_not_there_or_empty(place):
    assert choose(place, {"readers": 1}) == {"readers": 1}
    place.mkdir()
    assert choose(place, {"readers": 1}) == {"readers": 1}


def spoil(name, change):
    def spoiling(made):
        record = json.loads((made / name).read_text())
        change(record)
        (made / name).write_text(json.dumps(record))

    return spoiling


@pytest.mark.parametrize(
    ("spoiling", "complaint"),
    [
        (spoil("cluster.json", lambda record: record.update(format=7)), "has format 7, .* reads format 1: use"),
        (spoil("cluster.json", lambda record: record.pop("roster")), "cluster.json is damaged .it is cut short."),
        (lambda made: (made / "cluster.json").write_text("{"), "cluster.json is damaged"),
        (lambda made: (made / "cluster.json").unlink(), "incomplete, or not a cluster's: cluster.json is missing"),
        (lambda made: ((made / "cluster.json").unlink(), (made / "PG_VERSION").touch()), "directory of a PostgreSQL"),
        (lambda made: made.chmod(0o777), "others may write to .*mode 0777.*chmod go-w"),
    ],
)  # fmt: skip
def test_a_directory_that_will_not_do_is_a_sentence(made, account, spoiling, complaint):
    spoiling(made)
    with pytest.raises(DirectoryError, match=complaint):
        DataDirectory.claim(made, "demo", account)


def test_a_directory_that_is_read_only_is_refused(run_directory, account):
    place = run_directory / "mounted"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "x", place], check=False).returncode:
        pytest.skip("mounting is for root")
    try:
        with pytest.raises(DirectoryError, match=r"mounted .--data. is on a file system that is read-only; mount it"):
            DataDirectory.claim(place, "demo", account)
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_directory_of_another_user_is_refused(made, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(DirectoryError, match=r"belongs to the user .*, and you are 54321: run this as that user"):
        choose(made, {})


def test_a_file_is_no_directory(place):
    place.touch()
    with pytest.raises(DirectoryError, match="is not a directory"):
        choose(place, {})


def test_a_directory_that_postgresql_cannot_reach_is_not_made(run_directory, account):
    if not account.switch:
        pytest.skip("the user runs PostgreSQL itself")
    closed = run_directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DirectoryError, match=r"data .--data. cannot be reached by the user .*chmod o.x .*/closed"):
        DataDirectory.claim(closed / "data", "demo", account)
    assert list(closed.iterdir()) == []


def test_a_directory_in_use_names_its_user(made, account):
    first = DataDirectory.claim(made, "shop-1", account)
    with pytest.raises(DirectoryError, match=r"in use by the cluster 'shop-1'.*cluster down --name shop-1"):
        DataDirectory.claim(made, "shop-2", account)
    first.close()
    DataDirectory.claim(made, "shop-2", account).close()


def test_programs_of_another_major_version_are_refused(made, account):
    directory = DataDirectory.claim(made, "demo", account)
    directory.check_version(Programs("18.1"))
    with pytest.raises(DirectoryError, match=r"made by PostgreSQL 18.6, and /programs has 17.2: name PostgreSQL 18's"):
        directory.check_version(Programs("17.2"))
    directory.close()


def test_programs_that_cannot_read_the_log_s_compression_are_refused(made, account):
    directory = DataDirectory.claim(made, "demo", account)
    directory.check_version(Programs())
    directory.begin(ClusterOptions("shop", "demo"), Programs(compression="lz4"), account, "1.0")
    directory.close()
    again = DataDirectory.claim(made, "demo", account)
    again.check_version(Programs(compression="lz4"))
    with pytest.raises(DirectoryError, match=r"compressed with lz4, and PostgreSQL in /programs was built without it"):
        again.check_version(Programs())
    again.close()


def test_a_creation_that_was_interrupted_is_begun_again(place, account):
    directory = DataDirectory.claim(place, "demo", account)
    directory.begin(ClusterOptions("shop", "demo"), Programs(), account, "1.0")
    (directory.storage / "node-0").mkdir()
    os.close(directory._lock)  # as the death of its process would
    assert choose(place, {"name": "other"}) == {"name": "other"}
    again = DataDirectory.claim(place, "demo", account)
    assert not again.exists
    again.begin(ClusterOptions("other", "demo"), Programs(), account, "1.0")
    assert list(again.storage.iterdir()) == []
    again.close()  # and it failed
    assert list(place.iterdir()) == []


def test_a_creation_that_failed_leaves_no_directory(place, account):
    DataDirectory.claim(place, "demo", account).close()
    assert not place.exists()


def test_the_direct_flavour_and_other_hosts_keep_nothing():
    for other in ({"flavour": "direct"}, {"remote": {}}):
        with pytest.raises(RequestError, match="data goes with flavour 'quorum' on this machine"):
            ClusterOptions("demo", "demo", data="/data", **other)


def test_what_is_missing_of_a_volume_is_named(run_directory):
    storage = run_directory / "data" / "storage"
    storage.mkdir(parents=True)
    inventory = Inventory(storage)
    with pytest.raises(DirectoryError, match=r"data .--data. is incomplete: .*/volume.json is missing; put it back"):
        inventory.identity()
    identity = Identity(77, "secret", 18, 1 << 20, None)
    inventory.write_identity(identity)
    assert inventory.identity() == identity
    (storage / "volume.json").write_text('{"identifier": 3}')
    with pytest.raises(DirectoryError, match=r"volume.json is damaged"):
        inventory.identity()


def test_directories_that_are_not_listed_are_leftovers(run_directory):
    inventory = Inventory(run_directory)
    inventory.write_nodes({0: "a", 7: "b"}, 9)
    assert inventory.nodes() == ({0: "a", 7: "b"}, 9)
    inventory.write_base(3, {"redo": 1, "end": 2, "taken": 3.0, "history": History((EpochStart(1, 1),)).to_json()})
    for name in ("node-0", "node-6", "base-3", "base-2", "base.new"):
        (run_directory / name).mkdir()
    assert {path.name for path in inventory.leftovers()} == {"node-6", "base-2", "base.new"}
    assert list(inventory.bases()) == [3]
    inventory.forget_base(3)
    assert inventory.bases() == {}


def test_the_version_of_the_format_is_written(made):
    record = json.loads((made / "cluster.json").read_text())
    assert (record["format"], record["state"], record["made_by"]) == (datadir.FORMAT, "complete", "1.0")
