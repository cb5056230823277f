from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.storage.disk.errors import DamagedError, LogFailedError
from aurora_router_cluster.storage.disk.record import DurableRecord

if TYPE_CHECKING:
    from pathlib import Path


def copies(directory: Path) -> list[Path]:
    return [directory / "promise.a", directory / "promise.b"]


def test_the_last_value_comes_back(tmp_path: Path) -> None:
    assert DurableRecord(tmp_path / "promise").value is None
    record = DurableRecord(tmp_path / "promise")
    for value in (b"first", b"a longer second", b"", b"last"):
        record.store(value)
        assert DurableRecord(tmp_path / "promise").value == value == record.value


def test_power_loss_at_every_byte_leaves_the_old_or_the_new_value(tmp_path: Path) -> None:
    record = DurableRecord(tmp_path / "promise")
    record.store(b"old value, the longer one")
    old = [path.read_bytes() for path in copies(tmp_path)]
    record.store(b"new value")
    new = [path.read_bytes() for path in copies(tmp_path)]
    for which in (0, 1):
        for cut in range(len(new[which])):
            torn = new[which][:cut] + old[which][cut:]
            before, after = (torn, old[1]) if which == 0 else (new[0], torn)
            copies(tmp_path)[0].write_bytes(before)
            copies(tmp_path)[1].write_bytes(after)
            expected = {b"new value"} if which else {b"old value, the longer one", b"new value"}
            assert DurableRecord(tmp_path / "promise").value in expected


@pytest.mark.parametrize("which", [0, 1])
def test_rot_in_one_copy_never_brings_back_the_value_before(tmp_path: Path, which: int) -> None:
    record = DurableRecord(tmp_path / "promise")
    record.store(b"epoch 1")
    record.store(b"epoch 2")
    path = copies(tmp_path)[which]
    intact = path.read_bytes()
    for at in range(len(intact)):
        path.write_bytes(intact[:at] + bytes([intact[at] ^ 0x10]) + intact[at + 1 :])
        again = DurableRecord(tmp_path / "promise")
        assert again.value == b"epoch 2"
    again.store(b"epoch 3")
    assert DurableRecord(tmp_path / "promise").value == b"epoch 3"


def test_two_damaged_copies_are_an_error_not_an_empty_record(tmp_path: Path) -> None:
    DurableRecord(tmp_path / "promise").store(b"epoch 7")
    for path in copies(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="rebuild this node"):
        DurableRecord(tmp_path / "promise")


def test_a_disk_that_refuses_is_an_error_and_stays_one(tmp_path: Path) -> None:
    record = DurableRecord(tmp_path / "promise")
    record.store(b"epoch 1")
    copies(tmp_path)[1].unlink()
    copies(tmp_path)[1].mkdir()
    with pytest.raises(LogFailedError, match="the node must stop"):
        record.store(b"epoch 2")
    assert record.value == b"epoch 1"
    copies(tmp_path)[1].rmdir()
    with pytest.raises(LogFailedError):
        record.store(b"epoch 2")
