"""A client that works while something is odd, and reports what its monitor made of it; see `benchmarks.alarms`.

``python -m benchmarks.alarms_child KIND CONNINFO SECONDS``
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import sys
import threading
import time
from collections import Counter
from typing import Any

import psycopg

import aurora_router

BUSY = "SELECT count(*) FROM generate_series(1, 20000000)"
EVENTS = (
    aurora_router.HangSuspected,
    aurora_router.HangRefuted,
    aurora_router.ConnectionsCut,
    aurora_router.InstanceFailed,
    aurora_router.ProcessStalled,
    aurora_router.WriterSuspected,
)


def statement(kind: str, turn: int) -> str:
    """What the client waits for."""
    if kind == "long":
        return "SELECT pg_sleep(30)" if turn % 2 else BUSY
    return "SELECT 1" if turn % 4 else "SELECT pg_sleep(2.5)"


def hold_the_gil(until: float, seconds: float = 0.8) -> None:
    """A regular expression that takes at least `seconds`, and lets no other thread run."""
    length = 18
    while time.monotonic() < until:
        began = time.monotonic()
        re.match(r"(a+)+$", "a" * length + "b")
        length += time.monotonic() - began < seconds
        time.sleep(0.5)


def litter(until: float) -> None:
    """Cycles by the million, collected in one pause."""
    gc.disable()
    while time.monotonic() < until:
        cycles: list[Any] = []
        for _ in range(1_000_000):
            cycle: list[Any] = []
            cycle.append(cycle)
            cycles.append(cycle)
        cycles.clear()
        gc.collect()
        time.sleep(0.5)


def main(kind: str, conninfo: str, seconds: float) -> None:
    """Work for so long; print what happened."""
    reported: Counter[str] = Counter()
    errors: list[str] = []

    def heard(_: str, event: Any) -> None:
        if isinstance(event, aurora_router.InstanceFailed) and not event.gone:
            return  # a dial failed, and no more is concluded from that
        if isinstance(event, EVENTS):
            reported[type(event).__name__] += 1

    aurora_router.subscribe(heard)
    until = time.monotonic() + seconds
    work = {"postmaster": serve_many, "pooler": serve_many, "reset": reconnect, "loop": block_the_loop}.get(kind, one)
    work(kind, conninfo, until, reported, errors)
    print(json.dumps({**reported, "errors": errors}), flush=True)


def one(kind: str, conninfo: str, until: float, reported: Counter[str], errors: list[str]) -> None:
    """One connection that works, with trouble beside it."""
    connection = aurora_router.connect(conninfo, autocommit=True)
    trouble = {"gil": hold_the_gil, "gil3": lambda until: hold_the_gil(until, 3.0), "gc": litter}.get(kind)
    if trouble is not None:
        threading.Thread(target=trouble, args=[until], daemon=True).start()
    print("ready", flush=True)
    turn = 0
    while time.monotonic() < until:
        turn += 1
        try:
            connection.execute(statement(kind, turn))
            reported["statements"] += 1
        except psycopg.Error as error:
            errors.append(str(error))
            connection.close()
            connection = aurora_router.connect(conninfo, autocommit=True)
        time.sleep(0.005)
    connection.close()


def serve_many(kind: str, conninfo: str, until: float, reported: Counter[str], errors: list[str]) -> None:
    """Several connections at once, each with statements of another length: all slots of a pooler, with kind pooler."""
    lengths = (4.0, 4.0) if kind == "pooler" else (0.01, 0.3, 1.5)
    connections = [aurora_router.connect(conninfo, autocommit=True, prepare_threshold=None) for _ in lengths]
    print("ready", flush=True)

    def work(connection: Any, length: float) -> None:
        try:
            while time.monotonic() < until:
                connection.execute(f"SELECT pg_sleep({length})")
                reported["statements"] += 1
        except psycopg.Error as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(connections, lengths, strict=True)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for connection in connections:
        connection.close()


def reconnect(kind: str, conninfo: str, until: float, reported: Counter[str], errors: list[str]) -> None:
    """Connections that stay, and others that are made again and again, whose handshakes may be reset."""
    del kind
    pool = [aurora_router.connect(conninfo, autocommit=True) for _ in range(5)]
    print("ready", flush=True)
    while time.monotonic() < until:
        try:
            aurora_router.connect(conninfo).close()
            for each in pool:
                each.execute("SELECT 1")
            reported["statements"] += len(pool)
        except psycopg.Error as error:
            errors.append(str(error))
        errors += ["a connection is stale" for each in pool if each.placement is None or not each.placement.current]
        time.sleep(0.3)
    for each in pool:
        each.close()


def block_the_loop(kind: str, conninfo: str, until: float, reported: Counter[str], errors: list[str]) -> None:
    """Statements of one event loop that stands still for seconds while they are under way."""
    del kind

    async def work() -> None:
        connection = await aurora_router.AsyncConnection.connect(conninfo, autocommit=True)
        try:
            while time.monotonic() < until:
                await connection.execute("SELECT pg_sleep(0.2)")
                reported["statements"] += 1
        except psycopg.Error as error:
            errors.append(str(error))
        await connection.close()

    async def block() -> None:
        print("ready", flush=True)
        while time.monotonic() < until:
            await asyncio.sleep(0.5)
            time.sleep(random.uniform(1.0, 4.0))  # noqa: ASYNC251 - that is what is tried

    async def both() -> None:
        await asyncio.gather(work(), work(), block())

    asyncio.run(both())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
