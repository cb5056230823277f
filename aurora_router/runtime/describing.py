"""Asks sources of attributes about clusters, in threads of their own; the monitor's thread decides when.

Invariants: one question per cluster is under way at a time, in no thread that an event loop, a connect or the monitor
runs in; a source that fails changes nothing but what is too old, and is advised of once per cluster.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from aurora_router import native
from aurora_router.attributes import Description, DescriptionFailed, Question
from aurora_router.model.endpoint import EndpointKind
from aurora_router.observe import logger
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.describe_schedule import QUIET_FAILURES, DescribeSchedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.attributes import AttributeSource
    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.probe import Access
    from aurora_router.runtime.passfile import Parameters

_THREAD = "aurora-router-attributes"
_NAMING = {EndpointKind.CLUSTER: 0, EndpointKind.CLUSTER_READER: 0, EndpointKind.CLUSTER_CUSTOM: 1}
"""Kinds of names by which a cluster is found; the lowest first, others last."""


class Describer:
    """What is known of asking about one cluster; `tick` is called by the monitor's thread alone.

    It holds no cluster: that would keep it from being forgotten.
    """

    def __init__(self) -> None:
        self._schedule = DescribeSchedule()
        self._source: AttributeSource | None = None
        self._id: str | None = None
        self._wanted: tuple[bool, bool] = (False, False)
        self._is_asking = False

    def tick(self, cluster: Cluster, accesses: Sequence[Access]) -> None:
        """Ask if it is time to.

        Args:
            cluster: the one to be described.
            accesses: how users connected to it lately, the last one last.
        """
        sources = [found for each in accesses if (found := cast("Parameters", each.params).attributes) is not None]
        if not sources or self._is_asking:
            return
        view, now, source = cluster.view, time.monotonic(), sources[-1]
        endpoints = [each.route.endpoint for each in accesses]
        if source != self._source:
            self._source, self._id, self._schedule = source, None, self._schedule.change_source(now)
        customs = self._wanted[0] or any(each.kind is EndpointKind.CLUSTER_CUSTOM for each in endpoints)
        own_zone = self._wanted[1] or any(each.request.options.prefers_own_zone for each in accesses)
        if self._wanted != (customs, own_zone):
            self._wanted, self._schedule = (customs, own_zone), self._schedule.want()
        self._schedule = self._schedule.see((frozenset(view.instances), view.writer), now, random.random())  # noqa: S311 - no secret
        if not self._schedule.is_due(now):
            return
        naming = min(endpoints, key=lambda each: _NAMING.get(each.kind, len(_NAMING)))
        question = Question(naming, tuple(view.instances), customs, own_zone, self._id)
        self._is_asking = True
        try:
            native.start_thread(lambda: self._ask(cluster, source, question), _THREAD)
        except RuntimeError as error:  # the pids limit of a container, or the interpreter shuts down
            self._fail(cluster, DescriptionFailed(f"no thread could be started to describe the cluster ({error})"))
            self._is_asking = False

    def _ask(self, cluster: Cluster, source: AttributeSource, question: Question) -> None:
        try:
            found = source(question)
            if not isinstance(found, Description):
                raise DescriptionFailed(  # noqa: TRY301 - the same as if it had said so itself
                    f"the source of attributes returned a {type(found).__name__}, and has to return a Description",
                    lasting=True,
                )
        except DescriptionFailed as failed:
            self._fail(cluster, failed)
        except Exception as error:  # noqa: BLE001 - whatever a source raises ends neither the thread nor the process
            logger.warning("the source of attributes failed", exc_info=error)
            self._fail(cluster, DescriptionFailed(f"the source of attributes raised {type(error).__name__}: {error}"))
        else:
            self._id = found.cluster
            self._schedule = self._schedule.succeed(time.monotonic(), random.random())  # noqa: S311 - no secret
            cluster.observe(found, time.monotonic())
            if found.advice is not None:
                cluster.update(ClusterState.advise, "description", found.advice, time.monotonic())
        finally:
            self._is_asking = False

    def _fail(self, cluster: Cluster, failed: DescriptionFailed) -> None:
        """Ask later; drop what is too old to count, and advise if it is worth it."""
        now, view = time.monotonic(), cluster.view
        self._schedule = self._schedule.fail(now, random.random(), lasting=failed.lasting)  # noqa: S311 - no secret
        self._id = None
        cluster.observe(
            Description(
                instances=view.attributes,
                endpoints={} if view.endpoints and not view.has_recent_endpoints(now) else None,
                own_zone=failed.own_zone or view.own_zone,
            ),
            now,
        )
        logger.debug("describing %s failed: %s", cluster.name, failed)
        if failed.lasting or self._schedule.failures >= QUIET_FAILURES:
            cluster.update(
                ClusterState.advise,
                "attributes",
                f"{failed}; until that changes, connections are routed by SQL and DNS alone",
                now,
            )


_describers: WeakKeyDictionary[Cluster, Describer] = WeakKeyDictionary()


def describer_of(cluster: Cluster) -> Describer:
    """The one describer of a cluster, also when its monitor has ended and another one begins."""
    found = _describers.get(cluster)
    if found is None:
        found = _describers[cluster] = Describer()
    return found
