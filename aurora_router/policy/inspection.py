"""What a process shows of a cluster when it is inspected: plain values for JSON, made from the state alone.

Nothing in it is a secret: ids, roles, figures, times, and sentences that the log has, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router.frozen import frozen
from aurora_router.policy.sentences import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router.model.instance import Instance
    from aurora_router.policy.cluster_state import ClusterState
    from aurora_router.policy.context import Load

FORMAT = 1
"""Grows when a program that reads the older form would misread the newer one."""


@frozen
class ConnectRecord:
    """A connect that succeeded.

    Attributes:
        at: when, in Unix time.
        instance: where it led; None: behind a proxy.
        role: the instance's role then.
        pooled: whether a pooler is in between.
        why: why there, in one sentence.
    """

    at: float
    instance: str | None
    role: str
    pooled: bool
    why: str


def show_cluster(
    name: str,
    state: ClusterState,
    loads: Mapping[str, Load],
    connects: Iterable[ConnectRecord],
    *,
    now: float,
    unix_now: float,
) -> dict[str, Any]:
    """Return what is shown of one cluster.

    Args:
        name: of the cluster.
        state: all that is known of it.
        loads: the connections of this process, by instance.
        connects: the last connects, oldest first.
        now: the time by the runtime's clock, to which the times in the state belong.
        unix_now: the same moment in Unix time.
    """
    view, since = state.view, state.suspicion.since
    return {
        "name": name,
        "writer": view.writer,
        "epoch": view.epoch,
        "token": view.token,
        "suspected_seconds": None if since is None else round(now - since, 3),
        "refreshed_seconds": None if view.refreshed_at is None else round(now - view.refreshed_at, 3),
        "own_zone": view.own_zone,
        "instances": [_show_instance(each, state, loads, now) for each in view.instances.values()],
        "events": [
            {"at": round(unix_now - (now - at), 3), "event": type(event).__name__, "text": describe(event).sentence}
            for at, event in state.trail
        ],
        "connects": [
            {
                "at": round(each.at, 3),
                "instance": each.instance,
                "role": each.role,
                "pooled": each.pooled,
                "why": each.why,
            }
            for each in connects
        ],
    }


def _show_instance(instance: Instance, state: ClusterState, loads: Mapping[str, Load], now: float) -> dict[str, Any]:
    described, load = state.view.attributes_of(instance.id), loads.get(instance.id)
    latency = None if load is None else load.latency
    return {
        "id": instance.id,
        "role": instance.role.value,
        "zone": instance.zone or described.zone,
        "generation": instance.generation,
        "lag_seconds": instance.lag,
        "lag_age_seconds": None if instance.lag_at is None else round(now - instance.lag_at, 3),
        "cpu_percent": instance.cpu,
        "heard_seconds": None if instance.heard_at is None else round(now - instance.heard_at, 3),
        "avoided_seconds": round(state.health.quarantine.remaining(instance.id, now), 3),
        "connections": 0 if load is None else load.connections,
        "latency_seconds": None if latency is None else round(latency, 6),
    }
