from __future__ import annotations

import io
import tarfile

import pytest

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.hosts.archive import Packer, pack, unpack


def tree(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }


def fill(directory):
    (directory / "base" / "1").mkdir(parents=True)
    (directory / "pg_wal").mkdir()
    (directory / "base" / "1" / "1259").write_bytes(bytes(range(256)) * 100)
    (directory / "PG_VERSION").write_text("18\n")


def test_what_is_packed_comes_out_again_and_replaces_what_was_there(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    fill(source)
    target.mkdir()
    (target / "leftover").write_text("x")
    unpack(pack(source), target)
    assert tree(target) == tree(source)
    assert target.stat().st_mode & 0o777 == 0o700


def test_an_archive_is_kept_until_its_directory_is_another_one(tmp_path):
    source, packer = tmp_path / "a", Packer()
    fill(source)
    first = packer.pack(source)
    assert packer.pack(source) is first
    source.rename(tmp_path / "old")
    fill(source)
    (source / "more").write_text("x")
    second = packer.pack(source)
    unpack(second, tmp_path / "b")
    assert "more" in tree(tmp_path / "b")


@pytest.mark.parametrize("name", ["../out", "/etc/out", "in/../../out"])
def test_an_archive_cannot_lead_out(tmp_path, name):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(EngineError, match="leads out of its directory"):
        unpack(data.getvalue(), tmp_path / "in")


def test_an_archive_holds_no_links(tmp_path):
    data = io.BytesIO()
    link = tarfile.TarInfo("pg_wal")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.addfile(link)
    with pytest.raises(EngineError, match="neither a directory nor a file"):
        unpack(data.getvalue(), tmp_path / "in")


def test_rubbish_is_no_archive(tmp_path):
    with pytest.raises(EngineError, match="unpacking"):
        unpack(b"rubbish", tmp_path / "in")
    with pytest.raises(EngineError, match="packing"):
        pack(tmp_path / "nowhere")
