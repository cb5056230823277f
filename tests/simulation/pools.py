"""A thousand processes, each with a pool, while readers join and leave and writers fail: how evenly they are spread.

The processes follow `aurora_router.policy.rebalancing`, and choose by `policy.balance`, as pools do. What they know of
the cluster is as old as their last refresh; only a failover is known at once, and for a while the writer is suspected.
Run ``python -m tests.simulation.pools --json FILE`` for the figures, with and without rebalancing.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import MISSING_SECONDS
from aurora_router.model.view import View
from aurora_router.policy.balance import select
from aurora_router.policy.context import Context, Load
from aurora_router.policy.options import Balance, Options
from aurora_router.policy.poll_interval import add_jitter
from aurora_router.policy.quarantine import Quarantine
from aurora_router.policy.rebalancing import RATE, Pace, find_surplus
from benchmarks.figures import Figure, report

TICK = 0.1
"""Between two check-ins of one process, in seconds."""
REFRESH = 10.0
"""``aurora_refresh``, in seconds."""
EVENT_SECONDS = 40.0
"""Between two changes of the cluster."""
SUSPICION_SECONDS = 3.0
"""How long the writer is suspected during a failover."""
READERS = (4, 6)
"""How many readers there are, at least and at most."""
HEALTHY = Quarantine()


@dataclass
class World:
    """The cluster as it is; each change makes a new view."""

    rng: random.Random
    view: View = field(default_factory=lambda: make_view([Instance("w0", Role.WRITER)], "w0"))
    made: int = 0
    changed_at: float = 0.0
    suspected_until: float = 0.0

    @property
    def readers(self) -> list[str]:
        """The readers' ids."""
        return [each.id for each in self.view.readers()]

    def join(self) -> None:
        """Add a reader."""
        self.made += 1
        joined = Instance(f"r{self.made}", Role.READER)
        self.view = make_view([*self.view.instances.values(), joined], self.view.writer)

    def change(self, now: float) -> str:
        """Do what may happen, at random; returns what it was."""
        fewest, most = READERS
        kinds = ["join"] * (len(self.readers) < most) + ["leave", "fail"] * (len(self.readers) > fewest) + ["fail over"]
        kind = self.rng.choice(kinds)
        self.changed_at = now
        if kind == "join":
            self.join()
        elif kind == "leave":
            left = self.rng.choice(self.readers)
            self.view = make_view([each for each in self.view.instances.values() if each.id != left], self.view.writer)
        else:
            self._fail_over(now, returns=kind == "fail over")
        return kind

    def _fail_over(self, now: float, *, returns: bool) -> None:
        """A reader becomes the writer; the former writer returns as a reader, or does not."""
        self.suspected_until = now + SUSPICION_SECONDS
        instances, new = dict(self.view.instances), self.rng.choice(self.readers)
        former = instances.pop(self.view.writer or "")
        instances[new] = instances[new].become(Role.WRITER)
        if returns:
            instances[former.id] = former.become(Role.READER)
        self.view = make_view(instances.values(), new)


def make_view(instances, writer) -> View:
    return View(instances={each.id: each for each in instances}, writer=writer, refreshed_at=0.0)


class Process:
    """One process with one pool."""

    def __init__(self, world: World, size: int, seed: int, options: Options) -> None:
        self.world, self.options = world, options
        self.rng = random.Random(seed)
        self.view = world.view
        self.turn = self.rng.getrandbits(16)
        self.pace = Pace()
        self.counts: Counter[str] = Counter()
        self.refresh_at = self.rng.random() * REFRESH
        self.recycled: list[float] = []
        self.held: list[tuple[str, int]] = []
        for _ in range(size):
            self.held.append(self._connect(0.0))

    def step(self, now: float) -> None:
        """Refresh if that is due, then check a connection in."""
        self._learn(now)
        position = int(self.rng.random() * len(self.held))
        instance, generation = self.held[position]
        if not self.view.is_current(instance, generation):
            self._replace(position, now)
        elif self.options.rebalance and not self.pace.is_idle(instance, now):
            self._judge(position, instance, now)

    def _learn(self, now: float) -> None:
        real = self.world.view
        if real.writer != self.view.writer:
            self.view = real
        if now < self.refresh_at:
            return
        missing = [each for each in self.view.instances.values() if each.id not in real.instances]
        stay = [
            replace(each, missing_since=now)
            for each in missing
            if each.missing_since is None or now - each.missing_since < MISSING_SECONDS
        ]
        self.view = make_view([*real.instances.values(), *stay], real.writer) if stay else real
        self.refresh_at = now + add_jitter(MISSING_SECONDS + TICK if stay else REFRESH, self.rng.random())

    def _judge(self, position: int, instance: str, now: float) -> None:
        if now >= self.pace.look_at:
            is_suspected = now < self.world.suspected_until
            surplus = find_surplus(self._context(now), self.counts, {}, is_suspected=is_suspected)
            self.pace = self.pace.record_look(surplus, now, self.rng.random())
        if self.pace.may_recycle(instance, now):
            self.pace = self.pace.record_recycling(len(self.held), now, self.rng.random())
            self.recycled.append(now)
            self._replace(position, now)

    def _replace(self, position: int, now: float) -> None:
        self.counts[self.held[position][0]] -= 1
        self.held[position] = self._connect(now)

    def _connect(self, now: float) -> tuple[str, int]:
        """Choose an instance; one that has left cannot be connected."""
        self.turn += 1
        context = self._context(now)
        loads = {"loads": context.loads, "quarantine": HEALTHY, "now": now, "rng": self.rng, "turn": self.turn}
        order = select(self.view, self.options, WantedRole.READER, **loads).order
        chosen = next(each for each in order if each.id in self.world.view.instances)
        self.counts[chosen.id] += 1
        return chosen.id, chosen.generation

    def _context(self, now: float) -> Context:
        loads = {id_: Load(count, 0.001) for id_, count in self.counts.items()}
        return Context(self.view, self.options, WantedRole.READER, loads, HEALTHY, now, self.rng, self.turn)


