"""RDS Multi-AZ DB clusters: how long a switch of the writer costs a client, and whether a commit is lost or done twice.

``python -m benchmarks.multi_az [--switches N] [--kills N] [--bounded] [--seed S] [--json FILE]``

The cluster is the reference cluster's flavour ``multi-az``: one writer, two readers, a commit waits for one of them.
The writer is stopped in order and another one promoted (a *switch*), or all of its processes get SIGKILL (a *kill*).

First for the time: one client that writes tightly, beside a probe with a connection to each reader, whose first write
is the earliest that is possible; a client's time after that is what the figure says. Then for the truth: the clients of
`chaos_failovers`, and their ledger and bank, through as many switches and kills again.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster import LocalCluster
from benchmarks import chaos_failovers, incumbent
from benchmarks.chaos_failovers import BANK, CLIENT, FENCED, LOST, ROLLED_BACK, TWICE, Books
from benchmarks.contenders import INCUMBENT, OURS, Contender, Field
from benchmarks.failover import PATIENCE, disturb, end_all, make_ledger, p99, settled
from benchmarks.figures import Figure, report
from benchmarks.switch_arguments import begin, make_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

SWITCHES, KILLS = 50, 20
BOUNDED_SWITCHES, BOUNDED_KILLS = 3, 2
LATE_MEDIAN_MS = 50.0
ENOUGH = 10  # rounds, for a median that is held against its bound
SWITCH, KILL = "switchover", "kill"
DETECT = 0.05  # seconds between two heartbeats
OPTIONS = {"flavour": "multi-az", "readers": 2, "detect": DETECT}


def outages(field: Field, contender: Contender, kind: str, rounds: int, rng: random.Random) -> list[float | None]:
    """Seconds from the earliest possible write to the contender's, of each round; None: it did not end in time."""
    cluster, found = field.cluster, list[float | None]()
    for _ in range(rounds):
        settled(cluster)
        processes = {contender.name: field.start(contender)}
        try:
            time.sleep(rng.random() * 0.2)
            fault = cluster.kill if kind == KILL else lambda _: cluster.failover()
            outage = disturb(field, processes, fault, PATIENCE)[contender.name]
        finally:
            end_all(processes.values())
        found.append(None if outage is None else outage.late)
    return found


def report_outages(contender: Contender, kind: str, found: list[float | None]) -> Iterator[Figure]:
    """The figures of one contender and one kind."""
    name = f"{kind}, {contender.name}"
    late = sorted(each * 1e3 for each in found if each is not None)
    ended = f"{name}: rounds that ended within {PATIENCE:g} s"
    if contender.bounded:
        yield Figure.at_least(ended, len(late), "", len(found))
    else:
        yield Figure.unbounded(ended, len(late), "", f"of {len(found)}")
    if not late:
        return
    text, note = f"{name}: outage minus the cluster's own", f"of {len(late)}, {late[0]:.0f}..{late[-1]:.0f}"
    median = statistics.median(late)
    if contender.bounded and len(late) >= ENOUGH:
        yield Figure.at_most(f"{text}, median", median, "ms", LATE_MEDIAN_MS, note)
    else:
        yield Figure.unbounded(f"{text}, median", median, "ms", note)
    yield Figure.unbounded(f"{text}, p99", p99(late), "ms")


def measure(switches: int, kills: int, seed: int, *, compare: bool) -> Iterator[Figure]:
    """All figures, first of the times, then of the ledger."""
    rng = random.Random(seed)
    with LocalCluster.start(**OPTIONS) as cluster:
        make_ledger(cluster)
        field = _field(cluster, compare=compare)
        for contender in [OURS[0], *([INCUMBENT] if INCUMBENT in field.all else [])]:
            rounds = {SWITCH: switches, KILL: kills}
            if not contender.bounded:
                rounds = {kind: min(count, BOUNDED_SWITCHES) for kind, count in rounds.items()}
            for kind, count in rounds.items():
                yield from report_outages(contender, kind, outages(field, contender, kind, count, rng))
        yield from _report_books(_ledger(cluster, switches, kills, rng), switches + kills)


def _field(cluster: LocalCluster, *, compare: bool) -> Field:
    if not compare:
        return Field(cluster, None)
    hosts = Path(cluster.status().directory) / "hosts"
    try:
        hosts.touch()
        incumbent.alone(hosts)
        return Field(cluster, hosts.parent)
    except (OSError, incumbent.Impossible) as why:
        sys.stdout.write(f"!!! the incumbent is not measured: {why} !!!\n")
        return Field(cluster, None)


def _ledger(cluster: LocalCluster, switches: int, kills: int, rng: random.Random) -> Books:
    kinds = [*[SWITCH] * switches, *[KILL] * kills]
    rng.shuffle(kinds)
    books = Books(rng.randrange(1 << 30))
    settled(cluster)
    chaos_failovers.disturb(cluster, kinds, books.seed, books)
    for kind, texts in books.wrong.items():
        sys.stdout.write(f"WRONG: {len(texts)} {kind}\n" + "".join(f"  {text}\n" for text in texts[:20]))
    return books


def _report_books(books: Books, expected: int) -> Iterator[Figure]:
    yield Figure.at_least("ledger: failovers", len(books.rounds), "", expected)
    yield Figure.unbounded("ledger: operations", books.operations, "", f"{books.repeated} disturbed by a failover")
    yield Figure.unbounded("ledger: outcomes left unknown", books.unknown.total(), "")
    for kind in (LOST, TWICE, FENCED, ROLLED_BACK, BANK, CLIENT):
        yield Figure.at_most(f"ledger: {kind}", len(books.wrong.get(kind, [])), "", 0)


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 where a figure misses its bound."""
    parser = make_parser(__doc__, SWITCHES, KILLS)
    parser.add_argument("--compare", action="store_true", help="the AWS wrapper as well, where it can be installed")
    args = parser.parse_args(arguments)
    seed = begin(args)
    switches, kills = (BOUNDED_SWITCHES, BOUNDED_KILLS) if args.bounded else (args.switches, args.kills)
    return report(measure(switches, kills, seed, compare=args.compare), args.json)


if __name__ == "__main__":
    sys.exit(main())
