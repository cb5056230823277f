"""Requests about a cluster's history over the control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control.backtrack import Backtrack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aurora_router_cluster.control.plane import ControlPlane


def commands(plane: ControlPlane) -> dict[str, Callable[..., Awaitable[Any]]]:
    """Name of a request -> what does it."""
    backtrack = Backtrack(plane.state, plane.procedure)
    return {
        "backtrack": backtrack.backtrack,
        "forward": backtrack.forward,
        "export": backtrack.export,
        "discard": backtrack.discard,
        "snapshot": backtrack.snapshot,
        "snapshots": backtrack.snapshots,
        "delete_snapshot": backtrack.delete_snapshot,
        "branches": backtrack.branches,
    }
