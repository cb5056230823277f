"""Waiting with a deadline: a cancellation is never lost, whatever it coincides with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import aurora_router_cluster
from aurora_router_cluster.timeouts import wait_at_most


async def test_a_result_and_a_failure_come_through():
    assert await wait_at_most(30, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError):
        await wait_at_most(30, fail())


async def fail():
    await asyncio.sleep(0)
    raise ZeroDivisionError


async def test_what_takes_too_long_is_cancelled_and_has_ended():
    ended = []

    async def slow():
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        await wait_at_most(0.001, slow())
    assert ended


async def test_what_ends_while_it_is_cancelled_has_its_result():
    async def late():
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            return "late"

    assert await wait_at_most(0.001, late()) == "late"


@pytest.mark.case
@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("failure", [None, OSError("refused")])
async def test_a_cancellation_counts_also_when_the_work_ends_at_that_moment(turns, failure):
    """`asyncio.wait_for` lost it, and a storage node's connection was kept up although it had been ended."""
    gate = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(wait_at_most(30, gate))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if failure is None:
        gate.set_result("done")
    else:
        gate.set_exception(failure)
    for _ in range(turns):
        await asyncio.sleep(0)
    if waiting.cancel():
        await asyncio.wait({waiting})
        assert waiting.cancelled()
    else:
        assert turns > 0
        assert waiting.exception() is failure


async def test_a_second_cancellation_does_not_leave_the_work_running():
    async def stubborn():
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(600)

    work = asyncio.ensure_future(stubborn())
    waiting = asyncio.ensure_future(wait_at_most(30, work))
    await asyncio.sleep(0)
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    work.cancel()
    await asyncio.wait({work})


def test_nothing_in_the_package_waits_in_the_way_that_loses_cancellations():
    package = Path(aurora_router_cluster.__file__).parent
    assert [path for path in package.rglob("*.py") if "wait_for(" in path.read_text(encoding="utf-8")] == []
