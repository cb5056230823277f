"""Keeps count of the connections that pools hold, for `policy.rebalancing`, which decides.

A pool asks about each connection at each use, so the answer is mostly a look at the clock: see `Pace.is_idle`.
Connections of one process that were made by the same rules are one group, whatever pools they are in: what is fair
depends on all of them, and so does the rate.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from aurora_router import native
from aurora_router.model.bounds import forget_oldest
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.balance import Selection
from aurora_router.policy.rebalancing import Pace, find_drained, find_surplus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router.flow.cluster import Cluster
    from aurora_router.policy.context import Context

_rules = attrgetter("balance", "weights", "max_lag", "zones", "zone_map", "reader_fallback")
"""The options by which an instance is chosen."""


class Rebalancer:
    """The connections of this process to one cluster that were made by the same rules.

    Args:
        context: what one of them was chosen from; None: they are not to be balanced.
        endpoint: the custom endpoint by whose name they were made, if its members can be known.

    Attributes:
        ask_at: when `claim` is worth a call again, by the monotonic clock; `aurora_router.is_surplus` sets it.
    """

    def __init__(self, context: Context | None, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._context = None if context is None else context._replace(loads={}, rng=random)
        self._pace = Pace() if context is not None else Pace(look_at=math.inf)
        self.ask_at = -math.inf
        self._leaving: WeakSet[Any] = WeakSet()
        self._lock = native.new_lock()

    def claim(self, connection: Any, cluster: Cluster) -> bool:
        """Whether a connection is to be recycled now. True counts as done: the caller has to do it."""
        instance, now = connection.placement.instance, time.monotonic()
        if self._pace.is_idle(instance, now) or not self._lock.acquire(False):  # noqa: FBT003 - it has no keywords
            return False
        try:  # one thread at a time: two would recycle twice as many
            if now >= self._pace.look_at:
                self._look(cluster, now)
            if not self._pace.may_recycle(instance, now):
                return False
            self._leaving.add(connection)
            if instance in self._pace.drained:
                return True
            self._pace = self._pace.record_recycling(self._count(cluster).total(), now, random.random())  # noqa: S311 - jitter
            return True
        finally:
            self._lock.release()

    @property
    def is_draining(self) -> bool:
        """Whether an instance is drained whose connections are all to be recycled."""
        return bool(self._pace.drained)

    def claim_drained(self, idle: Iterable[Any]) -> list[Any]:
        """Return those of idle connections that are of the group, and whose instance is drained; done as in `claim`."""
        drained = self._pace.drained
        same = [each for each in idle if hasattr(each, "rebalancer") and find_rebalancer(each) is self]
        found = [each for each in same if each.placement.instance in drained]
        with self._lock:
            self._leaving.update(found)
        return found

    def _look(self, cluster: Cluster, now: float) -> None:
        view, quarantine = cluster.view, cluster.state.health.quarantine
        loads = cluster.loads(view.instances)
        assert self._context is not None
        endpoint = None if self._endpoint is None else view.find_endpoint(self._endpoint, now)
        context = self._context._replace(view=view, loads=loads, quarantine=quarantine, now=now, endpoint=endpoint)
        leaving = Counter(each.placement.instance for each in self._leaving if not each.closed)
        own = self._count(cluster) - leaving
        is_suspected = cluster.suspected_at is not None
        drained = find_drained(context, own, is_suspected=is_suspected)
        surplus = find_surplus(context, own, leaving, is_suspected=is_suspected) - drained
        self._pace = self._pace.record_look(surplus, now, random.random(), drained)  # noqa: S311 - jitter

    def _count(self, cluster: Cluster) -> Counter[str]:
        """The group's open connections, by instance."""
        held = cluster.tracked_connections()
        return Counter({id_: sum(find_rebalancer(each) is self for each in those) for id_, those in held.items()})


_UNBALANCED = Rebalancer(None)
"""Of all connections that are not to be balanced."""
_groups: WeakKeyDictionary[Cluster, dict[Any, Rebalancer]] = WeakKeyDictionary()


def find_rebalancer(connection: Any) -> Rebalancer:
    """Return the rebalancer of a connection's group; it is looked up once."""
    found: Rebalancer | None = connection.rebalancer
    if found is None:
        found = connection.rebalancer = _find_group(connection)
    return found


def _find_group(connection: Any) -> Rebalancer:
    """The group that a connection is in; `_UNBALANCED` if it was not chosen among several instances."""
    placement = connection.placement
    if placement is None or placement.pooled or not isinstance(placement._why, Selection):  # noqa: SLF001 - the package's own
        return _UNBALANCED
    context = placement._why.context  # noqa: SLF001 - see above
    if not context.options.rebalance or context.role is WantedRole.WRITER:  # there is one writer
        return _UNBALANCED
    groups = _groups.setdefault(placement._cluster, {})  # noqa: SLF001 - see above
    key = context.role, connection.endpoint, _rules(context.options)
    found = groups.setdefault(key, Rebalancer(context, connection.endpoint))
    forget_oldest(groups)
    return found
