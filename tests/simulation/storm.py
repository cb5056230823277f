"""A storm of reconnects: thousands of processes want all of their connections back from one new writer.

The clients follow `aurora_router.policy.slow_start`, the policy that `connect` follows; each of them has also lost the
answer to a COMMIT, and its first dial is urgent. The server takes one connection after the other: a handshake costs it
``1 / rate`` seconds, one whose client has given up a quarter of that. Its listen queue is bounded; a dial beyond it is
sent again by the client's kernel after 1 s and 3 s, as TCP does. Run ``python -m tests.simulation.storm --json FILE``
for the figures, with and without the spreading.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path

from aurora_router.policy.backoff import full_jitter
from aurora_router.policy.slow_start import USUAL_PATIENCE, SlowStart

TIMEOUT = 5.0
"""``aurora_connect_timeout`` of the default profile, in seconds."""
BACKLOG = 4096
"""Linux's ``net.core.somaxconn``."""
RESENT = (0.0, 1.0, 3.0)
"""When a client's kernel sends its SYN, in seconds after the dial."""
GIVEN_UP = 0.25
"""What a connection whose client has gone costs the server, as a share of a handshake."""
LIMIT = 600.0
"""When a run is given up, in virtual seconds."""
HOPELESS = 60.0
"""The same for the run without spreading, which would never end."""
USUAL = 0.005
"""A handshake when all is well, in seconds, as the processes know it from before."""


@dataclass
class Server:
    """Takes connections one by one, in order."""

    rate: float
    free_at: float = 0.0
    starts: deque[float] = field(default_factory=deque)

    def take(self, at: float, deadline: float) -> float | None:
        """When a SYN that arrives `at` has its connection; None: it was dropped, or the client had gone by then."""
        while self.starts and self.starts[0] <= at:
            self.starts.popleft()
        if len(self.starts) >= BACKLOG:
            return None
        start = max(self.free_at, at)
        in_time = start + 1.0 / self.rate <= deadline
        self.free_at = start + (1.0 if in_time else GIVEN_UP) / self.rate
        self.starts.append(start)
        return self.free_at if in_time else float("inf")


@dataclass
class Process:
    """One client process."""

    slow_start: SlowStart
    is_urgent: bool = True
    """Whether it still asks for the outcome of a commit."""
    began: float = 0.0
    """When the connect that waits longest began."""
    chance: float = 0.0
    """Its random number, of [0, 1)."""
    have: int = 0
    under_way: int = 0
    attempts: int = 0
    first_at: float | None = None
    timer: float = -1.0


