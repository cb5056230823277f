"""``python -m benchmarks.pools [--size N] [--leavings N] [--bounded] [--json FILE]``: pools while readers come and go.

Pools of all kinds are under load at the same time, each as if in a process of its own, and beside them the stock driver
with the hosts in its conninfo. A fifth reader joins: how long until each reader has its share? Then readers join and
leave while statements of up to two seconds run; a reader that leaves is drained as on Aurora, in shorter time.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from aurora_router_cluster import LocalCluster
from benchmarks.figures import Figure, report
from benchmarks.pool_load import KINDS, EngineLoad, PoolLoad, make_load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

READERS = 4
SECONDS = 30.0
"""How long it may take until each reader has its share."""
PATIENCE = 120.0
DRAIN = 90.0
"""How long the sessions of a reader that leaves may go on; on Aurora 180 s."""
LONG = "select pg_sleep(random() * 2)"
STOCK = "stock SQLAlchemy, hosts in the conninfo"
REFRESH = 10
"""``aurora_refresh``, in seconds."""
SCALED_SIZE = 12
"""Connections of each pool under auto-scaling; as many are held beside them to make it add a reader."""
SCALED_REFRESH = 1
"""``aurora_refresh`` there, in seconds, so that many readers can come and go."""


def main() -> int:
    """Measure; 0: every figure keeps its bound, 1: one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=40, help="connections of each pool")
    parser.add_argument("--leavings", type=int, default=50, help="how often a reader leaves")
    parser.add_argument("--bounded", action="store_true", help="one reader leaves by auto-scaling, and no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = parser.parse_args()
    logging.getLogger("aurora_router").addHandler(logging.NullHandler())
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    figures: list[Figure] = []
    if not args.bounded:
        with LocalCluster.start(readers=READERS, auto=False) as cluster:
            figures += [*measure_joining(cluster, args.size), *measure_leaving(cluster, args.size, args.leavings)]
    figures += measure_scaling(1 if args.bounded else args.leavings)
    return report(figures, args.json)


def measure_joining(cluster: LocalCluster, size: int) -> Iterator[Figure]:
    """A reader joins pools under load."""
    with ExitStack() as stack:
        loads = _enter_loads(stack, cluster, size)
        stock = stack.enter_context(EngineLoad(_stock_url(cluster), size))
        readers = cluster.readers
        wait_until(lambda: all(is_spread(each, readers) for each in loads.values()), loads)
        joined = cluster.add_reader().name
        began, took, most = time.monotonic(), dict[str, float](), dict.fromkeys(loads, 0)

        def all_have_their_share() -> bool:
            for kind, load in loads.items():
                most[kind] = max(most[kind], load.counts().total())
                if kind not in took and is_spread(load, [*readers, joined]):
                    took[kind] = time.monotonic() - began
            return len(took) == len(loads) and time.monotonic() - began >= SECONDS

        wait_until(all_have_their_share, loads)
        for kind, load in loads.items():
            name = f"a reader joins, {kind}, pool of {size}"
            yield Figure.at_most(f"{name}: seconds until each has its share", took[kind], "s", SECONDS)
            yield Figure.at_most(f"{name}: errors", len(load.errors), "", 0)
            yield Figure.at_most(f"{name}: connections at most", most[kind], "", size)
            yield Figure.unbounded(f"{name}: connections made for it", load.made - size, "")
        share = stock.counts()[joined] / size
        yield Figure.unbounded(f"a reader joins, {STOCK}: its share after {SECONDS:g} s", share, "")
        cluster.remove(joined, drain=DRAIN)


def measure_leaving(cluster: LocalCluster, size: int, times: int) -> Iterator[Figure]:
    """Readers leave pools whose statements take up to two seconds."""
    longest, count = 0.0, 0
    with ExitStack() as stack:
        loads = _enter_loads(stack, cluster, size, statement=LONG, workers=size // 2)
        for _ in range(times):
            joined = cluster.add_reader().name
            wait_until(lambda: all(each.counts()[joined] for each in loads.values()), loads)  # noqa: B023 - called here
            count += sum(each.counts()[joined] for each in loads.values())
            began = time.monotonic()
            cluster.remove(joined, drain=DRAIN)
            longest = max(longest, time.monotonic() - began)
        wait_until(lambda: all(is_spread(each, cluster.readers) for each in loads.values()), loads)
        name = f"{times} readers leave"
        for kind, load in loads.items():
            note = f"of {sum(load.served.values())} statements of up to 2 s"
            yield Figure.at_most(f"{name}, {kind}: errors", len(load.errors), "", 0, note)
        yield Figure.at_most(f"{name}: longest until it was left, seconds", longest, "s", DRAIN, f"{count} connections")


def measure_scaling(times: int) -> Iterator[Figure]:
    """Auto-scaling adds a reader while more connections are there, and removes it when they are gone."""
    pooled = SCALED_SIZE * len(KINDS)
    target = 2 * pooled / 2.5  # with as many connections beside the pools', three readers are wanted, else two
    options = {"auto_scale": "2..3", "target_connections": target, "scale_drain": DRAIN}
    fast = {"scale_period": 0.1, "scale_out_cooldown": 0.2, "scale_in_cooldown": 0.2}
    longest, count = 0.0, 0
    with LocalCluster.start(readers=2, auto=False, **options, **fast) as cluster, ExitStack() as stack:
        own = cluster.readers
        loads = _enter_loads(stack, cluster, SCALED_SIZE, LONG, SCALED_SIZE // 2, refresh=SCALED_REFRESH)
        for _ in range(times):
            with ExitStack() as beside:
                for number in range(pooled):
                    conninfo = cluster.plain_conninfo(f"instance:{own[number % 2]}")
                    beside.enter_context(psycopg.connect(conninfo, autocommit=True))
                wait_until(lambda: bool(_find_scaled(cluster)), loads)
                (joined,) = _find_scaled(cluster)
                wait_until(lambda: all(each.counts()[joined] for each in loads.values()), loads)  # noqa: B023 - called here
                count += sum(each.counts()[joined] for each in loads.values())
            wait_until(lambda: joined not in cluster.readers or _is_leaving(cluster, joined), loads)  # noqa: B023 - see above
            began = time.monotonic()
            wait_until(lambda: not _find_scaled(cluster), loads)
            longest = max(longest, time.monotonic() - began)
        name = f"auto-scaling removes a reader {times} times"
        for kind, load in loads.items():
            note = f"of {sum(load.served.values())} statements of up to 2 s"
            yield Figure.at_most(f"{name}, {kind}: errors", len(load.errors), "", 0, note)
        yield Figure.at_most(f"{name}: longest until it was left, seconds", longest, "s", DRAIN, f"{count} connections")


def _find_scaled(cluster: LocalCluster) -> list[str]:
    return [each.name for each in cluster.instances if each.autoscaled]


def _is_leaving(cluster: LocalCluster, name: str) -> bool:
    return any(each.name == name and each.state == "deleting" for each in cluster.instances)


def _enter_loads(
    stack: ExitStack,
    cluster: LocalCluster,
    size: int,
    statement: str = "select pg_sleep(0.02)",
    workers: int = 4,
    refresh: int = REFRESH,
) -> dict[str, PoolLoad]:
    options = {"aurora_refresh": refresh}
    made = {kind: make_load(kind, cluster, size, options, statement=statement, workers=workers) for kind in KINDS}
    return {kind: stack.enter_context(load) for kind, load in made.items()}


def _stock_url(cluster: LocalCluster) -> str:
    """The readers of this moment, as libpq's hosts, in random order."""
    readers = [each for each in cluster.instances if each.role == "reader"]
    hosts = ",".join(each.endpoint for each in readers)
    query = f"host={hosts}&hostaddr={','.join(each.host for each in readers)}&load_balance_hosts=random"
    ports = ",".join(str(each.port) for each in readers)
    return f"postgresql+psycopg://{cluster.user}:{cluster.password}@/{cluster.dbname}?{query}&port={ports}"


def is_spread(load: PoolLoad, readers: Sequence[str]) -> bool:
    """Whether a pool is full, and no reader has two more of its connections than another."""
    counts = load.counts()
    whole = counts.total() == load.size and counts.keys() == set(readers)
    return whole and max(counts.values()) - min(counts.values()) <= 1


def wait_until(condition: Callable[[], bool], loads: dict[str, PoolLoad], patience: float = PATIENCE) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not become true; the message has the counts and the first errors.
    """
    until = time.monotonic() + patience
    while not condition():
        if time.monotonic() > until:
            seen = {kind: (dict(each.counts()), each.errors[:1]) for kind, each in loads.items()}
            raise TimeoutError(f"not so within {patience:g} s: {seen}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
