from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.storage.disk.errors import DamagedError, LogFailedError
from aurora_router_cluster.storage.disk.frames import Damage, Draft, Frame
from aurora_router_cluster.storage.disk.logfile import FrameLog

if TYPE_CHECKING:
    from pathlib import Path


def draft(number: int, size: int = 40) -> Draft:
    return Draft(1, 5, number * 1000, bytes((number + i) % 256 for i in range(size)), group=2, prev=number)


def lsns(log: FrameLog) -> list[int]:
    return [entry.header.lsn for entry in log.entries() if isinstance(entry, Frame)]


def damages(log: FrameLog) -> list[Damage]:
    return [entry for entry in log.entries() if isinstance(entry, Damage)]


def file_of(directory: Path, number: int = 1) -> Path:
    return directory / f"{number:08x}.frames"


def flip(path: Path, offset: int, mask: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def test_frames_come_back_after_reopening(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path)
    positions = log.append(*map(draft, range(5))) + log.append(draft(5))
    log.close()
    log = FrameLog.open(tmp_path)
    assert lsns(log) == [0, 1000, 2000, 3000, 4000, 5000]
    assert log.frame(positions[3]).payload == draft(3).payload
    assert log.read(positions[5], 10, 7) == draft(5).payload[10:17]
    assert (log.torn, damages(log)) == (0, [])
    assert log.append(draft(6))[0] == positions[5] + draft(5).size
    log.close()


def test_power_loss_at_every_byte_of_the_last_frames(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path / "whole")
    log.append(*map(draft, range(4)))
    log.close()
    data = file_of(tmp_path / "whole").read_bytes()
    size = draft(0).size
    for cut in range(2 * size, len(data) + 1):
        directory = tmp_path / str(cut)
        directory.mkdir()
        file_of(directory).write_bytes(data[:cut])
        log = FrameLog.open(directory, sync=False)
        kept = cut // size
        assert lsns(log) == [number * 1000 for number in range(kept)]
        assert (log.torn, damages(log)) == (cut - kept * size, [])
        assert file_of(directory).stat().st_size == kept * size  # nothing of the tail can come back later
        log.append(draft(9))
        log.close()
        again = FrameLog.open(directory, sync=False)
        assert lsns(again) == [*(number * 1000 for number in range(kept)), 9000]
        again.close()


def test_a_flipped_byte_is_never_served_and_costs_nothing_else(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path, sync=False)
    positions = log.append(*map(draft, range(4)))
    size = draft(0).size
    for offset in range(size, 2 * size):
        flip(file_of(tmp_path), offset, 0x40)
        log._last = None
        with pytest.raises(DamagedError):
            log.read(positions[1], 0, 40)
        (damage,) = log.scrub()
        assert (damage.position, damage.length) == (positions[1], size)
        assert lsns(log) == [0, 2000, 3000]
        log.close()
        log = FrameLog.open(tmp_path, sync=False)  # not torn: all of it was written
        assert (log.torn, lsns(log)) == (0, [0, 2000, 3000])
        flip(file_of(tmp_path), offset, 0x40)
        assert list(log.scrub()) == []
    log.close()


def test_files_roll_and_old_ones_are_dropped_whole(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path, file_size=3 * draft(0).size)
    positions = [log.append(draft(number))[0] for number in range(10)]
    assert [position >> 32 for position in positions] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert log.drop_before(positions[7]) == 2
    assert lsns(log) == [6000, 7000, 8000, 9000]
    with pytest.raises(KeyError):
        log.read(positions[0], 0, 1)
    assert log.drop_before(1 << 60) == 1  # never the last one
    assert lsns(log) == [9000]
    log.close()
    again = FrameLog.open(tmp_path)
    assert (again.start, lsns(again), damages(again)) == (4 << 32, [9000], [])
    again.close()


def test_a_batch_over_several_files_is_written_whole(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path, file_size=300)
    log.append(*map(draft, range(20)), draft(20, 5000), draft(21))
    assert lsns(log) == [number * 1000 for number in range(22)]
    log.close()


@pytest.mark.parametrize("lost", ["all", "end", "middle"])
def test_what_is_missing_from_an_older_file_is_damage_not_a_torn_tail(tmp_path: Path, lost: str) -> None:
    log = FrameLog.open(tmp_path, file_size=3 * draft(0).size)
    for number in range(9):
        log.append(draft(number))
    log.close()
    path, size = file_of(tmp_path, 2), draft(0).size
    if lost == "all":
        path.unlink()
    else:
        os.truncate(path, 2 * size if lost == "end" else 2 * size + 7)
    expected = {"all": (2 << 32, 0), "end": (2 << 32 | 2 * size, 0), "middle": (2 << 32 | 2 * size, 7)}[lost]
    for _ in range(2):  # opening it does not make the damage unseen
        again = FrameLog.open(tmp_path)
        found = damages(again)
        assert (found[0].position, found[0].length) == expected
        assert lsns(again)[-3:] == [6000, 7000, 8000]
        assert again.torn == 0
        again.close()


def test_what_is_staged_is_durable_when_it_is_settled(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path, file_size=3 * draft(0).size)
    position, pieces = log.reserve(draft(1))
    descriptor = log.stage(pieces)
    assert descriptor is not None
    os.fdatasync(descriptor)
    with pytest.raises(DamagedError, match="not durable"):
        log.frame(position)
    assert log.settle(pieces, 0) == log.end
    assert log.frame(position).payload == draft(1).payload
    with pytest.raises(LogFailedError, match="Input/output error"):
        log.settle(log.reserve(draft(2))[1], 5)
    with pytest.raises(LogFailedError):
        log.stage(pieces)
    assert lsns(log) == [1000]
    log.close()


def test_what_begins_another_file_or_is_much_is_not_staged(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path, file_size=2 * draft(0).size)
    log.append(draft(0), draft(1))
    _, pieces = log.reserve(draft(2))
    assert [position >> 32 for position, _ in pieces] == [1, 2]
    assert log.stage(pieces) is None
    _, alone = log.reserve(draft(3))
    assert log.stage(alone) is None
    log.write([*pieces, *alone])
    _, much = log.reserve(draft(4, 1 << 20))
    log.write(much)
    assert log.stage(log.reserve(draft(5, 1 << 20))[1]) is None
    assert lsns(log) == [0, 1000, 2000, 3000, 4000]
    log.close()


def test_nothing_beyond_the_durable_end_is_read(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path)
    log.append(draft(0))
    position, pieces = log.reserve(draft(1))
    with pytest.raises(DamagedError, match="not durable"):
        log.frame(position)
    assert lsns(log) == [0]
    log.write(pieces)
    assert log.frame(position).payload == draft(1).payload
    log.close()


def test_two_processes_cannot_have_one_log(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path)
    with pytest.raises(LogFailedError, match="cannot be opened"):
        FrameLog.open(tmp_path)
    log.close()
    FrameLog.open(tmp_path).close()


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = FrameLog.open(tmp_path)
    log.close()
    with pytest.raises(LogFailedError, match="closed"):
        log.append(draft(0))


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from aurora_router_cluster.storage.disk.errors import LogFailedError
    from aurora_router_cluster.storage.disk.frames import Draft
    from aurora_router_cluster.storage.disk.logfile import FrameLog

    log = FrameLog.open(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    acknowledged = 0
    try:
        while True:
            log.append(Draft(1, 1, acknowledged, bytes(100)))
            acknowledged += 1
    except LogFailedError as error:
        first = error
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        log.append(Draft(1, 1, 99, b""))  # it would fit now, but the log has failed
    except LogFailedError as second:
        assert second is first
        print(acknowledged, log.frame(log.start).header.lsn, first)
"""


def test_a_disk_that_refuses_ends_the_log_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    script = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    result = subprocess.run(script, capture_output=True, text=True, check=True)
    count, first, *words = result.stdout.split()
    assert (int(first), " ".join(words[-5:])) == (0, "large; the node must stop")
    log = FrameLog.open(tmp_path)
    assert lsns(log) == list(range(int(count)))
    assert log.torn > 0
    log.close()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a tmpfs needs root on Linux")
def test_a_full_file_system(tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        log = FrameLog.open(directory / "log")
        count = 0
        error = ""
        while not error and count < 100:
            try:
                log.append(draft(count, 1000))
                count += 1
            except LogFailedError as failure:
                error = str(failure)
        assert "No space left" in error
        assert lsns(log) == [number * 1000 for number in range(count)]
        log.close()
        again = FrameLog.open(directory / "log")
        assert lsns(again) == [number * 1000 for number in range(count)]
        again.close()
    finally:
        subprocess.run(["umount", str(directory)], check=True)
