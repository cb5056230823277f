"""A failover at the pace of Amazon Aurora (`--pace aws`): what it costs clients that go on working.

The writer is killed under clients that write (or read) one row after the other and begin again after an error. *The
earliest possible* is the first write that any instance takes: a probe dials all of them in turn, again and again.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from aurora_router_cluster import LocalCluster
from benchmarks.failover import make_ledger, settled
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.setting import Setting

ROUNDS = 10
LONGEST = 60.0  # seconds for a failover
PAUSE = 0.01
WRITE = "INSERT INTO failover_ledger VALUES (1)"
READ = "SELECT count(*) FROM failover_ledger"
LATE = 0.5  # seconds after the earliest possible, at most, for our driver
READER_GAP = 12.0  # seconds without an answer to a reader's client, at most: it may wait for the whole promotion


@dataclass
class Client:
    """Works in a thread of its own, with a connection that it makes again after each error.

    Attributes:
        answers: when each statement was answered, monotonic time.
        errors: when each error came.
    """

    name: str
    connect: Callable[[], Any]
    statement: str
    answers: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join(LONGEST)

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                with contextlib.closing(self.connect()) as connection:
                    while not self._ended.is_set():
                        connection.execute(self.statement)
                        self.answers.append(time.monotonic())
                        self._ended.wait(PAUSE)
            except psycopg.Error:
                self.errors.append(time.monotonic())
                self._ended.wait(PAUSE)

    def since(self, moment: float, statements: list[float]) -> float | None:
        """Seconds from a moment to the first of these after it."""
        return next((each - moment for each in statements if each > moment), None)

    def gap(self, moment: float) -> float:
        """The longest time without an answer, from a moment on, in seconds."""
        there = [each for each in self.answers if each >= moment - 1.0]
        return max((later - before for before, later in itertools.pairwise(there)), default=LONGEST)


def measure(setting: Setting) -> Iterator[Figure]:
    """The figures."""
    found: dict[str, list[float]] = {}
    with LocalCluster.start(**{"readers": 2, **setting.options, "pace": "aws"}) as cluster:
        make_ledger(cluster)
        for _ in range(setting.rounds(ROUNDS)):
            for name, seconds in _round(cluster).items():
                found.setdefault(name, []).append(seconds)
    bounds = {
        "our writer, first ack after the earliest possible": LATE,
        "our reader, longest time without an answer": READER_GAP,
    }
    for name, values in found.items():
        note = f"of {len(values)}, {min(values):.2f}..{max(values):.2f} s"
        text = f"failover at the pace of aws: {name}, median"
        if name in bounds:
            yield Figure.at_most(text, statistics.median(values), "s", bounds[name], note)
        else:
            yield Figure.unbounded(text, statistics.median(values), "s", note)


def _round(cluster: LocalCluster) -> dict[str, float]:
    settled(cluster)
    ours = Client("ours", lambda: aurora_router.connect(cluster.conninfo(), autocommit=True), WRITE)
    url = cluster.libpq_url()
    listed = Client("listed", lambda: psycopg.connect(url, autocommit=True), WRITE)
    reading = Client("reader", lambda: aurora_router.connect(cluster.conninfo("reader"), autocommit=True), READ)
    clients = (ours, listed, reading)
    for client in clients:
        client.start()
    try:
        _until(lambda: all(client.answers for client in clients))
        time.sleep(0.5)
        former = cluster.writer
        assert former is not None
        addresses = [cluster.plain_conninfo(f"instance:{name}", connect_timeout=2) for name in cluster.readers]
        killed = time.monotonic()
        cluster.kill(former)
        earliest = _earliest(addresses) - killed
        _until(lambda: all(client.since(killed + earliest, client.answers) for client in clients))
        time.sleep(1.0)
    finally:
        for client in clients:
            client.end()
    figures = {"a writer is there again, from the kill": earliest}
    for client, name in ((ours, "our writer"), (listed, "psycopg with a list of hosts")):
        noticed = client.since(killed, client.errors)
        figures[f"{name}, first error"] = LONGEST if noticed is None else noticed
        after = [each for each in client.answers if noticed is not None and each > killed + noticed]
        figures[f"{name}, first ack after the earliest possible"] = after[0] - killed - earliest if after else LONGEST
    figures["our reader, longest time without an answer"] = reading.gap(killed)
    return figures


def _earliest(addresses: list[str]) -> float:
    """When the first write was taken by an instance, monotonic time."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        for address in addresses:
            with contextlib.suppress(psycopg.Error), psycopg.connect(address, autocommit=True) as connection:
                connection.execute(WRITE)
                return time.monotonic()
        time.sleep(PAUSE)
    raise TimeoutError(f"no write was possible within {LONGEST:g} s of the kill")


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the clients did not go on")
        time.sleep(0.05)
