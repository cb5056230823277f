"""A dial that succeeds although it was cancelled, or was too late, is closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from aurora_router.flow.world import DialFailed, Target
from aurora_router.runtime.eventloop import EventLoopWorld


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
    dialling = asyncio.create_task(EventLoopWorld(stubborn, None).dial(target(), 30))
    await stubborn.begun.wait()
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    await asyncio.sleep(0)  # the dial ends after who waited for it
    await stubborn.made.finished.wait()


async def test_a_dial_that_is_too_late_leaves_no_connection():
    stubborn = Stubborn()
    with pytest.raises(DialFailed):
        await EventLoopWorld(stubborn, None).dial(target(), 0.01)
    await stubborn.made.finished.wait()


async def test_a_dial_that_is_not_wanted_any_more_ends_and_leaves_no_connection():
    stubborn, asked = Stubborn(), []

    def wanted():
        asked.append(len(asked))
        return len(asked) < 3

    with pytest.raises(DialFailed):
        await EventLoopWorld(stubborn, None).dial(replace(target(), wanted=wanted), 30)
    await stubborn.made.finished.wait()
    assert asked == [0, 1, 2]
