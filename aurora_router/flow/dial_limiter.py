"""Letting a process's dials to a new writer begin in turn, after a failover; see `policy.slow_start` for why.

Nobody is held back while the cluster has the writer that it had when this process met it. What this process caused
itself is no sign of trouble: that a dial was slow, or timed out, counts only if this process attended to it. Two things
show that it did not: the monitor's samples came late meanwhile (no CPU), or the dial itself was looked at late (its
event loop was blocked).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from aurora_router.policy.slow_start import SlowStart
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Runtime, Wanted
    from aurora_router.policy.verdict import Fault

TOO_MANY_CONNECTIONS = "53300"
UNKNOWN_PAUSE = 1.0
"""A pause of unknown length, in seconds: news end it."""
UNWATCHED_PAUSE = 5.0
"""The longest pause while nobody looks for another writer, in seconds: then a connect has to look by itself."""
STAND_IN_PAUSE = 2.0
"""The longest pause before a dial of the writer in place of a reader, in seconds."""
UNATTENDED_SECONDS = 0.5
"""A dial that is not looked at for so long, instead of `GLANCE_SECONDS`, is not attended to."""


class DialPermit:
    """One dial's place in the slow start of its cluster.

    Args:
        runtime: the ground.
        cluster: whose writer is dialled.
    """

    def __init__(self, runtime: Runtime[Any], cluster: Cluster) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self._began: float | None = None
        self._epoch = 0
        self._glanced_at: float | None = None
        self._is_late = False

    async def wait(self, left: Callable[[], float], *, stands_in: bool = False) -> bool:
        """Wait until the dial may begin; at most as long as it makes sense (`left`, in seconds).

        Args:
            left: seconds for which it makes sense to go on.
            stands_in: the writer is wanted in place of a reader, so that a long pause is no reason to wait: the other
                instances may be back by then.

        Returns:
            Whether it may begin; False: it is time to see whether it is still the writer that is to be dialled.
        """
        news, began = self.cluster.news, self.runtime.now()
        while (pause := self._pause()) > 0.0 and left() > 0.0:
            waited = self.runtime.now() - began
            if not self.cluster.watched and waited >= UNWATCHED_PAUSE:
                return False
            if stands_in and waited + pause > STAND_IN_PAUSE:
                return False
            longest = left() if self.cluster.watched else min(left(), UNWATCHED_PAUSE)
            await self.runtime.changed(self.cluster, news, min(pause, longest))
            news = self.cluster.news
        self._begin()
        return True

    def _pause(self) -> float:
        """Seconds until the dial may begin, as far as is known; begins the slow start of a new epoch."""
        cluster, now = self.cluster, self.runtime.now()
        if cluster.view.epoch <= cluster.slow_start_epoch:
            pause = self._pause_of(cluster.slow_start, now)
            return UNKNOWN_PAUSE if pause is None else pause
        with cluster.lock:
            if cluster.slow_start_epoch < cluster.view.epoch:
                cluster.slow_start_epoch = cluster.view.epoch
                cluster.turns = WeakSet()
                cluster.slow_start = SlowStart.begin(now, self.runtime.random(), cluster.usual_latency)
        return self._pause()

    def _pause_of(self, slow_start: SlowStart | None, now: float) -> float | None:
        """What the present slow_start says; one of a failover that is long past is let go of.

        A dial that an exception from a signal handler ended may have reported no end: only turns that live count.
        """
        if slow_start is None:
            return 0.0
        live = replace(slow_start, under_way=min(slow_start.under_way, len(self.cluster.turns)))
        if not live.is_expired(now):
            return live.wait(now, alone=not self.cluster.has_writer_connection)
        with self.cluster.lock:
            if self.cluster.slow_start is slow_start:
                self.cluster.slow_start = None
        return 0.0

    def _begin(self) -> None:
        with self.cluster.lock:
            if self.cluster.slow_start is not None:
                self._began, self._epoch = self.runtime.now(), self.cluster.slow_start_epoch
                self.cluster.turns.add(self)
                self.cluster.slow_start = self.cluster.slow_start.add_dial()

    def glancing(self, wanted: Wanted) -> Wanted:
        """The same question, which a dial asks again and again; when it does shows whether it is attended to."""
        self._glanced_at = self.runtime.now()

        def glance() -> bool:
            self._glance()
            return wanted()

        return glance

    def _glance(self) -> None:
        if self._glanced_at is not None:
            now = self.runtime.now()
            self._is_late = self._is_late or now - self._glanced_at > UNATTENDED_SECONDS
            self._glanced_at = now

    def _was_attended(self) -> bool:
        """Whether this process attended to the dial, which has just ended."""
        self._glance()
        starved = self._began is not None and self.cluster.is_unattended(self._began, self.runtime.now())
        return not (self._is_late or starved)

    def record_success(self) -> None:
        """The dial brought a connection."""
        if self._began is None:
            return
        attended = self._was_attended()
        self._end(
            lambda slow_start, seconds, now: slow_start.record_success(
                seconds, now, self.runtime.random(), attended=attended
            )
        )

    def record_failure(self, fault: Fault) -> None:
        """The dial failed; one that timed out at a host that hung meanwhile tells nothing of the room that it has."""
        timed_out = fault.kind is FaultKind.TIMEOUT and (self._began is None or self.cluster.hung_at < self._began)
        if (timed_out and self._was_attended()) or fault.sqlstate == TOO_MANY_CONNECTIONS:
            self._end(lambda slow_start, seconds, now: slow_start.record_failure(seconds, now, self.runtime.random()))

    def over(self) -> None:
        """The dial is over, whatever became of it."""
        self._end(lambda slow_start, _, __: slow_start.remove_dial())

    def _end(self, follow: Callable[[SlowStart, float, float], SlowStart]) -> None:
        began, self._began = self._began, None
        if began is None:
            return
        now = self.runtime.now()
        with self.cluster.lock:
            self.cluster.turns.discard(self)
            if self.cluster.slow_start_epoch != self._epoch:
                return  # the dial was one of a former writer, and says nothing of this one
            slow_start = self.cluster.slow_start
            following = None if slow_start is None else follow(slow_start, now - began, now)
            self.cluster.slow_start = None if following is None or following.over else following
        self.cluster.wake()
