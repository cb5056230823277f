"""What can be asked of a cluster's past over the control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control.rewinding import Rewinding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aurora_router_cluster.control.plane import ControlPlane


def commands(plane: ControlPlane) -> dict[str, Callable[..., Awaitable[Any]]]:
    """Name of a request -> what does it."""
    rewinding = Rewinding(plane.roster, plane.succession)
    return {
        "backtrack": rewinding.backtrack,
        "forward": rewinding.forward,
        "export": rewinding.export,
        "discard": rewinding.discard,
        "snapshot": rewinding.snapshot,
        "snapshots": rewinding.snapshots,
        "delete_snapshot": rewinding.delete_snapshot,
        "branches": rewinding.branches,
    }
