"""The last acts of the demo: writes flow, the writer is lost, writes flow again, and every commit is counted.

Clients commit through `aurora_router.Router.run_transaction`. What each client learned is compared with the rows that
are there in the end. Times are of this machine's monotonic clock, in seconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

import aurora_router
from aurora_router_cluster.errors import SupervisorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from aurora_router_cluster.client.cluster import LocalCluster

CLIENTS = 4
PAUSE = 0.005  # between two transactions of a client
LOOK = 0.003  # between two questions to a reader whether it was promoted
BEFORE, AFTER = 0.3, 0.3  # how long writes flow before a fault and after the first ack
LIMIT = 30.0  # for anything to happen
WORDS = {"kill": "killed", "freeze": "frozen"}


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit whose outcome a client learned.

    Attributes:
        at: when.
        client: which client.
        number: which of its commits.
        instance: where.
    """

    at: float
    client: int
    number: int
    instance: str


@dataclass(frozen=True, slots=True)
class FailoverRun:
    """What happened around one fault.

    Attributes:
        fault: ``kill`` or ``freeze``.
        former: the writer that it hit.
        successor: the writer afterwards.
        began: when the fault came.
        noticed: when aurora_router suspected the writer.
        promoted: when the new writer first reported that it is no standby.
        commits: the acknowledged ones around it, in the order of time.
    """

    fault: str
    former: str
    successor: str
    began: float
    noticed: float
    promoted: float
    commits: tuple[Commit, ...]

    @property
    def last_ack(self) -> float:
        """The last commit that the former writer acknowledged."""
        mine = (each.at for each in self.commits if each.instance == self.former and not self.is_resolved(each))
        return max(mine, default=self.began)

    def is_resolved(self, commit: Commit) -> bool:
        """Whether the former writer's answer to a commit was lost, and the new writer reported the commit."""
        return commit.instance == self.former and commit.at > max(self.noticed, self.promoted)

    @property
    def resolved(self) -> int:
        """How many commits were."""
        return sum(map(self.is_resolved, self.commits))

    @property
    def first_ack(self) -> float:
        """The first commit of the successor."""
        return min(each.at for each in self.commits if each.instance == self.successor)

    @property
    def events(self) -> list[tuple[float, str]]:
        """Seconds since the fault, and what happened; in the order of time."""
        moments = [
            (self.began, f"{self.former} {WORDS[self.fault]}"),
            (self.last_ack, f"last ack of {self.former}"),
            (self.noticed, "noticed"),
            (self.promoted, f"{self.successor} promoted"),
            (self.first_ack, f"first ack of {self.successor}"),
        ]
        return sorted((at - self.began, what) for at, what in moments)


@dataclass(frozen=True, slots=True)
class Count:
    """The outcomes of all commits.

    Attributes:
        acknowledged: commits that were acknowledged to clients.
        lost: those of them whose row is not there.
        doubled: rows that are there more than once.
        unknown: commits whose outcome was reported as unknown.
    """

    acknowledged: int
    lost: int
    doubled: int
    unknown: int

    def __str__(self) -> str:
        unknown = f", {self.unknown} unknown" if self.unknown else ""
        return f"{self.acknowledged} commits acknowledged: {self.lost} lost, {self.doubled} doubled{unknown}"


