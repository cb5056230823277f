"""Finds out which connections have a direct path to their instance: only those may be cut if it hangs.

`policy.paths` has the theory: the server itself is asked where it sees the connection come from. That is done in the
background, once for each path, on the session that the monitor has there, or else on one that is closed afterwards.

Invariant: a path that was not examined, or that leads through a pooler, is not direct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol

from aurora_router.flow.probe import InstanceProbe
from aurora_router.flow.runtime import ConnT, DialFailed, MonitorRuntime
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.paths import DIRECT_SECONDS, Known, record_no_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Target
    from aurora_router.policy.options import Options
    from aurora_router.policy.paths import End


class ProbeOwner(Protocol):
    """A monitor that has a probe of each instance."""

    @property
    def options(self) -> Options:
        """The monitor's options."""
        ...

    def probe_of(self, id_: str) -> InstanceProbe[Any]:
        """Return the monitor's probe of an instance, with its only session."""
        ...


class PathExaminer(Generic[ConnT]):
    """Knows which paths of one cluster are direct, and examines the others.

    Args:
        runtime: does the I/O.
        cluster: whose connections are examined; what is found is kept in its state.
        monitor: has the probes.
    """

    def __init__(self, runtime: MonitorRuntime[ConnT], cluster: Cluster, monitor: ProbeOwner) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self.monitor = monitor
        self._under_examination: set[End] = set()

    def find_direct(self, held: Any, id_: str) -> Target | None:
        """Return where a connection leads if its path is known to be direct; else None."""
        target = self.runtime.target(held, id_)
        path = None if target is None else _find_end(target)
        if path is None or self.cluster.state.role_reports.is_pooled(path):
            return None
        known = self.cluster.state.paths.get(path)
        return target if held.direct or (known is not None and known.direct) else None

    def is_direct(self, id_: str) -> bool:
        """Whether some connection has a direct path to an instance."""
        return any(self.find_direct(held, id_) is not None for held in self.cluster.tracked_connections().get(id_, ()))

    def examine(self, id_: str, connections: Iterable[Any], now: float) -> None:
        """Examine unknown paths in the background."""
        for held in connections:
            target = None if held.direct else self.runtime.target(held, id_)
            path = None if target is None else _find_end(target)
            if target is None or path is None or path in self._under_examination:
                continue
            known = self.cluster.state.paths.get(path)
            if known is None or now >= known.until:
                self._under_examination.add(path)
                self.runtime.spawn(self._ask_server(id_, target, path))

    async def _ask_server(self, id_: str, target: Target, path: End) -> None:
        """Examine a path on the session that exists there, or else on one that is closed afterwards."""
        shared = self.monitor.probe_of(id_)
        probe = shared if shared.is_on(path) and not shared.busy else InstanceProbe(self.runtime, self.cluster, id_)
        probe.busy = True
        try:
            direct = await probe.is_direct(target, self.monitor.options.connect_timeout)
            known = Known(direct, self.runtime.now() + DIRECT_SECONDS)
        except DialFailed:
            known = record_no_answer(self.cluster.state.paths.get(path), self.runtime.now())
        finally:
            self._under_examination.discard(path)
            probe.busy = False
            if probe is not shared:
                await probe.close()
        self.cluster.update(ClusterState.record_path, path, known)


def _find_end(target: Target) -> End | None:
    """Return the path to a target; None for a local socket."""
    return (target.addresses[0], target.port) if target.addresses and target.port is not None else None
