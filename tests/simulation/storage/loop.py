"""An event loop without I/O whose clock is virtual: sleeping costs nothing, and a seed decides everything."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any


class Deadlock(Exception):
    """Nothing is scheduled any more, and the schedule has not ended."""


class Call:
    """A callback that is due; asyncio's own handles copy a context for each, which costs more than the call."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Any, args: Any) -> None:
        self.callback: Any = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their virtual times, then of their making; waiting moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.errors: list[str] = []
        self.set_exception_handler(self._remember)
        self._timers: list[tuple[float, int, Call]] = []
        self._made = 0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        call = Call(callback, args)
        self._ready.append(call)
        return call

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        call = Call(callback, args)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, call))
        return call

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.now + delay, callback, *args)

    def _run_once(self) -> None:
        """What is ready, and then whatever is due next, until the loop is stopped.

        Raises:
            AssertionError: a callback failed. It ends the schedule at once: what it left undone, say the answers for
                the rest of what a disk wrote, might be waited for without an end.
        """
        timers, ready = self._timers, self._ready
        while not self._stopping:
            if ready:
                call = ready.popleft()
            elif timers:
                when, _, call = heapq.heappop(timers)
                if call.callback is not None and when > self.now:
                    self.now = when
            else:
                raise Deadlock("every task waits for something that will never happen")
            if call.callback is not None:
                try:
                    call.callback(*call.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # as asyncio's own handles do
                    first = not self.errors
                    self.call_exception_handler({"message": f"{call.callback} failed", "exception": error})
                    if first:
                        raise AssertionError(self.errors) from error

    def _write_to_self(self) -> None:
        """Do nothing: there is no other task to wake."""

    def _remember(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")


def run(main: Any) -> Any:
    """Run a coroutine to its end on a loop of its own; whatever it left behind is cancelled.

    Raises:
        AssertionError: a task or callback failed and its result was not read.
    """
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        assert not loop.errors, loop.errors
        return result
    finally:
        try:
            while left := asyncio.all_tasks(loop):
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            asyncio.set_event_loop(None)
            loop.close()
