"""What a slow start costs a small process, alone at a server that is quick but for a moment."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import pytest

from aurora_router.policy.slow_start import SlowStart

QUICK = 0.005


@dataclass(frozen=True)
class Scenario:
    """A server, and what a process that dials it is promised.

    Attributes:
        name: what happens.
        wanted: how many connections the process wants.
        still: when the server answers no client, as (from, until), in seconds after the failover.
        lost: how many seconds later single dials get through, by number, since a packet of theirs was lost.
        next_within: seconds from the last slow handshake to the next connection, at most.
        all_within: the same to the last connection.
    """

    name: str
    wanted: int
    still: tuple[tuple[float, float], ...] = ()
    lost: tuple[tuple[int, float], ...] = ()
    next_within: float = 0.1
    all_within: float = 0.1

    def end(self, began: float, number: int) -> float:
        """When a dial is answered."""
        answered = began + QUICK + dict(self.lost).get(number, 0.0)
        for start, until in self.still:
            if start <= answered < until:
                answered = until + QUICK
        return answered


SCENARIOS = (
    Scenario("all is well", 20),
    Scenario("a slow moment", 20, still=((0.0, 0.3),), next_within=0.6, all_within=0.7),
    Scenario("the first takes 1 s", 20, still=((0.0, 1.0),), next_within=1.1, all_within=1.3),
    Scenario("the first takes 2 s", 20, still=((0.0, 2.0),), next_within=2.1, all_within=2.3),
    Scenario("the first takes 3 s", 20, still=((0.0, 3.0),), next_within=3.1, all_within=3.3),
    Scenario("the first takes 3 s, of two", 2, still=((0.0, 3.0),), next_within=3.1, all_within=3.1),
    Scenario("a SYN is lost", 20, lost=((0, 1.0),), next_within=1.1, all_within=1.3),
    Scenario("the second one's SYN is lost, the others go on", 20, lost=((1, 1.0),), all_within=0.0),
    Scenario("a SYN is lost twice", 20, lost=((0, 3.0),), next_within=3.1, all_within=3.3),
    Scenario("several at once are slow", 20, still=((0.007, 2.0),), next_within=2.1, all_within=2.3),
    Scenario("slow twice", 20, still=((0.0, 1.0), (1.4, 2.9)), next_within=12.1, all_within=12.3),
)


def arrivals(scenario: Scenario, random: float) -> tuple[float, list[float]]:
    """Dial in turn; return when the last slow handshake ended, and when the connections were there."""
    slow_start, now, begun, slow = SlowStart.begin(0.0, random, QUICK), 0.0, 0, 0.0
    under_way: list[tuple[float, float]] = []
    arrived: list[float] = []
    while len(arrived) < scenario.wanted:
        wait = slow_start.wait(now) if begun < scenario.wanted else None
        if wait is not None and (not under_way or now + wait <= under_way[0][0]):
            now += wait
            slow_start = slow_start.add_dial()
            heappush(under_way, (scenario.end(now, begun), now))
            begun += 1
            continue
        now, began = heappop(under_way)
        slow = now if now - began > 0.25 else slow
        slow_start = slow_start.record_success(now - began, now, random)
        arrived.append(now)
    return slow, arrived


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_a_small_process_pays_little_for_a_hiccup(scenario, random):
    slow, arrived = arrivals(scenario, random)
    assert min((at for at in arrived if at > slow), default=slow) - slow <= scenario.next_within
    assert max(arrived) - slow <= scenario.all_within
