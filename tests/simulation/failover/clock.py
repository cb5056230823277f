"""A virtual clock on which a process can stand still while the rest of the runtime goes on.

A task belongs to the process that started it. While a process is asleep (no CPU, a pause of the garbage collector, a
suspended laptop) none of its tasks runs; all that would have been due meanwhile is due when it wakes up.
"""

from __future__ import annotations

from contextlib import contextmanager
from heapq import heappop
from typing import Any

from aurora_router.runtime.simulated.scheduler import FOREVER
from aurora_router.simulation import Simulation


class Clock(Simulation):
    """A `Simulation` whose tasks have owners; None is the runtime itself, which never sleeps."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.owners: dict[Any, Any] = {}
        self.asleep: dict[Any, float] = {}
        self._owner: list[Any] = []

    @contextmanager
    def owned(self, owner: Any):
        """What is started meanwhile belongs to `owner`."""
        self._owner.append(owner)
        try:
            yield
        finally:
            self._owner.pop()

    def spawn(self, procedure, *, after=0.0):
        task = super().spawn(procedure, after=after)
        owner = self._owner[-1] if self._owner else self.owners.get(self._current)
        if owner is not None:
            self.owners[task] = owner
        return task

    def spawn_outside(self, procedure, *, after=0.0):
        """Start something that belongs to no process: it happens on a server."""
        return super().spawn(procedure, after=after)

    def starve(self, seconds: float, *owners: Any) -> None:
        """Let a process, or a part of it, stand still."""
        for owner in owners:
            self.asleep[owner] = max(self.asleep.get(owner, 0.0), self.now + seconds)

    def _step(self) -> bool:
        due, before = self._due, None
        while due:
            time, _, _, before, turn = due[0]
            until = self.asleep.get(self.owners.get(before), 0.0) if self.asleep else 0.0
            if time >= until or before.done or turn != before.turn:
                break
            heappop(due)
            self.due(before, until)
        ran = super()._step()
        if before is not None and before.done:
            self.owners.pop(before, None)
        return ran


class Gate:
    """Something that several tasks wait for."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._wakers: list[Any] = []

    async def wait(self, until: float = FOREVER) -> None:
        """Wait until it opens, or until `until`; a task that waits looks again itself."""
        self._wakers.append(self.clock.waker())
        await self.clock.park(until)

    def open(self) -> None:
        """Let all tasks that wait look again."""
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            waker()
