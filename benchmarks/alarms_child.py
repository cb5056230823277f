"""A client that works while something is odd, and tells what its watch made of it; see `benchmarks.alarms`.

``python -m benchmarks.alarms_child KIND CONNINFO SECONDS``
"""

from __future__ import annotations

import gc
import json
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
    aurora_router.Starved,
    aurora_router.Doubted,
)


def statement(kind: str, turn: int) -> str:
    """What the client waits for."""
    if kind == "long":
        return "SELECT pg_sleep(30)" if turn % 2 else BUSY
    return "SELECT 1" if turn % 4 else "SELECT pg_sleep(2.5)"


def hold_the_gil(until: float) -> None:
    """A regular expression that takes about a second and lets nobody else run."""
    length = 18
    while time.monotonic() < until:
        began = time.monotonic()
        re.match(r"(a+)+$", "a" * length + "b")
        length += time.monotonic() - began < 0.8
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
    told: Counter[str] = Counter()
    errors: list[str] = []

    def heard(_: str, event: Any) -> None:
        if isinstance(event, EVENTS):
            told[type(event).__name__] += 1

    aurora_router.subscribe(heard)
    until = time.monotonic() + seconds
    connection = aurora_router.connect(conninfo, autocommit=True)
    trouble = {"gil": hold_the_gil, "gc": litter}.get(kind)
    if trouble is not None:
        threading.Thread(target=trouble, args=[until], daemon=True).start()
    print("ready", flush=True)
    turn = 0
    while time.monotonic() < until:
        turn += 1
        try:
            connection.execute(statement(kind, turn))
            told["statements"] += 1
        except psycopg.Error as error:
            errors.append(str(error))
            connection.close()
            connection = aurora_router.connect(conninfo, autocommit=True)
        time.sleep(0.005)
    connection.close()
    print(json.dumps({**told, "errors": errors}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
