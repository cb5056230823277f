"""Cut thousands of commits off and hold every verdict against the rows: ``python -m benchmarks.chaos_commits``.

A round is a writer with a synchronous standby, eight clients that run transactions through a relay which cuts COMMITs
off at random points, and an accident in the middle: the standby is kept from the log, the writer dies or goes through
a recovery in place, the standby is promoted, and other clients use up the xids that were lost. Each attempt writes a
row of its own, so its outcome is known. In the end every attempt is asked for once more, by us and by the naive
way (``pg_xact_status`` alone).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

import aurora_router
from aurora_router import CommitOutcomeUnknown, CommitToken, Outcome
from aurora_router.flow import commit_sql
from aurora_router_cluster.postgres import binaries as binaries_module
from aurora_router_cluster.postgres.account import Account
from benchmarks.figures import Figure, report
from tests.commits.pair import Pair, eventually
from tests.commits.relay import Cut

CUTS = [Cut.BEFORE_SEND, Cut.AFTER_SEND, Cut.AFTER_ACK]
ACCIDENTS = ["promotion", "recovery in place", "recovery in place, then promotion"]
WAYS = ["log", "witness"]
CLIENTS = 8


@dataclass
class Attempt:
    """One attempt of one transaction: which row it wrote."""

    call: int
    number: int
    token: CommitToken | None = None


@dataclass
class Tally:
    """What happened in the rounds of one way."""

    cut: int = 0
    calls: int = 0
    attempts: int = 0
    unknown_calls: int = 0
    unknown_attempts: int = 0
    naive_wrong: int = 0
    wrong: list[str] = field(default_factory=list)
    cuts: Counter[str] = field(default_factory=Counter)


class Client:
    """Runs transactions until it is stopped, and remembers what was reported."""

    def __init__(self, number: int, pair: Pair, way: str, stop: threading.Event) -> None:
        self.attempts: list[Attempt] = []
        self.reported: dict[int, str] = {}
        self._calls = range(number * 1_000_000, (number + 1) * 1_000_000)
        self._stop = stop
        self.router = aurora_router.Router(pair.conninfo(aurora_outcome=way, aurora_transaction_attempts=30))
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for call in self._calls:
            if self._stop.is_set():
                return
            self._transact(call)

    def _transact(self, call: int) -> None:
        mine: list[Attempt] = []

        def begun(token: CommitToken) -> None:
            mine.append(Attempt(call, len(mine), token))

        def work(connection: psycopg.Connection[object]) -> None:
            connection.execute("insert into public.ledger values (%s, %s)", (call, len(mine) - 1))

        try:
            self.router.run_transaction(work, on_token=begun)
            self.reported[call] = "committed"
        except CommitOutcomeUnknown:
            self.reported[call] = "unknown"
        except psycopg.Error as error:
            self.reported[call] = f"not committed: {error}"
        self.attempts += mine


def play(pair: Pair, way: str, accident: str, seed: int, wanted: int, tally: Tally) -> None:
    """One round: `wanted` cuts before the accident, and as many after it."""
    rng = random.Random(seed)
    pair.run("create table public.ledger (call int, attempt int); grant all on public.ledger to app")
    if way == "witness":
        pair.run(commit_sql.INSTALL)
    pair.caught_up()
    stop = threading.Event()
    clients = [Client(number, pair, way, stop) for number in range(CLIENTS)]
    for relay in pair.relays.values():
        relay.choose = lambda: rng.choice([*CUTS, None])
    for client in clients:
        client.thread.start()
    try:
        writer = suffer(pair, accident, clients, wanted)
        cut_there(pair, writer, wanted)
    finally:
        stop.set()
        for relay in pair.relays.values():
            relay.choose = lambda: None
        for client in clients:
            client.thread.join(90)
            assert not client.thread.is_alive(), "a client hangs"
    for relay in pair.relays.values():
        tally.cut += sum(relay.cuts.values())
        tally.cuts.update({cut.name: count for cut, count in relay.cuts.items()})
    check(pair, writer, clients, tally)


def cut_there(pair, engine, wanted):
    """Wait until so many commits more were cut off at a server."""
    relay = pair.relays[engine]
    before = sum(relay.cuts.values())
    eventually(lambda: sum(relay.cuts.values()) >= before + wanted, 120)


def suffer(pair, accident, clients, wanted):
    """The middle of a round; returns the server that is the writer afterwards."""
    cut_there(pair, pair.one, wanted)
    if accident != "promotion":
        pair.relays[pair.one].choose = lambda: Cut.BEFORE_SEND
        pair.crash_in_place()
        eventually(pair.streaming)
        pair.burn(newest(clients) + 5, pair.one)
        pair.relays[pair.one].choose = lambda: random.choice([*CUTS, None])
        if accident == "recovery in place":
            return pair.one
        cut_there(pair, pair.one, wanted // 4)
    pair.hold()
    with contextlib.suppress(AssertionError):
        eventually(lambda: waiting(pair) >= CLIENTS // 2, 1.0)
    pair.fail_over_with(burn=newest(clients))
    return pair.two


def waiting(pair):
    return pair.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")


def newest(clients):
    """The highest xid that any client was given."""
    return max((each.token.xid for client in clients for each in list(client.attempts) if each.token), default=0) + 10


def check(pair, writer, clients, tally):
    """Compare what was reported, then and when asked once more, with the rows."""
    with pair.admin(writer) as admin:
        there = Counter(admin.execute("select call, attempt from public.ledger").fetchall())
        per_call = Counter({})
        for (call, _), count in there.items():
            per_call[call] += count
        for client in clients:
            for call, reported in client.reported.items():
                tally.calls += 1
                tally.unknown_calls += reported == "unknown"
                expected = {"committed": {1}, "unknown": {0, 1}}.get(reported, {0})
                if per_call[call] not in expected:
                    tally.wrong.append(f"call {call} was reported {reported!r} and has {per_call[call]} rows")
            for attempt in client.attempts:
                check_attempt(admin, client.router, attempt, there[attempt.call, attempt.number] == 1, tally)


def check_attempt(admin, router, attempt, committed, tally):
    tally.attempts += 1
    said = router.outcome_of(attempt.token)
    tally.unknown_attempts += said in {Outcome.UNKNOWN, Outcome.IN_PROGRESS}
    if said is (Outcome.NOT_COMMITTED if committed else Outcome.COMMITTED):
        tally.wrong.append(f"attempt {attempt} is said to be {said.value}")
    try:
        naive = admin.execute("select pg_xact_status(%s::text::xid8)", [attempt.token.xid]).fetchone()[0]
    except psycopg.errors.InvalidParameterValue:
        naive = "future"
    tally.naive_wrong += (naive == "committed") is not committed


def found_binaries(account):
    """Every PostgreSQL that is there: the wheel's, and the system's."""
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    places = [None, *([system[-1].parent] if system else [])]
    return [binaries_module.find(account, place) for place in places]


def chaos(commits: int, seed: int, per_round: int = 60) -> list[Figure]:
    """Rounds until `commits` were cut off with each way together; the figures."""
    account = Account.default()
    servers = found_binaries(account)
    tallies = {way: Tally() for way in WAYS}
    number = 0
    while sum(tally.cut for tally in tallies.values()) < commits:
        way = WAYS[number % 2]
        accident = ACCIDENTS[number // 2 % 3]
        server = servers[number // 6 % len(servers)]
        began = time.monotonic()
        restarts = "off" if accident == "promotion" else "on"
        with Pair(server, account, sync=True, restart_after_crash=restarts) as pair:
            play(pair, way, accident, seed + number, per_round // 2, tallies[way])
        number += 1
        tally = tallies[way]
        print(
            f"round {number} (PostgreSQL {server.major}, {way}, {accident}): {tally.cut} cut so far, "
            f"{len(tally.wrong)} wrong, {time.monotonic() - began:.1f} s",
            flush=True,
        )
    return figures(tallies)


def figures(tallies: dict[str, Tally]) -> list[Figure]:
    """What is reported."""
    for tally in tallies.values():
        for wrong in tally.wrong:
            print(f"WRONG: {wrong}")
    reported = [Figure.unbounded("commits cut off", sum(tally.cut for tally in tallies.values()), "")]
    for way, tally in tallies.items():
        share = 100.0 * tally.unknown_calls / max(1, tally.cut)
        asked = 100.0 * tally.unknown_attempts / max(1, tally.attempts)
        reported += [
            Figure.unbounded(f"{way}: commits cut off", tally.cut, ""),
            Figure.at_most(f"{way}: wrong verdicts", len(tally.wrong), "", 0),
            Figure.unbounded(f"{way}: attempts about which the naive way is wrong", tally.naive_wrong, ""),
        ]
        if way == "witness":
            reported.append(Figure.at_most(f"{way}: left unknown, of the commits cut off", share, "%", 0))
            reported.append(Figure.at_most(f"{way}: unknown when asked again", asked, "%", 0))
        else:
            reported.append(Figure.unbounded(f"{way}: left unknown, of the commits cut off", share, "%"))
            reported.append(Figure.unbounded(f"{way}: unknown when asked again after the round", asked, "%"))
    return reported


def main() -> int:
    """Returns 1 where a figure misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=2000, help="how many commits to cut off")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    logging.getLogger("aurora_router").addHandler(logging.NullHandler())
    seed = random.SystemRandom().randrange(1, 1 << 30) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    reported = chaos(args.commits, seed)
    return report(reported, args.json)


if __name__ == "__main__":
    sys.exit(main())
