"""A local cluster that behaves like Amazon Aurora PostgreSQL, made of real PostgreSQL instances.

>>> with LocalCluster.start(readers=2) as cluster:
...     print(cluster.url("writer"))
"""

from __future__ import annotations

from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.control.status import ClusterStatus, CustomEndpoint, Failover, InstanceStatus
from aurora_router_cluster.errors import ClusterError

__all__ = ["ClusterError", "ClusterStatus", "CustomEndpoint", "Failover", "InstanceStatus", "LocalCluster"]
