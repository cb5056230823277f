"""Limits how many dials to a new writer are under way after a failover; `policy.slow_start` explains why.

No dial waits as long as the cluster has the writer that it had when this process first connected. What this process
caused itself proves nothing about the server: a slow dial, or one that timed out, counts only if this process was not
stalled meanwhile. Two things show a stall: the monitor's samples came late (no CPU), or the dial itself was checked
late (a blocked event loop).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from aurora_router.policy.slow_start import SlowStart
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Runtime
    from aurora_router.policy.cluster_state import ClusterState, Transition
    from aurora_router.policy.verdict import Fault

TOO_MANY_CONNECTIONS = "53300"
UNKNOWN_PAUSE = 1.0
"""A pause of unknown length, in seconds: a change of the cluster ends it."""
NO_PAUSE = 1e-6
"""A pause of fewer seconds is over: a sum of times may be off by less than the clock shows."""
UNWATCHED_PAUSE = 5.0
"""The longest pause without a monitor, in seconds: after that a connect has to look for the writer itself."""
STAND_IN_PAUSE = 2.0
"""The longest pause before the writer is dialled in place of a reader, in seconds."""


class DialPermit:
    """One dial's place in the slow start of its cluster.

    Args:
        runtime: does the I/O.
        cluster: the cluster of the writer that is dialled.

    Attributes:
        was_steady: returns whether this process was not stalled during the dial, once that has ended.
    """

    def __init__(self, runtime: Runtime[Any], cluster: Cluster) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self._began: float | None = None
        self._epoch: int | None = None
        self.was_steady: Callable[[], bool] = lambda: True

    async def wait(self, left: Callable[[], float], *, stands_in: bool = False, is_urgent: bool = False) -> bool:
        """Wait until the dial may begin, for `left` seconds at most.

        Args:
            left: seconds for which it makes sense to go on.
            stands_in: the writer is dialled in place of a reader. Then a long pause is not waited for: the other
                instances may be back by then.
            is_urgent: whether the outcome of a commit depends on it.

        Returns:
            Whether it may begin; False: the caller has to check whether this is still the writer to dial, or the time
            is over.
        """
        news, began = self.cluster.news, self.runtime.now()
        releases_at = partial(
            SlowStart.releases_at,
            began=began, patience=left(), random=self.runtime.random(), is_urgent=is_urgent,
        )  # fmt: skip
        while (pause := self._pause(releases_at)) > 0.0 and left() > 0.0:
            waited = self.runtime.now() - began
            if not self.cluster.is_monitored and waited >= UNWATCHED_PAUSE:
                return False
            if stands_in and waited + pause > STAND_IN_PAUSE:
                return False
            longest = left() if self.cluster.is_monitored else min(left(), UNWATCHED_PAUSE)
            await self.runtime.wait_for_news(self.cluster, news, min(pause, longest))
            news = self.cluster.news
            if left() <= 0.0:
                return False
        self._epoch = self._begin_dial()
        self._began = None if self._epoch is None else self.runtime.now()
        return True

    def _pause(self, releases_at: Callable[[SlowStart], float]) -> float:
        """Seconds until the dial may begin, as far as is known; begins the slow start of a new epoch.

        Args:
            releases_at: returns when no pause of a slow start holds this dial back any more.
        """
        cluster, now = self.cluster, self.runtime.now()
        if cluster.state.dial_limit.is_due(cluster.view.epoch):
            cluster.update(self._begin_slow_start, now)
            return self._pause(releases_at)
        slow_start = cluster.slow_start
        pause = self._pause_of(slow_start, now)
        if pause is None:
            return UNKNOWN_PAUSE
        if slow_start is not None:
            pause = min(pause, releases_at(slow_start) - now)
        return pause if pause > NO_PAUSE else 0.0

    def _begin_slow_start(self, state: ClusterState, now: float) -> Transition:
        """Begin the slow start of a new writer, unless another connect did."""
        if not state.dial_limit.is_due(state.view.epoch):
            return state, ()
        self.cluster.dial_permits = WeakSet()
        slow_start = SlowStart.begin(now, self.runtime.random(), self.cluster.usual_latency)
        return state.change_dial_limit(state.dial_limit.begin(state.view.epoch, slow_start))

    def _begin_dial(self) -> int | None:
        """Count this dial in the slow start; returns the writer's epoch, or None if there is no slow start."""
        epoch = None

        def begin(state: ClusterState) -> Transition:
            nonlocal epoch
            if state.dial_limit.slow_start is None:
                return state, ()
            self.cluster.dial_permits.add(self)
            epoch = state.dial_limit.epoch
            return state.change_dial_limit(state.dial_limit.add_dial())

        self.cluster.update(begin)
        return epoch

    def _pause_of(self, slow_start: SlowStart | None, now: float) -> float | None:
        """Return the pause that a slow start requires; one that has expired is dropped.

        A dial that was ended by an exception from a signal handler may not have been counted down: only permits that
        still exist count.
        """
        if slow_start is None:
            return 0.0
        live = replace(slow_start, under_way=min(slow_start.under_way, len(self.cluster.dial_permits)))
        if not live.is_expired(now):
            return live.wait(now, alone=not self.cluster.has_writer_connection)
        self.cluster.update(lambda state: state.change_dial_limit(state.dial_limit.end(slow_start)))
        return 0.0

    def record_success(self) -> None:
        """Record that the dial succeeded."""
        if self._began is None:
            return
        attended = self.was_steady()
        self._end(
            lambda slow_start, seconds, now: slow_start.record_success(
                seconds, now, self.runtime.random(), attended=attended
            )
        )

    def record_failure(self, fault: Fault) -> None:
        """Record that the dial failed. A timeout at a host that hung meanwhile shows nothing about its capacity."""
        hung_at = self.cluster.state.health.hung_at
        timed_out = fault.kind is FaultKind.TIMEOUT and (self._began is None or hung_at < self._began)
        if (timed_out and self.was_steady()) or fault.sqlstate == TOO_MANY_CONNECTIONS:
            self._end(lambda slow_start, seconds, now: slow_start.record_failure(seconds, now, self.runtime.random()))

    def end(self) -> None:
        """End the dial, whatever its outcome. Does nothing if that was recorded."""
        self._end(lambda slow_start, _, __: slow_start.remove_dial())

    def _end(self, follow: Callable[[SlowStart, float, float], SlowStart]) -> None:
        began, self._began = self._began, None
        epoch, cluster, now = self._epoch, self.cluster, self.runtime.now()
        if began is None or epoch is None:
            return

        def end(state: ClusterState) -> Transition:
            cluster.dial_permits.discard(self)
            limit = state.dial_limit.end_dial(epoch, lambda slow_start: follow(slow_start, now - began, now))
            return state.change_dial_limit(limit)

        cluster.update(end)
        if cluster.state.dial_limit.epoch == epoch:
            cluster.wake()
