"""Three of six nodes gone for good: a new membership from the survivors loses nothing that was durable.

The lost nodes may well be alive, and the driver of before still reach them: it must not get another byte durable.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from aurora_router_cluster.storage.core.errors import NodeUnavailable, QuorumUnavailable, Refused
from aurora_router_cluster.storage.core.recovery import newest_charter
from aurora_router_cluster.storage.reforming import assess, reform
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
        assert len(situation.lost) == 3
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
        if opened.point < self.oracle.peak:
            raise Violation(f"epoch {opened.epoch} begins at {opened.point}: {self.oracle.peak} was durable")
        driver = self.parts.driver(links, opened, self.framing)
        await self._begin(driver, opened.point, weather, links)
        weather.loss = 0.0
        for newcomer in opened.charter.membership.joining:
            await driver.change_membership(driver.charter.membership.hydrated(newcomer))
        self._check_members(driver)
        self.counts["repairs"] += 1


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_nothing_durable_is_lost_with_three_nodes(first):
    counts: Counter[str] = Counter()
    for seed in range(first, first + 40):
        counts += run(Disaster(seed).play())
    assert counts["repairs"] > 20
