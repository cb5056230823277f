"""Waiting that counts only the time in which this process could have noticed what it waits for.

A supervisor that stands still, because it or the whole machine was stopped or other processes have the processors,
finds its deadlines over when it goes on, and the answers that arrived meanwhile unread. That is no evidence about what
was to answer: what has arrived is read before it is judged, and a standstill counts as one slice, however long it was.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncio import Future

SLICE: Final = 0.05
"""Seconds; what a standstill counts at most."""
_TURNS: Final = 8
"""Turns of the event loop within which an answer that is in the socket's buffer reaches the task that waits for it."""


async def wait_attentively(task: Future[Any], seconds: float) -> bool:
    """Wait for a task for `seconds` in which this process ran; returns whether it is done."""
    left = seconds
    while left > 0 and not task.done():
        part = min(left, SLICE)
        await asyncio.wait({task}, timeout=part)
        left -= part
    for _ in range(_TURNS):
        if task.done():
            break
        await asyncio.sleep(0)
    return task.done()
