"""Changes of the members, one at a time, through what interrupts them: over the real nodes, driver and recovery."""

from __future__ import annotations

import asyncio

import pytest

from aurora_router_cluster.errors import EngineError, RequestError
from aurora_router_cluster.storage.core.errors import NodeUnavailable

from .loop import run
from .schedule import Parts, Schedule
from .troubles import Member, Nodes


class Calm(Schedule):
    """A volume with some log, on a network that does what the test says."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, Parts(), steps=0, drawn={"concurrent_changes"})
        self.membership_change = self.troubles.membership_change

    async def begin_volume(self) -> None:
        await self.format()
        await self.lead(calm=True)
        await self.write_some()

    async def write_some(self) -> None:
        life = self.oracle.lives[-1]
        for _ in range(20):
            life.driver.feed(*life.writer.next())
        await asyncio.sleep(0.5)

    @property
    def driver(self):
        return self.oracle.lives[-1].driver

    @property
    def members(self) -> set[int]:
        return set(self.driver.charter.membership.members)

    async def end(self) -> None:
        """Nothing is left open, and everything durable is there."""
        assert self.driver.charter.membership.settled
        assert set(Nodes(self)) == self.members
        await self.write_some()
        self.check_members(self.driver)
        await self.settle()


def play(seed: int, change) -> None:
    async def main() -> None:
        schedule = Calm(seed)
        await schedule.begin_volume()
        await change(schedule)
        await schedule.end()

    run(main())


@pytest.mark.case
@pytest.mark.parametrize("seed", range(5))
def test_of_six_changes_at_once_one_is_made_and_the_others_are_refused_with_a_sentence(seed):
    async def change(schedule: Calm) -> None:
        asked = [schedule.membership_change.replace(old) for old in range(6)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, RequestError)]
        assert len(refused) == 5
        assert "storage node 0 is being replaced" in str(refused[0])
        assert schedule.members == {6, 1, 2, 3, 4, 5}

    play(seed, change)


@pytest.mark.case
@pytest.mark.parametrize("seed", range(20))
def test_a_change_goes_on_in_the_epoch_that_interrupts_it(seed):
    async def change(schedule: Calm) -> None:
        replacing = asyncio.ensure_future(schedule.membership_change.replace(2))
        await asyncio.sleep(schedule.rnd.random() * 0.1)
        await schedule.lead(calm=True)
        assert await replacing == 6
        assert schedule.members == {0, 1, 3, 4, 5, 6}

    play(seed, change)


@pytest.mark.parametrize("seed", range(20))
def test_a_change_that_was_broken_off_is_finished(seed):
    async def change(schedule: Calm) -> None:
        await broken_off(schedule)
        if schedule.membership_change.unsettled:
            await schedule.membership_change.settle()
        assert schedule.members in ({0, 1, 2, 3, 4, 5}, {0, 1, 3, 4, 5, 6})

    play(seed, change)


@pytest.mark.parametrize("seed", range(20))
def test_a_change_that_was_broken_off_is_undone_where_its_newcomer_is_gone(seed):
    async def change(schedule: Calm) -> None:
        await broken_off(schedule)
        begun = not schedule.driver.charter.membership.settled
        joining = bool(schedule.driver.charter.membership.joining)
        if len(schedule.hosts) > 6 and schedule.hosts[6].node is not None:
            schedule.hosts[6].crash()
        if schedule.membership_change.unsettled:
            await schedule.membership_change.settle()
        if begun:
            assert schedule.members == ({0, 1, 2, 3, 4, 5} if joining else {0, 1, 3, 4, 5, 6})

    play(seed, change)


async def broken_off(schedule: Calm) -> None:
    replacing = asyncio.ensure_future(schedule.membership_change.replace(2))
    await asyncio.sleep(schedule.rnd.random() * 0.1)
    replacing.cancel()
    await asyncio.wait({replacing})
    await asyncio.sleep(1.0)  # what was proposed comes into force


def test_a_newcomer_is_kept_while_a_revision_that_names_it_may_come_into_force(monkeypatch):
    async def change(schedule: Calm) -> None:
        cut = {1, 2, 3}
        life = schedule.oracle.lives[-1]
        life.weather.cut = cut
        with pytest.raises(EngineError, match="finished or undone"):
            await schedule.membership_change.replace(4)
        assert schedule.driver.unsettled
        assert 6 in set(Nodes(schedule))
        life.weather.cut = set()
        await asyncio.sleep(1.0)
        assert not schedule.driver.charter.membership.settled  # it has come into force, with a newcomer that is there
        await schedule.membership_change.settle()
        assert schedule.members == {0, 1, 2, 3, 5, 6}

    play(1, change)


def test_a_newcomer_that_cannot_run_leaves_nothing_behind(monkeypatch):
    async def start(self) -> None:
        raise NodeUnavailable("no room")

    async def change(schedule: Calm) -> None:
        monkeypatch.setattr(Member, "start", start)
        with pytest.raises(EngineError, match="no room"):
            await schedule.membership_change.replace(4)
        assert schedule.members == set(range(6))
        assert schedule.membership_change.unsettled is False

    play(1, change)
