"""Warm connects: the view is known and the names are resolved, as for every connect of a process but its first.

The stock driver gets the address of the instance and resolves nothing; ours gets the endpoint's name and does all that
it does, its look-ups every few seconds (the records' time to live) included. Both log in with SCRAM, as with Aurora.
Only ``connect`` counts, ``close`` does not.

Of several readers ours chooses one by chance, since none has more connections than another. So does the stock driver
here: a server that was connected to a moment ago answers sooner, and one that is alone always was.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from benchmarks import paired
from benchmarks.setting import CONTROL, OURS, STOCK, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.figures import Figure
    from benchmarks.paired import Block

ROUNDS = 20
BOUND = 1.05


def measure(setting: Setting) -> Iterator[Figure]:
    """Connects to the writer by the cluster endpoint, and to readers by the reader endpoint; sync and async."""
    cluster = setting.cluster
    for target, instances in (("writer", [str(cluster.writer)]), ("reader", cluster.readers)):
        draw = partial(setting.rng.choice, [setting.stock_parameters(f"instance:{name}") for name in instances])
        ours = cluster.conninfo(target)
        batch = partial(paired.alternate, _blocks(ours, draw), ROUNDS, setting.rng)
        yield from setting.compare(f"warm connect to the {target}", BOUND, batch)
        with contextlib.closing(asyncio.new_event_loop()) as events:
            batch = partial(paired.alternate, _async_blocks(events, ours, draw), ROUNDS, setting.rng)
            yield from setting.compare(f"warm connect to the {target}, async", BOUND, batch)


def _blocks(ours: str, draw: Callable[[], str]) -> dict[str, Block]:
    def block(connect: Callable[[str], Any], next_conninfo: Callable[[], str]) -> Block:
        def run() -> float:
            conninfo = next_conninfo()
            start = perf_counter()
            connection = connect(conninfo)
            took = perf_counter() - start
            connection.close()
            return took

        run()
        return run

    connect = psycopg.Connection.connect
    return {
        OURS: block(aurora_router.Connection.connect, lambda: ours),
        STOCK: block(connect, draw),
        CONTROL: block(connect, draw),
    }


def _async_blocks(events: asyncio.AbstractEventLoop, ours: str, draw: Callable[[], str]) -> dict[str, Block]:
    async def once(connect: Callable[[str], Any], conninfo: str) -> float:
        start = perf_counter()
        connection = await connect(conninfo)
        took = perf_counter() - start
        await connection.close()
        return took

    def block(connect: Callable[[str], Any], next_conninfo: Callable[[], str]) -> Block:
        events.run_until_complete(once(connect, next_conninfo()))
        return lambda: events.run_until_complete(once(connect, next_conninfo()))

    connect = psycopg.AsyncConnection.connect
    return {
        OURS: block(aurora_router.AsyncConnection.connect, lambda: ours),
        STOCK: block(connect, draw),
        CONTROL: block(connect, draw),
    }