class Storm:
    """One run.

    Args:
        processes: how many.
        connections: how many each of them wants.
        rate: connections per second that the server can take.
        spread: whether they follow the slow start; else each dials all at once, and again with full jitter up to 1 s.
        seed: of the randomness.
    """

    def __init__(self, processes: int, connections: int, rate: float, *, spread: bool, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.wanted = connections
        self.rate = rate
        self.spread = spread
        self.server = Server(rate)
        self.dials: Counter[int] = Counter()
        self.back_at = 0.0
        self.processes = [
            Process(SlowStart.begin(0.0, self.rng.random(), USUAL), chance=self.rng.random()) for _ in range(processes)
        ]
        self._events: list[tuple[float, int, str, Process, float, int]] = []
        self._sequence = 0

    def run(self, limit: float = LIMIT) -> dict[str, float]:
        """Until all clients have all, or `limit` seconds of virtual time; returns the figures."""
        for process in self.processes:
            self._at(process.slow_start.until, "try", process)
        while self._events:
            now, _, kind, process, begun, resent = heappop(self._events)
            if now > limit:
                break
            getattr(self, "_" + kind)(now, process, begun, resent)
        return self._figures(limit)

    def _figures(self, limit: float) -> dict[str, float]:
        firsts = [limit if each.first_at is None else each.first_at for each in self.processes]
        missing = sum(self.wanted - each.have for each in self.processes)
        ideal = len(self.processes) * self.wanted / self.rate
        later = [count for second, count in self.dials.items() if second >= 1]
        return {
            "all back, s": limit if missing else self.back_at,
            "all back / ideal": (limit if missing else self.back_at) / ideal,
            "longest wait for a first connection, s": max(firsts),
            "median wait for a first connection, s": sorted(firsts)[len(firsts) // 2],
            "dials in the busiest second after the first / rate": max(later, default=0) / self.rate,
            "dials after the first second / connections": sum(later) / (len(self.processes) * self.wanted),
            "connections still missing": missing,
        }

    def _at(self, when: float, kind: str, process: Process, begun: float = 0.0, resent: int = 0) -> None:
        self._sequence += 1
        heappush(self._events, (when, self._sequence, kind, process, begun, resent))

    # ------------------------------------------------------------ what happens

    def _try(self, now: float, process: Process, _: float, __: int) -> None:
        """Begin what may begin."""
        while process.have + process.under_way < self.wanted:
            if self.spread:
                wait = process.slow_start.wait(now)
                if wait is None:
                    return
                begins = min(now + wait, self._release(process))
                if begins > now:
                    if not now < process.timer <= begins:
                        process.timer = begins
                        self._at(begins, "try", process)
                    return
                process.is_urgent, process.began, process.chance = False, now, self.rng.random()
                process.slow_start = process.slow_start.add_dial()
            process.under_way += 1
            self.dials[int(now)] += 1
            self._syn(now, process, now, 0)

    def _release(self, process: Process) -> float:
        """When no pause holds back a process's next dial any more."""
        return process.slow_start.releases_at(
            process.began, USUAL_PATIENCE, process.chance, is_urgent=process.is_urgent
        )

    def _syn(self, now: float, process: Process, begun: float, resent: int) -> None:
        done = self.server.take(now, begun + TIMEOUT)
        if done is None and resent + 1 < len(RESENT):
            self._at(begun + RESENT[resent + 1], "syn", process, begun, resent + 1)
        elif done is None or done == float("inf"):
            self._at(begun + TIMEOUT, "timeout", process, begun)
        else:
            self._at(done, "success", process, begun)

    def _success(self, now: float, process: Process, begun: float, _: int) -> None:
        process.under_way -= 1
        process.have += 1
        process.first_at = process.first_at if process.first_at is not None else now
        process.slow_start = process.slow_start.record_success(now - begun, now, self.rng.random())
        self.back_at = now
        self._try(now, process, 0.0, 0)

    def _timeout(self, now: float, process: Process, begun: float, _: int) -> None:
        process.under_way -= 1
        process.attempts += 1
        process.slow_start = process.slow_start.record_failure(now - begun, now, self.rng.random())
        pause = 0.0 if self.spread else full_jitter(process.attempts, self.rng.random(), base=0.05, cap=1.0)
        self._at(now + pause, "try", process)


BOUNDS = {
    "all back / ideal": 1.25,
    "longest wait for a first connection, s": 30.0,
    "dials in the busiest second after the first / rate": 2.0,
}


def main() -> int:
    """Print the figures; 1: a bound is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--processes", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    figures: dict[str, dict[str, object]] = {}
    for spread in (True, False):
        storm = Storm(args.processes, args.connections, args.rate, spread=spread, seed=args.seed)
        found = storm.run(LIMIT if spread else HOPELESS)
        for name, value in found.items():
            bound = BOUNDS.get(name) if spread else None
            unit = "s" if name.endswith(", s") else "ratio" if "/" in name else "count"
            key = f"storm, {'spread' if spread else f'not spread, stopped at {HOPELESS:g} s'}: {name}"
            figures[key] = {"value": value, "unit": unit, "bound": bound, "ok": bound is None or value <= bound}
            print(f"{key:<100} {value:>10.2f}  {'' if bound is None else f'<= {bound:g}'}")
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2))
    return 0 if all(each["ok"] for each in figures.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
