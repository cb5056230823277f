"""An event loop without I/O whose clock is virtual: sleeping costs nothing, and a seed decides everything."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any


class Deadlock(Exception):
    """Nothing is scheduled any more, and the schedule has not ended."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their virtual times; waiting moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.errors: list[str] = []
        self.set_exception_handler(self._remember)

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        """One round: what is ready, or else whatever is due next."""
        scheduled, ready = self._scheduled, self._ready
        while not ready:
            if not scheduled:
                raise Deadlock("every task waits for something that nobody will do")
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self.now = max(self.now, timer._when)
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _write_to_self(self) -> None:
        """Nobody else could be woken."""

    def _remember(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")


def run(main: Any) -> Any:
    """Run a coroutine to its end on a loop of its own; whatever it left behind is cancelled.

    Raises:
        AssertionError: a task or callback failed and nobody looked.
    """
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        assert not loop.errors, loop.errors
        return result
    finally:
        while left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
