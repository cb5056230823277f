"""Auto-pause: instances without users fall asleep, and wake up for the first client that connects.

The processes of an instance that sleeps are stopped, so its listener accepts a connection and says nothing. That wakes
it: after the time that an engine needs to start (`resume`) its processes go on, and the connections that have waited
are served. As on Aurora the writer and the readers of the promotion tiers 0 and 1 sleep and wake together, each other
reader alone; a session that is open, whether it does anything or not, keeps its group awake.

Invariant: no instance sleeps that has a session of a user; one that connects just then wakes it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TYPE_CHECKING

from aurora_router_cluster.postgres import arrivals

if TYPE_CHECKING:
    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.state import ClusterState

log = logging.getLogger(__name__)

PAUSED, RESUMING = "paused", "resuming"
ASLEEP = frozenset({PAUSED, RESUMING})
"""States of an instance whose processes are stopped because it had no user."""
TOGETHER = 1
"""Up to this promotion tier readers sleep and wake with the writer."""
LOOK = 0.05
"""Seconds between two looks."""


class Pausing:
    """Lets the instances of one cluster sleep.

    Args:
        state: the instances.
        after: seconds without a session of a user after which they do.
        resume: seconds that they need to wake up.
    """

    def __init__(self, state: ClusterState, after: float, resume: float) -> None:
        self._state, self._after, self._resume = state, after, resume
        self._used_at: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what sleeps goes on sleeping."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wake_all(self) -> None:
        """Wake whatever sleeps, at once: a request needs it."""
        async with self._state.lock:
            self._wake([one for one in self._state.instances.values() if one.state in ASLEEP])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                for group in self._groups():
                    await self._look(group)
            except Exception:
                log.exception("auto-pause failed")

    def _groups(self) -> list[list[Instance]]:
        """The instances that sleep together."""
        state = self._state
        first = [one for one in state.instances.values() if one is state.writer or one.tier <= TOGETHER]
        return [first, *([one] for one in state.readers if one not in first)]

    async def _look(self, group: list[Instance]) -> None:
        state, now = self._state, time.monotonic()
        if any(one.state in ASLEEP for one in group):
            if all(one.state != RESUMING for one in group) and any(map(_has_arrivals, group)):
                await self._resume_soon(group)
            return
        if not all(one.available and one.newest is not None and not one.newest.sessions for one in group):
            self._used_at.update(dict.fromkeys((one.name for one in group), now))
        idle = now - max(self._used_at.setdefault(one.name, now) for one in group) if group else 0.0
        if group and idle >= self._after and not state.lock.locked():
            async with state.lock:
                self._pause(group)

    def _pause(self, group: list[Instance]) -> None:
        for one in group:
            one.state, one.capacity = PAUSED, 0.0
            one.engine.freeze()
        if any(map(_has_arrivals, group)):  # a client was faster
            self._wake(group)
            return
        log.info("without users, so paused: %s", ", ".join(one.name for one in group))
        self._state.publish()

    async def _resume_soon(self, group: list[Instance]) -> None:
        sleeping = [one for one in group if one.state == PAUSED]
        for one in sleeping:
            one.state = RESUMING
        self._state.publish()
        asyncio.get_running_loop().call_later(self._resume, self._end_resume, sleeping)

    def _end_resume(self, group: list[Instance]) -> None:
        self._wake([one for one in group if one.state == RESUMING])

    def _wake(self, group: list[Instance]) -> None:
        """Let the processes go on; a reader first replays what was written meanwhile."""
        state, now = self._state, time.monotonic()
        for one in group:
            one.engine.thaw()
            one.capacity = state.first_capacity
            one.missed, one.silent_since, one.stalled_since, one.stalled_looks = 0, None, now, 0
            self._used_at[one.name] = now
            if one is state.writer:
                one.state = "available"
            else:
                one.state, one.catch_up_lsn = "restarting", state.log_end()
        if group:
            log.info("awake: %s", ", ".join(one.name for one in group))
            state.publish()


def _has_arrivals(instance: Instance) -> bool:
    """Whether a client has connected to an instance that is asleep."""
    return arrivals.count(instance.engine.host, instance.engine.port) > 0


def is_possible() -> bool:
    """Whether this system shows the clients that connect to a process that is stopped."""
    return sys.platform == "linux" and arrivals.can_be_seen()
