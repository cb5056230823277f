"""What happened to a cluster and its instances, in the words and categories of Amazon RDS, for ``DescribeEvents``."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.rpc.served import served

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 1000
"""Events kept; the oldest ones go first."""
CLUSTER, INSTANCE, SNAPSHOT = "db-cluster", "db-instance", "db-cluster-snapshot"
"""Kinds of sources."""
DOWN = frozenset({"stopped", "restarting"})
"""States of an instance that is not there; one that is available afterwards was restarted."""


class EventLog:
    """The last events of one cluster, oldest first."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._states: dict[str, str] = {}

    def add(self, kind: str, source: str, category: str, message: str) -> None:
        """Record an event that happens now.

        Args:
            kind: of its source: `CLUSTER`, `INSTANCE` or `SNAPSHOT`.
            source: name of its source.
            category: as Amazon RDS has it, e.g. ``failover``.
            message: one sentence.
        """
        self._events.append(
            {"time": time.time(), "kind": kind, "source": source, "category": category, "message": message}
        )

    def compare(self, states: Mapping[str, str]) -> None:
        """Record what follows from the instances' present states (name -> state, see `status.InstanceStatus`)."""
        for name, state in states.items():
            before = self._states.get(name, "creating")
            if before == state:
                continue
            if state == "available" and before == "creating":
                self.add(INSTANCE, name, "creation", "DB instance created")
            elif state == "available" and before in DOWN:
                self.add(INSTANCE, name, "availability", "DB instance restarted")
            elif state == "paused":
                self.add(INSTANCE, name, "notification", "DB instance paused")
            elif before == "resuming":
                self.add(INSTANCE, name, "notification", "DB instance resumed")
            elif state in DOWN and before not in DOWN:
                self.add(INSTANCE, name, "availability", "DB instance shutdown")
        for name in self._states.keys() - states.keys():
            self.add(INSTANCE, name, "deletion", "DB instance deleted")
        self._states = dict(states)

    @served
    async def events(self) -> list[dict[str, Any]]:
        """The events: time (seconds since the epoch), kind, source, category, message."""
        return list(self._events)
