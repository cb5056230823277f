"""What the API can do: one function for each operation, in the table `table.ACTIONS`."""

from __future__ import annotations

from aurora_router_cluster.api.actions import clusters, endpoints, events, history, instances, snapshots
from aurora_router_cluster.api.actions.table import ACTIONS, Action

__all__ = ["ACTIONS", "Action", "clusters", "endpoints", "events", "history", "instances", "snapshots"]