@dataclass
class Outcome:
    """The result of a run.

    Attributes:
        worst: the highest load of a reader, as a multiple of its fair share, once each process had looked.
        settled: the same ten seconds later.
        per_second: the most connections that one process recycled within a second.
        moves: how many connections all of them recycled.
        together: of what was recycled after a change, the highest share within one second.
        changes: what happened, each with how often.
    """

    worst: float = 0.0
    settled: float = 0.0
    per_second: int = 0
    moves: int = 0
    together: float = 0.0
    changes: Counter[str] = field(default_factory=Counter)


def run(processes: int, connections: int, seconds: float, seed: int, **options: object) -> Outcome:
    """Let the processes run for so many seconds of virtual time; returns how evenly they were spread."""
    world, outcome = World(random.Random(seed)), Outcome()
    for _ in range(READERS[0]):
        world.join()
    those = [Process(world, connections, seed * processes + each, Options(**options)) for each in range(processes)]
    next_change, checked = EVENT_SECONDS, 1.25 * REFRESH
    for tick in range(int(seconds / TICK)):
        now = tick * TICK
        if now >= next_change:
            outcome.changes[world.change(now)] += 1
            next_change += EVENT_SECONDS
        for each in those:
            each.step(now)
        since = now - world.changed_at
        if tick % 10 == 0 and since >= checked:
            load = _highest_load(world, those)
            outcome.worst = max(outcome.worst, load)
            if since >= checked + MISSING_SECONDS + 10.0:
                outcome.settled = max(outcome.settled, load)
    _count_moves(outcome, those)
    return outcome


def _highest_load(world: World, processes: list[Process]) -> float:
    held = Counter(id_ for each in processes for id_, count in each.counts.items() for _ in range(count))
    return max(held[id_] for id_ in world.readers) * len(world.readers) / held.total()


def _count_moves(outcome: Outcome, processes: list[Process]) -> None:
    for each in processes:
        for first, began in enumerate(each.recycled):
            within = sum(at < began + 1.0 for at in each.recycled[first:])
            outcome.per_second = max(outcome.per_second, within)
    moves = [at for each in processes for at in each.recycled]
    outcome.moves = len(moves)
    by_second, by_change = Counter(int(at) for at in moves), Counter(int(at // EVENT_SECONDS) for at in moves)
    few = len(processes)  # what is left over from a change before is no wave
    waves = [count / by_change[second // int(EVENT_SECONDS)] for second, count in by_second.items()
             if by_change[second // int(EVENT_SECONDS)] >= few]  # fmt: skip
    outcome.together = max(waves, default=0.0)


WORST = 1.5
"""The highest load that a reader may have, as a multiple of its fair share."""
STRATEGIES = {
    "least_connections": {},
    "round_robin": {"balance": Balance.ROUND_ROBIN},
    "random": {"balance": Balance.RANDOM},
    "without rebalancing": {"rebalance": False},
}


def main() -> int:
    """Print the figures; returns the exit status: 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--processes", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=400.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    figures: list[Figure] = []
    for name, options in STRATEGIES.items():
        found = run(args.processes, args.connections, args.seconds, args.seed, **options)
        title = f"pools, simulated, {name}"
        load, rate = f"{title}: highest load / fair share after the first check", f"{title}: recycled per second"
        if options.get("rebalance") is False:
            figures.append(Figure.unbounded(load, found.worst, "x", str(dict(found.changes))))
            continue
        figures += [
            Figure.at_most(load, found.worst, "x", WORST, str(dict(found.changes))),
            Figure.unbounded(f"{title}: the same, 15 s later", found.settled, "x"),
            Figure.at_most(rate, found.per_second, "", 1.0 + RATE * args.connections, "of a process, at most"),
            Figure.unbounded(f"{title}: recycled in all", found.moves, "", f"of {args.processes * args.connections}"),
            Figure.unbounded(f"{title}: share of a change's in its busiest second", found.together, ""),
        ]
    return report(figures, args.json)


if __name__ == "__main__":
    raise SystemExit(main())
