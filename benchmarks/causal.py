"""Read-your-writes: pairs of a write and a read through the reader endpoint, with tokens and without, replay lagging.

``python -m benchmarks.causal [--pairs N] [--failovers N] [--json FILE]``

Several clients each write a number, take a causal token, and read the number through a reader, on a connection that is
kept or, one time in five, made for that. Every reader replays each commit later by an injected lag (`LAGS`); failovers
happen meanwhile. A read is *stale* if it returns less than its client's last acknowledged write. The same without
tokens shows that the count finds stale reads. Both kinds of tokens are used: log position and witness row.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import secrets
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from aurora_router.flow import commit_sql
from aurora_router_cluster import LocalCluster
from benchmarks.figures import Figure, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAIRS, FAILOVERS = 10_000, 20
CLIENTS = 4
LAGS = {"10 ms": 0.8, "100 ms": 0.15, "1 s": 0.05}
"""Injected replay lag -> the share of the pairs."""
READER_SHARE = 0.9
"""What readers serve at least at 10 ms of lag."""
DIALS = 5
"""One read of so many is done on a connection that is made for it; the others on one that is kept."""
WAIT = 0.5
PATIENCE = 60.0
INSTALL = """
GRANT pg_read_all_stats TO app;
CREATE TABLE public.pairs (client int PRIMARY KEY, n bigint NOT NULL);
GRANT ALL ON public.pairs TO app
"""


@dataclass
class Count:
    """What was measured of the pairs."""

    pairs: int = 0
    stale: int = 0
    served: Counter[str] = field(default_factory=Counter)
    read_seconds: list[float] = field(default_factory=list)
    token_seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, role: str, read: float, token: float, *, stale: bool) -> None:
        """Count a pair: the role that served the read, seconds that it and the token took, whether it was stale."""
        with self._lock:
            self.pairs += 1
            self.stale += stale
            self.served[role] += 1
            self.read_seconds.append(read)
            self.token_seconds.append(token)

    @property
    def reader_share(self) -> float:
        """The share of the reads that readers served."""
        return self.served["reader"] / max(1, self.pairs)


@contextlib.contextmanager
def lagging_cluster(lag: str, **options: Any) -> Iterator[LocalCluster]:
    """A cluster whose readers replay each commit later by `lag`, as PostgreSQL writes an interval."""
    with LocalCluster.start(**{"readers": 2, "settings": {"recovery_min_apply_delay": lag}, **options}) as cluster:
        writer = cluster.instance(cluster.writer or "")
        with psycopg.connect(
            host=writer.socket_directory, port=writer.port, user="postgres", dbname="app", autocommit=True
        ) as conn:
            conn.execute(INSTALL)
        wait_for_grant(cluster)
        yield cluster


def wait_for_grant(cluster: LocalCluster) -> None:
    """Wait until every reader permits the user to see its timeline."""
    until = time.monotonic() + PATIENCE
    for name in cluster.readers:
        with psycopg.connect(cluster.plain_conninfo(f"instance:{name}"), autocommit=True) as conn:
            while conn.execute("SELECT pg_has_role('pg_read_all_stats', 'USAGE')").fetchone() != (True,):
                if time.monotonic() > until:
                    raise TimeoutError("a reader does not replay")
                time.sleep(0.01)


def run_pairs(
    cluster: LocalCluster, pairs: int, *, tokens: bool, failovers: int = 0, method: str = "auto", clients: int = CLIENTS
) -> Count:
    """Do write-then-read pairs with several clients, and failovers spread over them."""
    count, taken, lock = Count(), iter(range(pairs)), threading.Lock()

    def take() -> bool:
        with lock:
            return next(taken, None) is not None

    crowd = [Client(cluster, count, number, tokens=tokens, method=method) for number in range(clients)]
    threads = [threading.Thread(target=client.run, args=(take,)) for client in crowd]
    for thread in threads:
        thread.start()
    done = 0
    while any(thread.is_alive() for thread in threads):
        if done < failovers and count.pairs >= (done + 1) * pairs / (failovers + 1):
            cluster.failover()
            done += 1
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    return count


class Client:
    """Writes and reads; one thread, with a row, and two connections, of its own."""

    def __init__(self, cluster: LocalCluster, count: Count, number: int, *, tokens: bool, method: str) -> None:
        self._router = aurora_router.Router(cluster.conninfo(aurora_causal=method), autocommit=True)
        self._count = count
        self._number = number
        self._tokens = tokens
        self._key = secrets.token_bytes(32)
        self._writer: aurora_router.Connection[Any] | None = None
        self._reader: aurora_router.Connection[Any] | None = None

    def run(self, take: Callable[[], bool]) -> None:
        """Do pairs until none is left to take."""
        try:
            done = 0
            while take():
                done += 1
                self._pair(is_dialled=self._tokens and done % DIALS == 0)
        except Exception as error:  # noqa: BLE001 - it is reported, and fails the run
            self._count.failed.append(f"{type(error).__name__}: {error}")
        finally:
            self._close()

    def _close(self) -> None:
        for each in (self._writer, self._reader):
            if each is not None:
                each.close()
        self._writer = self._reader = None

    def _pair(self, *, is_dialled: bool) -> None:
        """One pair, done again, with a new number, where a failover got in between."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                writer = self._writer = self._writer or self._router.connect(role="writer")
                reader = self._reader = self._reader or self._router.connect(role="reader")
                n = time.time_ns()  # above that of every earlier pair
                token, took = self._write(writer, n)
                if token is not None and is_dialled:
                    self._read_dialled(n, token, took)
                else:
                    self._read_kept(reader, writer, n, token, took)
            except psycopg.OperationalError:
                self._close()
                if time.monotonic() > until:
                    raise
            else:
                return

    def _write(self, writer: aurora_router.Connection[Any], n: int) -> tuple[aurora_router.CausalToken | None, float]:
        writer.execute(
            "INSERT INTO public.pairs VALUES (%s, %s) ON CONFLICT (client) DO UPDATE SET n = excluded.n",
            (self._number, n),
        )
        if not self._tokens:
            return None, 0.0
        began = time.perf_counter()
        text = writer.causal_token().sign(self._key)
        took = time.perf_counter() - began
        return aurora_router.CausalToken.parse(text, key=self._key), took

    def _read_dialled(self, n: int, token: aurora_router.CausalToken, took: float) -> None:
        """Read on a connection that is made for that."""
        began = time.perf_counter()
        with self._router.connect(role="reader", after=token) as conn:
            self._look(conn, n, began, took)

    def _read_kept(
        self,
        reader: aurora_router.Connection[Any],
        writer: aurora_router.Connection[Any],
        n: int,
        token: aurora_router.CausalToken | None,
        took: float,
    ) -> None:
        """Read on a connection that is there already, as a pool has it."""
        began = time.perf_counter()
        aurora_router.check(reader)
        may_serve = token is None or reader.has_replayed(token, timeout=WAIT)
        self._look(reader if may_serve else writer, n, began, took)

    def _look(self, conn: aurora_router.Connection[Any], n: int, began: float, took: float) -> None:
        row = conn.execute("SELECT n FROM public.pairs WHERE client = %s", (self._number,)).fetchone()
        seconds = time.perf_counter() - began
        role = "unknown" if conn.placement is None else conn.placement.role.value
        self._count.note(role, seconds, took, stale=row is None or row[0] < n)


