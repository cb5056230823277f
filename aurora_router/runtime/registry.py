"""The clusters of this process: found by identity, merged when a topology shows that two are one."""

from __future__ import annotations

import os
import random
from functools import partial
from typing import TYPE_CHECKING

from aurora_router import native, observe
from aurora_router.flow.cluster import Cluster
from aurora_router.flow.learning import seeded
from aurora_router.policy.route import Mode, Request, Route, identity
from aurora_router.runtime import dns
from aurora_router.runtime.courier import COURIER

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Identity
    from aurora_router.model.event import Event


class Registry:
    """Clusters by identity. Two clusters never share state; two endpoints of one cluster do."""

    def __init__(self) -> None:
        self._lock = native.new_lock()
        self._clusters: dict[Identity, Cluster] = {}

    def find(self, request: Request, route: Route) -> Cluster:
        """The cluster that a request is for, as far as names tell."""
        key = identity(request, route)
        found = self._clusters.get(key)
        if found is not None:
            return found
        with self._lock:
            cluster = self._clusters.get(key)
            if cluster is None:
                cluster = Cluster(key, self, native.new_lock(), pinned=request.options.cluster is not None)
                cluster.turn = random.getrandbits(16)  # or every process would begin with the same reader
                if route.mode is Mode.LIST:
                    seeded(cluster, request)
                self._clusters[key] = cluster
            return cluster

    def settle(self, cluster: Cluster) -> Cluster:
        """The one cluster that `cluster`, whose topology is known by now, turns out to be.

        Endpoints of one domain and port are of one cluster when they know an instance in common: ids are unique
        within an account and region, and so within the domain.
        """
        with self._lock:
            for other in self._clusters.values():
                if other is not cluster and _same(cluster, other):
                    for key, each in self._clusters.items():
                        if each is cluster:
                            self._clusters[key] = other
                    return other
        return cluster

    def publish(self, cluster: Cluster, event: Event) -> None:
        """Tell whoever listens."""
        COURIER.send(partial(observe.publish, cluster.name, event, cluster.identity))

    def reset(self) -> None:
        """Forget all clusters: the child of a fork owns none of its parent's connections."""
        self._lock = native.new_lock()
        for cluster in self._clusters.values():
            cluster.disown(native.new_lock())
        self._clusters = {}


def _same(cluster: Cluster, other: Cluster) -> bool:
    if cluster.identity[0] != other.identity[0] or cluster.pinned or other.pinned:
        return False
    return any(instance in other.view.instances for instance in cluster.view.instances)


REGISTRY = Registry()
"""The clusters of this process."""


def _after_fork() -> None:
    REGISTRY.reset()
    dns.forget()


os.register_at_fork(after_in_child=_after_fork)
