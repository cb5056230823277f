from __future__ import annotations

import asyncio
import errno
import os
import platform
from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.storage.disk.kernelsync import SyncQueue

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def queue():
    made = SyncQueue.acquire()
    if made is None:
        pytest.skip("this system has no asynchronous syncs")
    yield made
    made.release()


@pytest.fixture
def files(tmp_path: Path):
    made = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in range(100)]
    yield made
    for descriptor in made:
        os.close(descriptor)


async def all_synced(queue: SyncQueue, descriptors: list[int]) -> list[int]:
    """The status of each, in the order of `descriptors`."""
    statuses: dict[int, int] = {}
    ended = asyncio.Event()

    def one(number: int, descriptor: int) -> None:
        def done(status: int) -> None:
            assert number not in statuses
            statuses[number] = status
            if len(statuses) == len(descriptors):
                ended.set()

        queue.sync(descriptor, done)

    for number, descriptor in enumerate(descriptors):
        queue.call_soon(lambda number=number, descriptor=descriptor: one(number, descriptor))
    await asyncio.wait_for(ended.wait(), 30)
    return [statuses[number] for number in range(len(descriptors))]


async def test_every_file_is_synced_once_also_more_than_the_queue_is_deep(queue, files):
    for descriptor in files:
        os.write(descriptor, b"x" * 5000)
    assert await all_synced(queue, files) == [0] * len(files)
    assert await all_synced(queue, files[:1]) == [0]


async def test_what_the_kernel_refuses_is_told_and_the_others_are_synced(queue, files):
    reading, writing = os.pipe()
    try:
        closed = os.dup(reading)
        os.close(closed)
        found = await all_synced(queue, [files[0], closed, files[1], writing, files[2]])
    finally:
        os.close(reading)
        os.close(writing)
    assert found == [0, -errno.EBADF, 0, -errno.EINVAL, 0]


async def test_a_sync_asked_for_when_another_has_ended(queue, files):
    left, ended = [20], asyncio.Event()

    def done(status: int) -> None:
        assert status == 0
        left[0] -= 1
        if left[0]:
            queue.sync(files[left[0]], done)
        else:
            ended.set()

    queue.call_soon(lambda: queue.sync(files[0], done))
    await asyncio.wait_for(ended.wait(), 30)


async def test_all_of_a_loop_share_one_and_the_last_closes_it(queue):
    again = SyncQueue.acquire()
    assert again is queue
    again.release()
    os.fstat(queue._signal)
    alone = SyncQueue(asyncio.get_running_loop())
    alone._users = 1
    alone.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(alone._signal)


async def test_there_is_none_on_an_unknown_machine(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert SyncQueue.acquire() is None
