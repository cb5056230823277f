"""A Patroni cluster under load: whether a commit is lost or done twice, and what a lost leader costs a client.

``python -m benchmarks.patroni [--switches N] [--kills N] [--asynchronous] [--bounded] [--seed S] [--json FILE]``

Three members on etcd, with ``synchronous_mode``. The leader is switched over by Patroni's REST API, or all of its
processes get SIGKILL, Patroni's too, and a new one leads when the lock has expired (``ttl``, 20 s). The clients are
those of `chaos_failovers`, with their ledger and bank, and beside them one that writes tightly, and a probe with a
connection to each standby. The probe's first write is the earliest that is possible: what the client needs beyond that
is the outage minus the manager's own.

With ``--asynchronous`` the cluster has Patroni's defaults, which may lose commits: what is lost is stated, not judged.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from typing import TYPE_CHECKING

import psycopg

from aurora_router.flow import commit_sql
from benchmarks.chaos_clients import TABLES, Crowd
from benchmarks.chaos_failovers import BANK, CLIENT, CONNINFO, ENOUGH, FENCED, LOST, ROLLED_BACK, TWICE, Books, check
from benchmarks.contenders import PATIENCE, Process
from benchmarks.failover import p99
from benchmarks.figures import Figure, report
from benchmarks.switch_arguments import begin, make_parser
from tests.patroni.managed import NotInstalled, PatroniCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

SWITCHES, KILLS = 20, 20
BOUNDED_SWITCHES, BOUNDED_KILLS = 2, 1
SWITCH, KILL = "switchover", "kill"
LATE_MEDIAN_MS = 100.0
ENOUGH_ROUNDS = 10
"""For a median that is held against its bound."""
LONGEST = 120.0  # seconds until there is a new leader


def play(cluster: PatroniCluster, crowd: Crowd, kind: str) -> float:
    """One change of the leader; returns the client's seconds after the earliest possible write."""
    cluster.eventually(cluster.is_settled, f"three members run before a {kind}")
    before, timeline = cluster.leader, max(crowd.newest())
    assert before is not None
    ours = Process("ours", _conninfo(cluster))
    standbys = [name for name in cluster.nodes if name != before]
    probe = Process("probe", *(cluster.conninfo(name) for name in standbys))
    try:
        for each in (ours, probe):
            each.begin()
        for each in (ours, probe):
            if each.line(PATIENCE) is None:
                raise RuntimeError("a client could not connect")
        if kind == KILL:
            cluster.kill(before)
        else:
            cluster.switch()
        earliest, found = probe.line(LONGEST), ours.line(LONGEST)
    finally:
        ours.end()
        probe.end()
        if kind == KILL:
            cluster.start(before)
    if earliest is None or found is None:
        raise TimeoutError(f"no write within {LONGEST:g} s of a {kind} of {before}")
    cluster.eventually(lambda: _has_moved(crowd, timeline), f"{ENOUGH} clients write to the new leader")
    return float(found["acked"]) - float(earliest["acked"])


def _has_moved(crowd: Crowd, timeline: int) -> bool:
    broken = [client for client in crowd.clients if client.failure is not None]
    if broken:
        raise RuntimeError(f"{broken[0].way} broke: {broken[0].failure!r}") from broken[0].failure
    return sorted(crowd.newest())[len(crowd.clients) - ENOUGH] > timeline


def _conninfo(cluster: PatroniCluster, **options: object) -> str:
    return cluster.conninfo(aurora_source="patroni", aurora_patroni=cluster.urls(), **options)


def measure(switches: int, kills: int, seed: int, *, is_synchronous: bool) -> Iterator[Figure]:
    """All figures; what is wrong is printed as well."""
    rng, books = random.Random(seed), Books(seed)
    kinds = [*[SWITCH] * switches, *[KILL] * kills]
    rng.shuffle(kinds)
    late: dict[str, list[float]] = {SWITCH: [], KILL: []}
    began = time.monotonic()
    with PatroniCluster(dcs={"synchronous_mode": is_synchronous}) as cluster:
        yield Figure.unbounded("three members run after", time.monotonic() - began, "s")
        with psycopg.connect(cluster.plain_conninfo()) as conn:
            conn.execute(TABLES)
            conn.execute("CREATE TABLE failover_ledger (n int)")
            conn.execute(commit_sql.INSTALL)
        patient = {**CONNINFO, "aurora_failover_timeout": LONGEST, "aurora_transaction_timeout": LONGEST}
        crowd = Crowd(_conninfo(cluster, **patient), _conninfo(cluster, aurora_role="reader", **patient), seed)
        crowd.start()
        try:
            cluster.eventually(lambda: _has_moved(crowd, 0), "every client has begun")
            for kind in kinds:
                late[kind].append(play(cluster, crowd, kind))
        except TimeoutError as error:
            books.blame(CLIENT, str(error))
        finally:
            for text in crowd.end():
                books.blame(CLIENT, text)
        check(cluster, crowd, books)
    for kind, texts in books.wrong.items():
        sys.stdout.write(f"WRONG: {len(texts)} {kind}\n" + "".join(f"  {text}\n" for text in texts[:20]))
    for kind, found in late.items():
        yield from _report_outages(kind, found)
    yield from _report_books(books, len(kinds), sum(map(len, late.values())), is_synchronous=is_synchronous)


def _report_outages(kind: str, found: list[float]) -> Iterator[Figure]:
    if not found:
        return
    ordered = sorted(each * 1e3 for each in found)
    text, note = f"{kind}: outage minus the manager's own", f"of {len(ordered)}, {ordered[0]:.0f}..{ordered[-1]:.0f}"
    median = statistics.median(ordered)
    if len(ordered) >= ENOUGH_ROUNDS:
        yield Figure.at_most(f"{text}, median", median, "ms", LATE_MEDIAN_MS, note)
    else:
        yield Figure.unbounded(f"{text}, median", median, "ms", note)
    yield Figure.unbounded(f"{text}, p99", p99(ordered), "ms")


def _report_books(books: Books, expected: int, done: int, *, is_synchronous: bool) -> Iterator[Figure]:
    yield Figure.at_least("changes of the leader", done, "", expected)
    yield Figure.unbounded("operations", books.operations, "", f"{books.repeated} disturbed by a change")
    yield Figure.unbounded("outcomes left unknown", books.unknown.total(), "")
    for kind in (LOST, TWICE, FENCED, ROLLED_BACK, BANK, CLIENT):
        found = len(books.wrong.get(kind, []))
        if is_synchronous or kind in {TWICE, BANK, CLIENT}:
            yield Figure.at_most(kind, found, "", 0)
        else:
            yield Figure.unbounded(kind, found, "", "asynchronous: what the manager itself loses")


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 where a figure misses its bound, or a program is missing."""
    parser = make_parser(__doc__, SWITCHES, KILLS)
    parser.add_argument("--asynchronous", action="store_true", help="Patroni's defaults, which may lose commits")
    args = parser.parse_args(arguments)
    seed = begin(args)
    switches, kills = (BOUNDED_SWITCHES, BOUNDED_KILLS) if args.bounded else (args.switches, args.kills)
    try:
        return report(measure(switches, kills, seed, is_synchronous=not args.asynchronous), args.json)
    except NotInstalled as missing:
        sys.stdout.write(f"!!! {missing} !!!\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
