"""The incumbent's side of `incumbent`, run in its own environment: the same loops, against psycopg as it is.

Prints one JSON object, figure -> [ratio, note] or [null, what went wrong].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from aws_advanced_python_wrapper import (  # type: ignore[import-not-found]  # in the other environment alone
    AwsWrapperConnection,
    release_resources,
)
from aws_advanced_python_wrapper.aio.wrapper import (  # type: ignore[import-not-found]  # see above
    AsyncAwsWrapperConnection,
)

from benchmarks import paired
from benchmarks.loops import LOOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.paired import Loop, Samples

THEIRS, STOCK = "theirs", "stock"
PLUGINS = "initial_connection,aurora_connection_tracker,failover_v2,host_monitoring_v2"  # its defaults


class Comparison:
    """One run.

    Args:
        theirs: conninfo by the cluster's name.
        stock: conninfo for psycopg alone, with the address.
        seconds: for each ratio.
    """

    def __init__(self, theirs: str, stock: str, seconds: float) -> None:
        self.theirs = theirs
        self.stock = stock
        self.seconds = seconds
        self.rng = random.Random()

    def run(self) -> dict[str, list[Any]]:
        """All ratios; what cannot be done is reported instead."""
        reported: dict[str, list[Any]] = {}
        for name, batch in self._batches():
            try:
                samples = paired.converge(batch, (THEIRS, STOCK), width=0.03, seconds=self.seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                reported[name] = [None, f"{type(error).__name__}: {error}".splitlines()[0]]
            else:
                found = paired.ratio(samples, THEIRS, STOCK)
                reported[name] = [found.value, f"95 % {found.low:.3f}..{found.high:.3f}, {len(samples[STOCK])} rounds"]
        return reported

    def _batches(self) -> Iterator[tuple[str, Callable[[], Samples]]]:
        yield "warm connect to the writer", self._connects
        for name, (loop, awaited) in LOOPS.items():
            yield name, partial(self._statements, loop)
            yield f"{name}, async", partial(self._async_statements, awaited)
        yield "SQLAlchemy checkout + select 1 + checkin", self._checkouts

    def _connect(self, **more: Any) -> Any:
        return AwsWrapperConnection.connect(psycopg.Connection.connect, self.theirs, plugins=PLUGINS, **more)

    def _connects(self) -> Samples:
        def timed(connect: Callable[[], Any]) -> float:
            start = perf_counter()
            connection = connect()
            took = perf_counter() - start
            connection.close()
            return took

        stock = partial(psycopg.Connection.connect, self.stock)
        timed(self._connect)
        return paired.alternate({THEIRS: partial(timed, self._connect), STOCK: partial(timed, stock)}, 20, self.rng)

    def _statements(self, loop: Any) -> Samples:
        with (
            contextlib.closing(self._connect(autocommit=True)) as theirs,
            psycopg.connect(self.stock, autocommit=True) as its,
        ):
            return self._alternate({THEIRS: partial(loop, theirs), STOCK: partial(loop, its)})

    def _async_statements(self, loop: Any) -> Samples:
        events = asyncio.new_event_loop()
        wait = events.run_until_complete
        connect = psycopg.AsyncConnection.connect
        theirs = wait(AsyncAwsWrapperConnection.connect(connect, self.theirs, plugins=PLUGINS, autocommit=True))
        its = wait(connect(self.stock, autocommit=True))
        try:
            both = {THEIRS: theirs, STOCK: its}
            return self._alternate({name: partial(_awaited, wait, loop, each) for name, each in both.items()})
        finally:
            wait(theirs.close())
            wait(its.close())
            events.close()

    def _checkouts(self) -> Samples:
        engines = {
            THEIRS: sa.create_engine("postgresql+aws_wrapper_psycopg://", creator=self._connect),
            STOCK: sa.create_engine("postgresql+psycopg://", creator=partial(psycopg.connect, self.stock)),
        }
        try:
            return self._alternate({name: partial(_checkout, engine) for name, engine in engines.items()})
        finally:
            for engine in engines.values():
                engine.dispose()

    def _alternate(self, loops: dict[str, Loop]) -> Samples:
        count = paired.count_for(loops[STOCK], 0.001)
        blocks = {name: partial(loop, count) for name, loop in loops.items()}
        paired.alternate(blocks, 5, self.rng)
        return paired.alternate(blocks, 20, self.rng)


def _awaited(wait: Any, loop: Any, connection: Any, count: int) -> float:
    took: float = wait(loop(connection, count))
    return took


def _checkout(engine: sa.Engine, count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        with engine.connect() as connection:
            connection.execute(sa.text("select 1")).scalar_one()
    return perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(Comparison(sys.argv[1], sys.argv[2], float(sys.argv[3])).run()))
    release_resources()
