"""Waiting with a deadline, for what may be cancelled meanwhile.

Before Python 3.12 `asyncio.wait_for` loses a cancellation that comes together with the end of what it waits for: the
caller goes on as if it had not been cancelled, and a task that waits for its end waits forever (bpo-42130). Nothing in
this package uses it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


async def wait_at_most(seconds: float, work: Awaitable[T]) -> T:
    """Wait for `work`, and cancel it when the time is up or the caller is cancelled; returns once it has ended.

    Raises:
        asyncio.TimeoutError: it had not ended after `seconds`.
        asyncio.CancelledError: the caller was cancelled, whatever the outcome of `work`.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _cancel_and_wait(task)
        raise
    if not task.done():
        await _cancel_and_wait(task)
        if task.cancelled():
            raise asyncio.TimeoutError
    return task.result()


async def _cancel_and_wait(task: asyncio.Future[T]) -> None:
    """Cancel a task and wait for its end; its failure, if any, is discarded."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
