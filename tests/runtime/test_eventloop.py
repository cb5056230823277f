"""What happens to a wait, and to a dial that succeeds, when it is cancelled or too late."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from aurora_router.flow.runtime import DialFailed, Target
from aurora_router.runtime.libpq_runtimes import EventLoopRuntime
from aurora_router.runtime.timeouts import wait_at_most


class Opened:
    """What a dial brings."""

    def __init__(self) -> None:
        self.pgconn = self
        self.finished = asyncio.Event()

    def finish(self) -> None:
        self.finished.set()


class Stubborn:
    """Opens a connection, whether it is cancelled meanwhile or not."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.made = None

    async def __call__(self, target, seconds):
        self.begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.made = Opened()
        return self.made


def target():
    return Target("an instance", "host", 5432, addresses=("127.0.0.1",))


async def test_a_cancelled_dial_leaves_no_connection():
    stubborn = Stubborn()
    dialling = asyncio.create_task(EventLoopRuntime(stubborn, None).dial(target(), 30))
    await stubborn.begun.wait()
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    await asyncio.sleep(0)  # the dial ends after the task that waited for it
    await stubborn.made.finished.wait()


async def test_a_dial_that_is_too_late_leaves_no_connection():
    stubborn = Stubborn()
    with pytest.raises(DialFailed):
        await EventLoopRuntime(stubborn, None).dial(target(), 0.01)
    await stubborn.made.finished.wait()


async def test_a_dial_that_is_not_wanted_any_more_ends_and_leaves_no_connection():
    stubborn, asked = Stubborn(), []

    def wanted():
        asked.append(len(asked))
        return len(asked) < 3

    with pytest.raises(DialFailed):
        await EventLoopRuntime(stubborn, None).dial(replace(target(), wanted=wanted), 30)
    await stubborn.made.finished.wait()
    assert asked == [0, 1, 2]


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost():
    answer = asyncio.get_running_loop().create_future()

    async def read():
        return await answer

    waiting = asyncio.create_task(wait_at_most(30, read()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # it waits
    answer.set_result("an answer")
    await asyncio.sleep(0)  # the answer was read, and the task that waits for it does not know that yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_wait_ends_after_its_time_with_what_it_waits_for():
    ended = asyncio.Event()

    async def endless():
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await wait_at_most(0.01, endless())
    assert ended.is_set()
