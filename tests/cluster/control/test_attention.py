"""What this process or the machine causes is no evidence about an instance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aurora_router_cluster.control.attention import SLICE, wait_attentively
from aurora_router_cluster.postgres import processes


async def test_what_arrived_while_this_process_stood_still_is_read():
    ours, theirs = await asyncio.gather(*(asyncio.open_connection(sock=one) for one in _pair()))
    answer = asyncio.ensure_future(asyncio.wait_for(theirs[0].readexactly(2), 30))  # as deep as a session's query
    waiting = asyncio.ensure_future(wait_attentively(answer, SLICE))
    await asyncio.sleep(0)
    ours[1].write(b"ok")
    time.sleep(3 * SLICE)  # noqa: ASYNC251  # the loop stands still
    assert await waiting
    ours[1].close()
    theirs[1].close()


def _pair():
    import socket

    return socket.socketpair()


async def test_a_standstill_counts_as_one_slice():
    loop = asyncio.get_running_loop()
    never: asyncio.Future[None] = loop.create_future()
    loop.call_soon(time.sleep, 6 * SLICE)
    began = loop.time()
    assert not await wait_attentively(never, 3 * SLICE)
    assert loop.time() - began > 7.5 * SLICE


async def test_one_that_never_answers_is_given_up_in_time():
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    began = time.monotonic()
    assert not await wait_attentively(never, 3 * SLICE)
    assert time.monotonic() - began >= 3 * SLICE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the state of a process")
def test_who_wants_a_processor_is_known_from_who_waits_or_was_stopped(eventually):
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            eventually(lambda: processes.wants_processor(busy.pid))
            processes.freeze(busy.pid)
            eventually(lambda: not processes.wants_processor(busy.pid))
        finally:
            busy.kill()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as idle:
        try:
            eventually(lambda: not processes.wants_processor(idle.pid))
        finally:
            idle.kill()
    assert not processes.wants_processor(idle.pid)


@pytest.fixture
async def sampled(instance):
    """An instance that was looked at once."""
    await instance.sample(timeout=10)
    return instance


@pytest.mark.cluster
@pytest.mark.one_python
async def test_a_supervisor_that_is_starved_misses_no_answer(sampled):
    async def stall():
        while True:
            time.sleep(0.06)  # noqa: ASYNC251  # each turn of the loop, as with other processes on the processors
            await asyncio.sleep(0)

    stalling = asyncio.create_task(stall())
    try:
        for _ in range(10):
            await sampled.sample(timeout=0.1)
            assert sampled.missed == 0
    finally:
        stalling.cancel()
        await asyncio.wait({stalling})


@pytest.mark.cluster
@pytest.mark.one_python
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the state of a process")
async def test_an_instance_that_the_machine_starves_misses_no_answer(sampled):
    with starved(sampled.engine.pid) as is_possible:
        late, before = 0, sampled.newest
        deadline = time.monotonic() + 10
        while late < 5 and time.monotonic() < deadline:
            await sampled.sample(timeout=0.02)
            late += sampled.newest is before
            before = sampled.newest
            assert sampled.missed == 0
    if not is_possible or late < 5:
        pytest.skip("this machine gives it a processor all the same")


@contextlib.contextmanager
def starved(postmaster: int):
    """Give an instance's processes next to nothing of one processor, and others all of it."""
    cpu = min(os.sched_getaffinity(0))
    busy = [
        subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"])
        for _ in range(2)
    ]
    try:
        for pid in (postmaster, *processes.children(postmaster)):
            os.sched_setaffinity(pid, {cpu})
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/autogroup").write_text("19")
        yield True
    finally:
        for process in busy:
            process.kill()
            process.wait()
