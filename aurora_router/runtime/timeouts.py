"""Waiting with a deadline in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


async def wait_at_most(seconds: float | None, work: Awaitable[T]) -> T:
    """Wait for `work`, and cancel it when the time is up or the caller is cancelled; returns once it has ended.

    `asyncio.wait_for` would do from Python 3.12 on: before, it loses a cancellation that comes together with the end of
    what it waits for (bpo-42130), and the caller goes on as if it had not been cancelled.

    Raises:
        TimeoutError: asyncio's; it had not ended after `seconds` (None: no limit).
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # so that it does not count as never retrieved when the caller was cancelled
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
