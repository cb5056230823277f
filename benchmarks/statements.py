"""Statements on a connection of ours and on the driver's own, by the four loops that distinguish a proxy from the real
thing.

Each batch opens new connections, so that what is peculiar to one server process counts once.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from benchmarks import paired
from benchmarks.loops import LOOPS
from benchmarks.setting import CONTROL, OURS, STOCK, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.figures import Figure
    from benchmarks.paired import Loop

ROUNDS = 100
BLOCK = 0.001  # seconds
BOUND = 1.03


def measure(setting: Setting) -> Iterator[Figure]:
    """Every loop, sync and async."""
    for name, (loop, awaited) in LOOPS.items():
        yield from setting.compare(name, BOUND, partial(_batch, setting, loop))
        yield from setting.compare(f"{name}, async", BOUND, partial(_async_batch, setting, awaited))


def _batch(setting: Setting, loop: Any) -> paired.Samples:
    stock = setting.stock_parameters("writer")
    with (
        aurora_router.connect(setting.cluster.conninfo(), autocommit=True) as mine,
        psycopg.connect(stock, autocommit=True) as its,
        psycopg.connect(stock, autocommit=True) as again,
    ):
        connections = {OURS: mine, STOCK: its, CONTROL: again}
        return _alternate(setting, connections, {name: partial(loop, each) for name, each in connections.items()})


def _async_batch(setting: Setting, loop: Any) -> paired.Samples:
    stock = setting.stock_parameters("writer")
    events = asyncio.new_event_loop()
    wait = events.run_until_complete
    connections: dict[str, psycopg.AsyncConnection[Any]] = {
        OURS: wait(aurora_router.AsyncConnection.connect(setting.cluster.conninfo(), autocommit=True)),
        STOCK: wait(psycopg.AsyncConnection.connect(stock, autocommit=True)),
        CONTROL: wait(psycopg.AsyncConnection.connect(stock, autocommit=True)),
    }

    def awaited(connection: psycopg.AsyncConnection[Any], count: int) -> float:
        took: float = wait(loop(connection, count))
        return took

    try:
        return _alternate(setting, connections, {name: partial(awaited, each) for name, each in connections.items()})
    finally:
        for each in connections.values():
            wait(each.close())
        events.close()


def _alternate(setting: Setting, connections: Mapping[str, Any], loops: Mapping[str, Loop]) -> paired.Samples:
    with paired.apart(each.info.backend_pid for each in connections.values()):
        count = paired.count_for(loops[STOCK], BLOCK)
        blocks = {name: partial(loop, count) for name, loop in loops.items()}
        paired.alternate(blocks, 10, setting.rng)  # statements are prepared after a few executions
        return paired.alternate(blocks, ROUNDS, setting.rng)