def measure(pairs: int, failovers: int) -> Iterator[Figure]:
    """The figures."""
    for lag, share in LAGS.items():
        some_pairs, some_failovers = max(1, round(pairs * share)), round(failovers * share)
        with lagging_cluster(lag) as cluster:
            found = run_pairs(cluster, some_pairs, tokens=True, failovers=some_failovers)
            yield from _figures(f"lag {lag}, log position", found, some_failovers)
            if lag == "10 ms":
                name = f"lag {lag}: served by readers"
                yield Figure.at_least(name, found.reader_share, "", READER_SHARE, "the rest by the writer")
            with aurora_router.connect(cluster.conninfo(), autocommit=True) as conn:
                conn.execute(commit_sql.INSTALL.encode())
            found = run_pairs(cluster, max(1, some_pairs // 10), tokens=True, method="witness")
            yield from _figures(f"lag {lag}, witness row", found, 0)
            found = run_pairs(cluster, max(20, some_pairs // 10), tokens=False)
            yield Figure.at_least(f"lag {lag}, no token: stale reads", found.stale, "", 1, f"of {found.pairs}")


def _figures(name: str, found: Count, failovers: int) -> Iterator[Figure]:
    note = f"of {found.pairs} pairs, {failovers} failovers"
    yield Figure.at_most(f"{name}: stale reads", found.stale, "", 0, note)
    yield Figure.at_most(f"{name}: clients that failed", len(found.failed), "", 0, "; ".join(found.failed)[:200])
    yield Figure.unbounded(f"{name}: share of readers", found.reader_share, "", f"{dict(found.served)}")
    yield Figure.unbounded(f"{name}: token, median", statistics.median(found.token_seconds) * 1e3, "ms")
    yield Figure.unbounded(f"{name}: read, median", statistics.median(found.read_seconds) * 1e3, "ms")


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 where a figure misses its bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.causal", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="with tokens, by the log position")
    parser.add_argument("--failovers", type=int, default=FAILOVERS, help="spread over them")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    for quiet in ("aurora_router", "psycopg"):  # they warn of the failovers, which are intended
        logging.getLogger(quiet).addHandler(logging.NullHandler())
    figures = []
    for figure in measure(options.pairs, options.failovers):
        figures.append(figure)
        sys.stdout.write(figure.line(60) + "\n")
        sys.stdout.flush()
    print()
    return report(figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
