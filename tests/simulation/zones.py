"""Hundreds of processes in three zones: how many connections stay in the zone, and how busy the busiest reader gets.

The processes choose by `policy.balance` and `policy.affinity`. Some have pools, whose connections stay, and follow
`policy.rebalancing`; those of others live for a random time, and are replaced. What they know of the readers' client
connections is as old as their last question (`poll_interval.LOAD_SECONDS`), each process's at a time of its own.
Run ``python -m tests.simulation.zones --json FILE`` for the figures.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from pathlib import Path

from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Occupancy, Role
from aurora_router.model.view import View
from aurora_router.policy.balance import select
from aurora_router.policy.context import Context, Load
from aurora_router.policy.options import Options
from aurora_router.policy.poll_interval import LOAD_SECONDS, add_jitter
from aurora_router.policy.quarantine import Quarantine
from aurora_router.policy.rebalancing import Pace, find_surplus
from benchmarks.figures import Figure, report

ZONES = ("eu-1a", "eu-1b", "eu-1c")
EVEN, UNEVEN = (1.0, 1.0, 1.0), (0.6, 0.2, 0.2)
"""Which part of the clients is in each zone."""
TICK = 0.5
"""Between two check-ins of one pool, in seconds."""
START_SECONDS = 30.0
"""The processes start within so long."""
SETTLE_SECONDS = 240.0
"""Four questions for the loads: from then on the figures count."""
LOCAL, BUSIEST = 0.95, 1.3
"""At least so many connections in the own zone, with even clients; the busiest reader / the mean, at most."""
HEALTHY = Quarantine()


class World:
    """The readers, and how many connections each has."""

    def __init__(self, readers: int) -> None:
        made = {
            f"r{number}": Instance(f"r{number}", Role.READER, zone=ZONES[number % 3]) for number in range(3 * readers)
        }
        writer = Instance("w", Role.WRITER, zone=ZONES[0])
        self.view = View(instances={**made, writer.id: writer}, writer=writer.id, refreshed_at=0.0)
        self.connections: Counter[str] = Counter(dict.fromkeys(made, 0))
        self.zone_of = {each.id: each.zone for each in made.values()}

    @property
    def busiest(self) -> float:
        """The connections of the busiest reader, in multiples of the mean."""
        mean = self.connections.total() / len(self.connections)
        return max(self.connections.values()) / mean if mean else 0.0


class Process:
    """One process, its connections, and what it knows."""

    def __init__(self, world: World, zone: str, seed: int) -> None:
        self.world, self.zone = world, zone
        self.rng = random.Random(seed)
        self.options = Options(zones=(frozenset({zone}),))
        self.view, self.turn, self.pace = world.view, self.rng.getrandbits(16), Pace()
        self.counts: Counter[str] = Counter()
        self.held: list[str] = []
        self.starts_at = self.rng.random() * START_SECONDS
        self.asks_at = self.starts_at + self.rng.random() * LOAD_SECONDS

    def learn(self, now: float) -> None:
        """Ask each reader for its connections, if that is due."""
        if now < self.asks_at:
            return
        self.asks_at = now + add_jitter(LOAD_SECONDS, self.rng.random())
        known = {
            id_: replace(each, occupancy=Occupancy(self.world.connections[id_], self.counts[id_], now))
            for id_, each in self.view.instances.items()
        }
        self.view = replace(self.view, instances=known)

    def connect(self, now: float) -> None:
        """Add a connection."""
        self.turn += 1
        context = self._context(now)
        choice = {"loads": context.loads, "quarantine": HEALTHY, "now": now, "rng": self.rng, "turn": self.turn}
        chosen = select(self.view, self.options, WantedRole.READER, **choice).order[0].id
        self.held.append(chosen)
        self.counts[chosen] += 1
        self.world.connections[chosen] += 1

    def close(self, position: int) -> None:
        """Close one."""
        closed = self.held.pop(position)
        self.counts[closed] -= 1
        self.world.connections[closed] -= 1

    def check_in(self, now: float) -> bool:
        """Give one connection back to the pool; returns whether it was recycled."""
        position = int(self.rng.random() * len(self.held))
        if self.pace.is_idle(self.held[position], now):
            return False
        if now >= self.pace.look_at:
            self.pace = self.pace.record_look(find_surplus(self._context(now), self.counts, {}), now, self.rng.random())
        if not self.pace.may_recycle(self.held[position], now):
            return False
        self.pace = self.pace.record_recycling(len(self.held), now, self.rng.random())
        self.close(position)
        self.connect(now)
        return True

    def local(self) -> int:
        """How many of its connections are in its zone."""
        return sum(count for id_, count in self.counts.items() if self.world.zone_of[id_] == self.zone)

    def _context(self, now: float) -> Context:
        loads = {id_: Load(count, 0.001) for id_, count in self.counts.items()}
        return Context(self.view, self.options, WantedRole.READER, loads, HEALTHY, now, self.rng, self.turn)


@dataclass
class Outcome:
    """The result of a run, from `SETTLE_SECONDS` on.

    Attributes:
        local: the lowest share of connections that were in the zone of their process.
        busiest: the highest load of a reader, in multiples of the mean.
        moves: how many connections pools recycled per connection and hour.
        connections: how many there were.
    """

    local: float = 1.0
    busiest: float = 0.0
    moves: float = 0.0
    connections: int = 0


def run(
    clients: tuple[float, ...],
    *,
    lifetime: float | None = None,
    processes: int = 300,
    connections: int = 10,
    readers: int = 1,
    seconds: float = 900.0,
    seed: int = 1,
) -> Outcome:
    """Let processes run for so many seconds of virtual time.

    Args:
        clients: the shares of the processes that are in each zone.
        lifetime: of connections on average, in seconds; None: those of pools, which last until they are recycled.
        processes: how many there are.
        connections: of each.
        readers: in each zone.
        seconds: how long.
        seed: of all that is random.
    """
    world, outcome = World(readers), Outcome(connections=processes * connections)
    rng = random.Random(seed)
    borders = [sum(clients[: position + 1]) / sum(clients) * processes for position in range(3)]
    zones = [
        next(zone for zone, border in zip(ZONES, borders, strict=True) if each < border - 1e-9)
        for each in range(processes)
    ]
    those = [Process(world, zone, seed * processes + number) for number, zone in enumerate(zones)]
    for now in _simulate(those, connections, lifetime, seconds, rng, outcome):
        if now >= SETTLE_SECONDS:
            outcome.busiest = max(outcome.busiest, world.busiest)
            local = sum(each.local() for each in those) / world.connections.total()
            outcome.local = min(outcome.local, local)
    outcome.moves /= outcome.connections * (seconds - SETTLE_SECONDS) / 3600.0
    return outcome


def _simulate(
    those: list[Process], connections: int, lifetime: float | None, seconds: float, rng: random.Random, outcome: Outcome
) -> Iterator[float]:
    """What happens, in order; gives the time once a second."""
    pause = TICK if lifetime is None else lifetime / connections
    events = [(each.starts_at, number) for number, each in enumerate(those)]
    heapify(events)
    shown = 0.0
    while (now := events[0][0]) < seconds:
        if now >= shown + 1.0:
            shown = now
            yield now
        process = those[events[0][1]]
        process.learn(now)
        if len(process.held) < connections:
            process.connect(now)
        elif lifetime is None:
            outcome.moves += process.check_in(now) and now >= SETTLE_SECONDS
        else:
            process.close(int(rng.random() * connections))
            process.connect(now)
        wait = add_jitter(TICK, rng.random()) if lifetime is None else rng.expovariate(1.0 / pause)
        heapreplace(events, (now + wait, events[0][1]))


SCENES: dict[str, dict[str, object]] = {
    "pools": {},
    "pools, two readers per zone": {"readers": 2},
    "connections of 1 s": {"lifetime": 1.0, "processes": 100, "seconds": 480.0},
    "connections of 20 s": {"lifetime": 20.0},
    "connections of 60 s": {"lifetime": 60.0},
    "connections of 600 s": {"lifetime": 600.0, "seconds": 3600.0},
}
BOUNDED: dict[str, dict[str, object]] = {"pools": {"processes": 45, "seconds": 480.0}}
"""What CI has time for; the tests beside this have some more."""


def measure(scenes: dict[str, dict[str, object]], seed: int = 1) -> Iterator[Figure]:
    """The figures of some scenes."""
    for name, scene in scenes.items():
        even, uneven = run(EVEN, seed=seed, **scene), run(UNEVEN, seed=seed, **scene)
        title = f"three zones, {name}"
        note = f"{even.connections} connections"
        yield Figure.at_least(f"{title}: even clients: local", even.local, "", LOCAL, note)
        yield Figure.at_most(f"{title}: clients 60/20/20: busiest reader / mean", uneven.busiest, "x", BUSIEST, note)
        yield Figure.unbounded(f"{title}: clients 60/20/20: local", uneven.local, "")
        if "lifetime" not in scene:
            yield Figure.unbounded(f"{title}: clients 60/20/20: moves per connection", uneven.moves, "/h")


def main() -> int:
    """Print the figures; returns the exit status: 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    return report(list(measure(SCENES, args.seed)), args.json)


if __name__ == "__main__":
    raise SystemExit(main())