class Clients:
    """Clients that commit one row after the other, each with a connection of its own; a context manager.

    Args:
        cluster: where.
        number: of clients.
    """

    def __init__(self, cluster: LocalCluster, number: int = CLIENTS) -> None:
        self._cluster = cluster
        self._router = aurora_router.Router(cluster.conninfo())
        self._ended = threading.Event()
        self.commits: list[Commit] = []
        self.unknown: list[tuple[int, int]] = []
        self._threads = [threading.Thread(target=self._write, args=(each,), daemon=True) for each in range(number)]

    def __enter__(self) -> Self:
        with self._router.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE demo_ledger (client int, number int)")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(LIMIT if kind is None else 0.2)

    def _write(self, client: int) -> None:
        kept, number = _SingleConnectionPool(self._router), 0
        with contextlib.closing(kept):
            while not self._ended.is_set():
                number += 1
                try:
                    where = self._router.run_transaction(partial(_insert, client, number), pool=kept)
                except aurora_router.CommitOutcomeUnknown:
                    self.unknown.append((client, number))
                except psycopg.OperationalError:
                    continue  # it did not commit
                else:
                    self.commits.append(Commit(time.monotonic(), client, number, where))
                self._ended.wait(PAUSE)

    def act(self, fault: str) -> FailoverRun:
        """Do `fault` to the writer, and go on until the clients have written to its successor for a while.

        Raises:
            SupervisorError: nothing was written to another instance in time.
        """
        former = self._cluster.writer
        if former is None:
            raise SupervisorError("the cluster has no writer to do anything to")
        time.sleep(BEFORE)
        with _PromotionProbe(self._cluster) as promotions, _SuspicionProbe() as suspicions:
            began = time.monotonic()
            getattr(self._cluster, fault)(former)
            successor = _poll_until(lambda: self._elsewhere(former, began), "a commit on another instance")
            promoted = _poll_until(lambda: promotions.promoted.get(successor), f"the promotion of {successor}")
        time.sleep(AFTER)
        around = tuple(sorted((each for each in list(self.commits) if each.at > began - BEFORE), key=lambda it: it.at))
        return FailoverRun(fault, former, successor, began, suspicions.since(began), promoted, around)

    def _elsewhere(self, former: str, began: float) -> str | None:
        found = (each.instance for each in list(self.commits) if each.at > began and each.instance != former)
        return next(found, None)

    def count(self) -> Count:
        """Compare what the clients learned with the rows; to be called when they have ended."""
        with psycopg.connect(self._cluster.plain_conninfo()) as connection:
            rows = Counter((row[0], row[1]) for row in connection.execute("SELECT client, number FROM demo_ledger"))
        lost = sum((each.client, each.number) not in rows for each in self.commits)
        doubled = sum(number - 1 for number in rows.values())
        return Count(len(self.commits), lost, doubled, len(self.unknown))


class _SingleConnectionPool:
    """One client's connection, in the form of a pool."""

    def __init__(self, router: aurora_router.Router) -> None:
        self._router = router
        self._connection: aurora_router.Connection[Any] | None = None

    def getconn(self) -> aurora_router.Connection[Any]:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.OperationalError):
                aurora_router.check(connection)
                return connection
            connection.close()
        return self._router.connect()

    def putconn(self, conn: aurora_router.Connection[Any]) -> None:
        self._connection = conn

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class _PromotionProbe:
    """Ask each reader, on a connection of its own, whether it is one still."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.promoted: dict[str, float] = {}
        self._ended = threading.Event()
        places = {name: cluster.plain_conninfo(f"instance:{name}") for name in cluster.readers}
        self._threads = [threading.Thread(target=self._ask, args=each, daemon=True) for each in places.items()]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(1.0)

    def _ask(self, name: str, place: str) -> None:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(place, autocommit=True) as connection:
            while not self._ended.wait(LOOK):
                if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,):
                    self.promoted[name] = time.monotonic()
                    return


class _SuspicionProbe:
    """Records when aurora_router suspected the writer of a cluster of this process."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def __enter__(self) -> Self:
        self._end = aurora_router.subscribe(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _on_event(self, _cluster: str, event: object) -> None:
        if isinstance(event, aurora_router.WriterSuspected):
            self._times.append(time.monotonic())

    def since(self, began: float) -> float:
        return min((at for at in self._times if at >= began), default=began)


def _insert(client: int, number: int, connection: aurora_router.Connection[Any]) -> str:
    connection.execute("INSERT INTO demo_ledger VALUES (%s, %s)", (client, number))
    placement = connection.placement
    return (placement.instance if placement is not None else None) or "?"


def _poll_until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + LIMIT
    while (value := found()) is None:
        if time.monotonic() > deadline:
            raise SupervisorError(f"{what} did not come within {LIMIT:g} s")
        time.sleep(LOOK)
    return value
