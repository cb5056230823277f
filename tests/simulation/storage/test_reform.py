"""Three of six nodes gone for good: a new membership from the survivors loses nothing that was durable.

The lost nodes may well be alive, and the driver of before still reach them: it must not get another byte durable.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from unittest.mock import patch

import pytest

from aurora_router_cluster.storage.core import quorum
from aurora_router_cluster.storage.core.errors import NodeUnavailable, QuorumUnavailable, Refused
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.recovery import newest_charter, survey
from aurora_router_cluster.storage.membership import reform as reform_module
from aurora_router_cluster.storage.membership.reform import assess, reform
from tests.simulation.storage.loop import run
from tests.simulation.storage.network import Host, Link, Weather
from tests.simulation.storage.schedule import Parts, Schedule, Violation


class Disaster(Schedule):
    """A schedule in the middle of which three nodes are given up."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, Parts(), steps=20)
        self.gone: set[int] = set()

    def links(self, weather):
        return {number: link for number, link in super().links(weather).items() if number not in self.gone}

    def start_host(self, host) -> None:
        if host.number not in self.gone:
            super().start_host(host)

    async def rot_and_scrub(self) -> None:
        """No byte flips here: with three copies gone a fourth one need not be anywhere."""

    async def settle(self) -> None:
        if not self.gone and self.oracle.lives:
            await self._lose_three()
            for _ in range(10):
                await self.step()
        await super().settle()

    async def _lose_three(self) -> None:
        for host in self.hosts:
            if host.node is None:
                self.start_host(host)
        links = self.links(Weather())
        states = [await link.state() for link in links.values()]
        membership = newest_charter(states).membership
        if not membership.settled or any(state.node in membership.joining for state in states):
            return  # a replacement was under way: another disaster
        survivors = tuple(sorted(self.rnd.sample(membership.members, 3)))
        self.gone = set(links) - set(survivors)
        for host in self.hosts:
            if host.number in self.gone and self.rnd.random() < 0.5:
                host.crash()
        zombie = asyncio.ensure_future(self._go_on_writing())
        await self._reform(survivors)
        await zombie

    async def _go_on_writing(self) -> None:
        life = self.oracle.lives[-1]
        for _ in range(10):
            life.driver.feed(*life.writer.next())
            await asyncio.sleep(self.rnd.random() * 0.01)

    async def _reform(self, survivors: tuple[int, ...]) -> None:
        situation = await assess(self.links(Weather()))
        assert set(situation.survivors) == set(survivors)
        assert len(situation.lost) in (3, 4)  # both of a slot, where its replacement is news to the survivors
        for attempt in range(5):
            fresh = [Host(len(self.hosts) + i, self.rnd) for i in range(3)]
            self.hosts += fresh
            weather = Weather(loss=self.rnd.choice((0.0, 0.1)) if attempt < 3 else 0.0)
            links = {host.number: Link(host, weather, self.rnd) for host in self.hosts if host.number not in self.gone}
            for other in self.oracle.lives:
                other.links.update({host.number: Link(host, other.weather, self.rnd) for host in fresh})
            try:
                opened = await reform(links, self.framing, survivors, {host.number: host.node.format for host in fresh})
            except (QuorumUnavailable, Refused, NodeUnavailable):
                self.gone |= {host.number for host in fresh}
                self.counts["failed repairs"] += 1
                continue
            await self._lead(opened, links, weather)
            return
        raise Violation("no repair succeeds with three nodes up")

    async def _lead(self, opened, links, weather) -> None:
        await self.begin(opened, weather, links)
        driver = self.oracle.lives[-1].driver
        weather.loss = 0.0
        for newcomer in opened.charter.membership.joining:
            await driver.change_membership(partial(Membership.confirm_hydrated, new=newcomer))
        self.check_members(driver)
        self.counts["repairs"] += 1


def play_all(seeds: range) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += run(Disaster(seed).play())
    return counts


@pytest.mark.parametrize("first", [0, 20, pytest.param(40, marks=pytest.mark.slow)])
def test_nothing_durable_is_lost_with_three_nodes(first):
    seeds = range(first, first + 20) if first < 40 else range(40, 1000)
    assert play_all(seeds)["repairs"] > len(seeds) // 2


def survey_two(states):
    with patch.object(quorum, "READ_QUORUM", 2):
        return survey(states[:2])


async def no_repair(handles, states, charter):
    return list(states.values())


@pytest.mark.parametrize(
    ("part", "bug", "seeds"),
    [
        pytest.param("survey", survey_two, range(190, 210), id="surveys-two-of-three"),  # one schedule of 300 finds it
        pytest.param("repair", no_repair, range(20), id="fills-nobody"),
    ],
)
def test_planted_bugs_are_found(part, bug, seeds):
    with patch.object(reform_module, part, bug), pytest.raises(AssertionError):
        play_all(seeds)
