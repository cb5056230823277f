"""The clusters of this process: found by identity, united where a topology shows that two names are of one."""

from __future__ import annotations

import os
import random
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from aurora_router import native, observe
from aurora_router.flow.cluster import Cluster
from aurora_router.model.claim import agree, is_disjoint, is_foreign
from aurora_router.model.observation import GivenHosts
from aurora_router.policy.route import PINNED, Mode, Request, Route, identity
from aurora_router.runtime import dns
from aurora_router.runtime.greenlet_dispatcher import DISPATCHER

if TYPE_CHECKING:
    from aurora_router.model.event import Event
    from aurora_router.model.observation import Topology
    from aurora_router.policy.route import Identity


INSPECT = "AURORA_ROUTER_INSPECT"
"""The variable that names the directory for inspection sockets; see `runtime.inspection`."""
CONNECTS = 32
"""How many of the last connects of a cluster are remembered, where processes are inspected."""
MAX_CLUSTERS = 256
"""How many names of clusters are known at most, beside those in use: a process may meet one cluster after the other."""


class Registry:
    """Clusters by identity. Two clusters never share state; two endpoints of one cluster do, where that is sound.

    Theory. What the user named says which cluster is meant: two labels, or two values of ``aurora_cluster``, are two
    clusters whatever their instances are called. Other names (an instance's, a custom endpoint, one of the user's own
    in front of a template) say less. Such a name is *attached* to a cluster of the same scope (within which ids are
    unique) once an answer through it and that cluster's view know each other's writer. It is detached as soon as an
    answer through it does not know that cluster.

    Invariant: a cluster has one certain name at most. Connections stay counted where they were opened; so of two
    clusters that turn out to be one, one without connections gives way, and where both have some, both stay. More than
    `MAX_CLUSTERS` names are known only as long as all of their clusters have connections, waiters or a monitor.
    """

    def __init__(self) -> None:
        self._lock = native.new_rlock()
        self._clusters: dict[Identity, Cluster] = {}

    def find(self, request: Request, route: Route) -> Cluster:
        """The cluster that a request is for, as far as names say."""
        key = identity(request, route)
        found = self._clusters.get(key)
        if found is None:
            with self._lock:
                found = self._clusters.get(key)
                if found is None:
                    found = self._clusters.setdefault(key, self._new(key))
                    self._make_room(found)
        if route.mode is Mode.LIST and not found.view.instances:  # without the lock: it may publish
            found.observe(GivenHosts(tuple((str(each), each.host, each.port) for each in request.given)), 0.0)
        return found

    def match_cluster(self, cluster: Cluster, key: Identity, topology: Topology) -> Cluster:
        """The cluster that an answer through a name is of.

        Args:
            cluster: what the name stood for when the connect began.
            key: the name.
            topology: the answer.
        """
        with self._lock:
            current = self._clusters.get(key, cluster)
            if is_disjoint(current.view, topology) if current.identity == key else is_foreign(current.view, topology):
                self._clusters[key] = new = self._new(key)
                self._make_room(new)
                return new
            if current.identity != key:
                return current
            known = {id(each): each for each in list(self._clusters.values()) if each is not current}
            for other in known.values():
                if _may_be_one(key, other.identity) and agree(other.view, topology):
                    return self._unite(current, other)
            return current

    def _new(self, key: Identity) -> Cluster:
        """A cluster of which nothing is known."""
        cluster = Cluster(key, self, native.new_rlock())
        cluster.turn = random.getrandbits(16)  # or every process would begin with the same reader
        if os.environ.get(INSPECT):
            cluster.connects = deque(maxlen=CONNECTS)
        return cluster

    def _make_room(self, new: Cluster) -> None:
        """Forget clusters that nothing needs, the one that was used least recently first; then attached names.

        What is forgotten is learned by the next connect. The caller holds the lock.
        """
        if len(self._clusters) <= MAX_CLUSTERS:
            return
        those = list(self._clusters.values())
        known = {id(each): each for each in those if each is not new and each.monitor is None}
        for unused in sorted(known.values(), key=lambda each: each.used_at):
            if len(self._clusters) <= MAX_CLUSTERS:
                return
            if not unused.needed:
                for key in [key for key, each in list(self._clusters.items()) if each is unused]:
                    self._clusters.pop(key, None)
        for key in [key for key, each in list(self._clusters.items()) if key != each.identity]:
            if len(self._clusters) > MAX_CLUSTERS:
                self._clusters.pop(key, None)

    def _unite(self, cluster: Cluster, other: Cluster) -> Cluster:
        """Let the one of two that has no connections give way; the caller holds the lock."""
        if not any(cluster.tracked_connections().values()):
            gone, stays = cluster, other
        elif not any(other.tracked_connections().values()):
            gone, stays = other, cluster
        else:
            return cluster
        if gone.identity.is_certain:
            stays.identity = gone.identity
        for key, each in list(self._clusters.items()):
            if each is gone:
                self._clusters[key] = stays
        return stays

    def clusters(self) -> list[Cluster]:
        """Return the clusters that are known, each of them once."""
        with self._lock:
            return list({id(each): each for each in self._clusters.values()}.values())

    def publish(self, cluster: Cluster, event: Event) -> None:
        """Pass an event to the subscribers."""
        DISPATCHER.send(partial(observe.publish, cluster.name, event, cluster.identity))

    def reset(self) -> None:
        """Forget all clusters: the child of a fork owns none of its parent's connections."""
        self._lock = native.new_rlock()
        for cluster in self._clusters.values():
            cluster.reset_after_fork(native.new_rlock())
        self._clusters = {}


def _may_be_one(key: Identity, other: Identity) -> bool:
    """Whether two names can be of one cluster: the scope is the same, and one at most is the cluster's own."""
    return (
        key.scope == other.scope and PINNED not in {key.sort, other.sort} and not (key.is_certain and other.is_certain)
    )


REGISTRY = Registry()
"""The clusters of this process."""


def _after_fork() -> None:
    REGISTRY.reset()
    dns.forget()


os.register_at_fork(after_in_child=_after_fork)
