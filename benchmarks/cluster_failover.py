"""A failover inside the reference cluster: from the death of the writer to the first write that its successor acks.

The heartbeat is off and the failover is asked for at the moment of death, so that only the cluster's own work counts:
fence, find the end of the log, let the chosen reader replay to it, promote, attach. A probe with a connection to each
reader writes tightly. How long the heartbeat takes to notice is measured apart, from a cluster in which it is on.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from aurora_router_cluster import LocalCluster
from benchmarks.contenders import PATIENCE, Field
from benchmarks.failover import make_ledger, p99, settled
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.setting import Setting

ROUNDS, NOTICED = 50, 20
MEDIAN_MS, P99_MS = 40.0, 250.0


def measure(setting: Setting) -> Iterator[Figure]:
    """The figures."""
    with LocalCluster.start(**{"readers": 2, **setting.options, "auto": False}) as cluster:
        make_ledger(cluster)
        took, phases = [], []
        for _ in range(setting.rounds(ROUNDS)):
            seconds, parts = _asked_for(cluster)
            took.append(seconds * 1e3)
            phases.append(parts)
    took.sort()
    note = f"of {len(took)}, {took[0]:.0f}..{took[-1]:.0f} ms"
    yield Figure.at_most("cluster failover, death to first ack, median", statistics.median(took), "ms", MEDIAN_MS, note)
    yield Figure.at_most("cluster failover, death to first ack, p99", p99(took), "ms", P99_MS)
    for phase in phases[0]:
        found = statistics.median(each.get(phase, 0.0) for each in phases)
        yield Figure.unbounded(f"cluster failover, of it: {phase}, median", found * 1e3, "ms")
    noticed = sorted(_noticed(setting.cluster) for _ in range(setting.rounds(NOTICED)))
    text = "cluster failover, death to first ack with the heartbeat that notices it (every 0.2 s), median"
    yield Figure.unbounded(
        text, statistics.median(noticed) * 1e3, "ms", f"of {len(noticed)}, at most {noticed[-1] * 1e3:.0f}"
    )


def _asked_for(cluster: LocalCluster) -> tuple[float, dict[str, float]]:
    """One failover that no client has to notice; seconds to the first ack, and what they were spent on."""
    phases: dict[str, float] = {}
    return _without_writer(cluster, lambda: phases.update(cluster.failover().phases)), phases


def _noticed(cluster: LocalCluster) -> float:
    make_ledger(cluster)
    return _without_writer(cluster, lambda: None)


def _without_writer(cluster: LocalCluster, then: Callable[[], None]) -> float:
    """Kill the writer and do something; seconds from its death to the first ack of the next one."""
    settled(cluster)
    probe = _probe(cluster)
    try:
        old = cluster.writer
        assert old is not None
        cluster.kill(old)
        died = time.monotonic()
        then()
        reported = probe.line(PATIENCE)
    finally:
        probe.end()
    assert reported is not None, "no write was acknowledged"
    return float(reported["acked"]) - died


def _probe(cluster: LocalCluster):
    probe = Field(cluster, None).probe()
    probe.begin()
    if probe.line(PATIENCE) is None:
        probe.end()
        raise RuntimeError("the probe could not connect")
    time.sleep(0.1)
    return probe
