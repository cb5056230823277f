from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.storage.disk.commit import GroupCommit
from aurora_router_cluster.storage.disk.errors import LogFailedError
from aurora_router_cluster.storage.disk.frames import Draft, Frame
from aurora_router_cluster.storage.disk.kernelsync import SyncQueue
from aurora_router_cluster.storage.disk.logfile import FrameLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def draft(number: int) -> Draft:
    return Draft(1, 1, number, b"x" * number)


class Owner:
    """Keeps what the commit reports."""

    def __init__(
        self, path: Path, *, threaded: bool = True, kernel: SyncQueue | None = None, file_size: int = 1 << 20
    ) -> None:
        self.durable: list[int] = []
        self.failures: list[LogFailedError] = []
        self.moved = asyncio.Event()
        self.log = FrameLog.open(path, file_size=file_size)
        self.commit = GroupCommit(self.log, self.told, self.failed, threaded=threaded, kernel=kernel)

    def told(self, durable: int) -> None:
        self.durable.append(durable)
        self.moved.set()

    def failed(self, error: LogFailedError) -> None:
        self.failures.append(error)
        self.moved.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.moved.clear()
            await asyncio.wait_for(self.moved.wait(), 30)


class HeldQueue(SyncQueue):
    """Syncs end when the test says so."""

    def __init__(self) -> None:
        self.held: list[Callable[[int], None]] = []
        self.released = 0

    def call_soon(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)

    def sync(self, descriptor: int, done: Callable[[int], None]) -> None:
        os.fstat(descriptor)
        self.held.append(done)

    def end(self, status: int) -> None:
        self.held.pop(0)(status)

    def release(self) -> None:
        self.released += 1


async def with_one_frame(path: Path, kernel: HeldQueue) -> Owner:
    """An owner whose first frame is durable."""
    owner = Owner(path, kernel=kernel)
    owner.commit.submit(draft(1))
    await asyncio.sleep(0)
    assert owner.durable == []
    kernel.end(0)
    assert owner.durable == [owner.log.end]
    return owner


@pytest.mark.parametrize("file_size", [2000, 1 << 20])
@pytest.mark.parametrize("way", ["thread", "kernel", "loop"])
async def test_everything_submitted_becomes_durable_in_order(tmp_path: Path, way: str, file_size: int) -> None:
    kernel = SyncQueue.acquire() if way == "kernel" else None
    owner = Owner(tmp_path, threaded=way != "loop", kernel=kernel, file_size=file_size)
    positions = []
    for number in range(100):
        positions.append(owner.commit.submit(draft(number)))
        if number % 7 == 0:
            await asyncio.sleep(0)
    end = owner.log.end  # a mark may follow, once the log rests
    await owner.until(lambda: owner.durable and owner.durable[-1] == end)
    assert owner.durable == sorted(owner.durable)
    assert len(owner.durable) < 100  # in groups
    assert [owner.log.frame(position).header.lsn for position in positions] == list(range(100))
    await owner.commit.close()
    log = FrameLog.open(tmp_path)
    assert [entry.header.lsn for entry in log.entries() if isinstance(entry, Frame)] == list(range(100))
    log.close()


async def test_what_queues_during_a_sync_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, batches = threading.Event(), list[int]()
    owner = Owner(tmp_path)
    write = owner.log.write

    def slow(pieces: list[tuple[int, Draft]]) -> int:
        gate.wait(30)
        batches.append(len(pieces))
        return write(pieces)

    monkeypatch.setattr(owner.log, "write", slow)
    owner.commit.submit(draft(1))
    for number in range(2, 10):
        await asyncio.sleep(0)
        owner.commit.submit(draft(number))
    assert owner.durable == []
    end = owner.log.end
    gate.set()
    await owner.until(lambda: owner.durable and owner.durable[-1] == end)
    assert batches == [1, 8]
    await owner.commit.close()


async def test_what_queues_during_a_sync_of_the_kernels_goes_with_the_next(tmp_path: Path) -> None:
    kernel = HeldQueue()
    owner = await with_one_frame(tmp_path, kernel)
    before = owner.log.durable
    for number in range(2, 10):
        owner.commit.submit(draft(number))
        await asyncio.sleep(0)
    assert (owner.log.durable, owner.durable, len(kernel.held)) == (before, [before], 1)
    kernel.end(0)
    assert (owner.log.durable, len(kernel.held)) == (before + draft(2).size, 1)
    kernel.end(0)
    assert (owner.log.durable, kernel.held) == (owner.log.end, [])
    assert owner.durable == [before, before + draft(2).size, owner.log.end]
    await owner.commit.close()
    assert kernel.released == 1


async def test_a_failed_sync_of_the_kernels_ends_the_log(tmp_path: Path) -> None:
    kernel = HeldQueue()
    owner = await with_one_frame(tmp_path, kernel)
    before = owner.log.durable
    owner.commit.submit(draft(2))
    await asyncio.sleep(0)
    owner.commit.submit(draft(3))
    kernel.end(-errno.EIO)
    assert "Input/output error; the node must stop" in str(owner.failures[0])
    with pytest.raises(LogFailedError):
        owner.commit.submit(draft(4))
    assert (owner.log.durable, owner.durable, len(owner.failures)) == (before, [before], 1)
    await owner.commit.close()


async def test_close_while_the_kernel_syncs_writes_what_is_queued(tmp_path: Path) -> None:
    kernel = HeldQueue()
    owner = await with_one_frame(tmp_path, kernel)
    owner.commit.submit(draft(2))
    await asyncio.sleep(0)
    owner.commit.submit(draft(3))
    assert len(kernel.held) == 1
    await owner.commit.close()
    kernel.end(0)  # too late: no caller is notified, nothing fails
    log = FrameLog.open(tmp_path)
    assert [entry.header.lsn for entry in log.entries() if isinstance(entry, Frame)] == [1, 2, 3]
    log.close()


@pytest.mark.parametrize("threaded", [True, False])
async def test_a_failed_sync_is_told_once_and_nothing_is_accepted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threaded: bool
) -> None:
    owner = Owner(tmp_path, threaded=threaded)
    owner.commit.submit(draft(1))
    await owner.until(lambda: owner.durable)
    acknowledged = owner.log.durable
    read_only = os.open(tmp_path / "00000001.frames", os.O_RDONLY)
    assert owner.log._growing is not None
    os.close(owner.log._growing[1])
    owner.log._growing = 1, read_only  # EBADF from the write
    owner.commit.submit(draft(2))
    owner.commit.submit(draft(3))
    await owner.until(lambda: owner.failures)
    with pytest.raises(LogFailedError, match="the node must stop"):
        owner.commit.submit(draft(4))
    assert owner.log.durable == acknowledged
    assert owner.durable == [acknowledged]
    await owner.commit.close()
    assert len(owner.failures) == 1
    with pytest.raises(OSError):
        os.fstat(read_only)


async def test_close_writes_what_is_queued_and_ends_the_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    owner = Owner(tmp_path)
    for number in range(5):
        owner.commit.submit(draft(number))
    await owner.commit.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "frame-log"]
    assert threading.active_count() <= before + 1  # asyncio's helper thread for the join
    log = FrameLog.open(tmp_path)
    assert len(list(log.entries())) == 5
    log.close()
