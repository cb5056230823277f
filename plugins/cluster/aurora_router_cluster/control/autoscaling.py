"""Auto-scaling: adds readers and removes them again, as the policy wants; and the capacity of serverless instances.

It removes only readers that it made. They are named as on Aurora, have the writer's class and the last promotion tier.
One that is removed leaves the endpoints and the rows of the others at once; its sessions may go on for the time of the
drain, or until all of them have ended, and other changes of the cluster go on meanwhile.

Invariant: it changes nothing unless the cluster is available: no failover, backtrack or other change is under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control import event_log
from aurora_router_cluster.control.pausing import ASLEEP
from aurora_router_cluster.errors import ClusterError
from aurora_router_cluster.scaling.capacity import next_capacity
from aurora_router_cluster.scaling.tracking import Metric, Tracker

if TYPE_CHECKING:
    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.plane import ControlPlane
    from aurora_router_cluster.scaling.capacity import CapacityLimits
    from aurora_router_cluster.scaling.tracking import ScalingPolicy

log = logging.getLogger(__name__)

PREFIX = "application-autoscaling"
LAST_TIER = 15
LOOK = 1.0
"""Seconds between two looks at the capacity."""


class AutoScaling:
    """Scales one cluster.

    Args:
        plane: adds readers and removes them.
        policy: how the number of readers follows the load; None: it does not.
        limits: of the capacity of each instance; None: they have classes of a fixed size.
    """

    def __init__(self, plane: ControlPlane, policy: ScalingPolicy | None, limits: CapacityLimits | None) -> None:
        self._plane, self._state, self._policy, self._limits = plane, plane.state, policy, limits
        self._tracker, self._mean, self._wanted = Tracker(), None if policy is None else 0.0, 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked = time.monotonic()

    def start(self) -> None:
        """Begin; needs a running event loop."""
        if self._policy is not None:
            self._begin(self._track(self._policy))
        if self._limits is not None:
            self._begin(self._measure(self._limits))

    async def close(self) -> None:
        """Stop; drains that are under way end with the cluster."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> dict[str, Any] | None:
        """The policy, and what it made of the load last; None: there is none."""
        policy = self._policy
        if policy is None:
            return None
        return {
            "least": policy.least,
            "most": policy.most,
            "metric": policy.metric.value,
            "target": policy.target,
            "mean": self._mean,
            "wanted": self._wanted,
            "readers": len(self._readers),
        }

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------ the number of readers

    @property
    def _readers(self) -> list[Instance]:
        """Those that count: not those that leave."""
        return [one for one in self._state.readers if one.state != "deleting"]

    async def _track(self, policy: ScalingPolicy) -> None:
        while True:
            await asyncio.sleep(policy.period)
            try:
                if self._is_available:
                    await self._look(policy)
            except ClusterError as error:
                log.warning("auto-scaling: %s", error)
                self._state.events.add(event_log.CLUSTER, self._state.names.cluster, "failure",
                    f"Auto-scaling could not change the number of readers: {error}")  # fmt: skip
            except Exception:
                log.exception("auto-scaling failed")

    @property
    def _is_available(self) -> bool:
        state = self._state
        is_idle = state.activity == "available" and not state.lock.locked()
        return is_idle and state.writer is not None and state.writer.available

    async def _look(self, policy: ScalingPolicy) -> None:
        readers = self._readers
        self._mean = _mean([_figure(one, policy.metric) for one in readers if one.available])
        self._tracker, self._wanted = self._tracker.decide(policy, len(readers), self._mean, time.monotonic())
        own = [one for one in readers if one.autoscaled]
        for _ in range(self._wanted - len(readers)):
            await self._add()
        for one in own[::-1][: max(0, len(readers) - self._wanted)]:  # the last one first
            log.info("auto-scaling removes %s", one.name)
            await self._plane.begin_removal(one.name)
            self._begin(self._remove(one, policy.drain))

    async def _add(self) -> None:
        writer = self._state.writer
        name = f"{PREFIX}-{uuid.uuid4()}"
        log.info("auto-scaling adds %s", name)
        await self._plane.add_reader(
            name, tier=LAST_TIER, instance_class=writer.instance_class if writer is not None else None, autoscaled=True
        )

    async def _remove(self, instance: Instance, drain: float) -> None:
        try:
            await self._plane.end_removal(instance, drain)
        except ClusterError as error:
            log.warning("auto-scaling: %s: %s", instance.name, error)

    # ------------------------------------------------------------ capacity

    async def _measure(self, limits: CapacityLimits) -> None:
        while True:
            now = time.monotonic()
            for one in self._state.instances.values():
                if one.state in ASLEEP:
                    continue
                one.capacity = next_capacity(one.capacity or 0.0, one.cpu, limits, now - self._looked)
            self._looked = now
            await asyncio.sleep(LOOK)


def _figure(instance: Instance, metric: Metric) -> float | None:
    if metric is Metric.CPU:
        return instance.cpu
    return None if instance.newest is None else float(instance.newest.sessions)


def _mean(figures: list[float | None]) -> float | None:
    """The mean, if each is known."""
    known = [each for each in figures if each is not None]
    return sum(known) / len(known) if known and len(known) == len(figures) else None
