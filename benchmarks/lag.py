"""Replica lag of the readers while 500 commits a second are made, as ``aurora_replica_status()`` reports it.

The rows are refreshed with each heartbeat (0.2 s), so each refresh of each reader counts once.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg

from benchmarks.failover import p99
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.setting import Setting

RATE, WRITERS, SECONDS = 500, 4, 20.0
MEDIAN_MS, P99_MS = 10.0, 50.0
STATUS = """SELECT server_id, last_update_timestamp, cur_replay_latency_in_usec, replica_lag_in_msec
FROM pg_catalog.aurora_replica_status() WHERE session_id <> 'MASTER_SESSION_ID'"""


def measure(setting: Setting) -> Iterator[Figure]:
    """The figures."""
    place = setting.cluster.plain_conninfo()
    seconds = SECONDS / (5 if setting.quick else 1)
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS lag_ledger (n int)")
        ended = threading.Event()
        counts = [0] * WRITERS
        threads = [threading.Thread(target=_write, args=(place, ended, counts, index)) for index in range(WRITERS)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        began, before = time.monotonic(), sum(counts)
        found = _sampled(connection, seconds)
        rate = (sum(counts) - before) / (time.monotonic() - began)
        ended.set()
        for thread in threads:
            thread.join()
    yield Figure.unbounded("replica lag, commits a second meanwhile", rate, "/s", f"{RATE} were asked for")
    note = f"of {len(found)} refreshes of the readers' rows"
    yield Figure.at_most("replica lag, p50", found[len(found) // 2] / 1e3, "ms", MEDIAN_MS, note)
    yield Figure.at_most("replica lag, p99", p99(found) / 1e3, "ms", P99_MS, note)


def _write(place: str, ended: threading.Event, counts: list[int], index: int) -> None:
    """Commit at the pace of one writer, however long each takes."""
    with psycopg.connect(place, autocommit=True) as connection:
        due = time.monotonic()
        while not ended.is_set():
            connection.execute("INSERT INTO lag_ledger VALUES (1)")
            counts[index] += 1
            due = max(due + WRITERS / RATE, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))


def _sampled(connection: psycopg.Connection, seconds: float) -> list[float]:
    """Lags in µs, in order; each refresh once."""
    seen: dict[tuple[str, object], float] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for server, refreshed, micros, _ in connection.execute(STATUS):
            seen[server, refreshed] = float(micros)
        time.sleep(0.05)
    return sorted(seen.values())
