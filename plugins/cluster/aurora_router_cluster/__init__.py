"""A local cluster that behaves like Amazon Aurora PostgreSQL, made of real PostgreSQL instances.

>>> with LocalCluster.start(readers=2) as cluster:
...     print(cluster.url("writer"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aurora_router_cluster.client.cluster import LocalCluster
    from aurora_router_cluster.control.status import ClusterStatus, CustomEndpoint, Failover, InstanceStatus
    from aurora_router_cluster.errors import ClusterError

__all__ = ["ClusterError", "ClusterStatus", "CustomEndpoint", "Failover", "InstanceStatus", "LocalCluster"]

_HOMES = {"ClusterError": "errors", "LocalCluster": "client.cluster"}
"""Module of each public name; of all others it is ``control.status``."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the cluster's own processes want none, and start sooner."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'control.status')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
