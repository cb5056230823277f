"""A recovery whose best copy has a flipped byte, beside a node that kept what a fenced driver wrote last."""

from __future__ import annotations

import asyncio
import random

import pytest

from aurora_router_cluster.storage.core.errors import QuorumUnavailable
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.driver import Driver
from aurora_router_cluster.storage.recovery import RecoveredVolume, recover

from .framing import TinyFraming, TinyWriter
from .loop import run
from .network import Host, Link, Weather

BASE = 1000


class Volume:
    """Six hosts, and what one driver after the other writes to them."""

    def __init__(self, seed: int, *, striped: bool) -> None:
        self.rnd = random.Random(seed)
        self.framing = TinyFraming(striped=striped)
        self.hosts = [Host(number, self.rnd) for number in range(6)]
        self.weather = Weather()
        self.links = {host.number: Link(host, self.weather, self.rnd) for host in self.hosts}
        self.driver: Driver

    async def format(self) -> None:
        charter = Charter(History((EpochStart(1, BASE),)), Membership.of(range(6)))
        self._begin(RecoveredVolume(1, charter, tuple([await host.node.format(charter) for host in self.hosts])))

    async def recover(self) -> int:
        await self.driver.close()
        opened = await recover(self.links, self.framing)
        self._begin(opened)
        return opened.point

    def _begin(self, opened: RecoveredVolume) -> None:
        self.driver = Driver(self.links, opened, self.framing)
        self.driver.start()

    async def write(self, records: int, *, durable: bool = True) -> bytes:
        """The driver writes; where it is not to become durable, as far as the weather lets it."""
        writer = TinyWriter(self.driver.tracker.received, self.rnd)
        for _ in range(records):
            self.driver.feed(*writer.next())
        await asyncio.sleep(1.0)  # of virtual time
        whole = self.driver._cutter.boundary
        assert not durable or self.driver.durable == whole
        return bytes(writer.log[: whole - writer.start])

    async def read(self, end: int) -> bytes:
        """The log up to `end`, as the driver gets it from the nodes."""
        data = b""
        while BASE + len(data) < end:
            data += await self.driver.read(BASE + len(data), end - BASE - len(data))
        return data


@pytest.mark.parametrize("striped", [False, True], ids=["one group", "striped"])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_damaged_is_read_elsewhere_and_never_from_a_fenced_epoch(seed, striped):
    async def main() -> None:
        volume = Volume(seed, striped=striped)
        await volume.format()
        first = await volume.write(10)
        volume.weather.cut = {0, 1, 2, 3, 4}
        await volume.write(30, durable=False)  # the last node alone has it
        volume.weather.cut = {5}
        assert await volume.recover() == BASE + len(first)
        second = await volume.write(30)
        await volume.driver.close()
        volume.weather.cut = set()
        volume.hosts[0].rot()
        point = await volume.recover()
        assert point == BASE + len(first + second)
        volume.weather.cut = {0}
        assert await volume.read(point) == first + second
        await volume.driver.close()

    run(main())


class Shrinking(Link):
    """A way to a copy of which a scrub finds a piece damaged, after the promise and before it is asked for its log."""

    lost: tuple[int, int] | None = None

    async def spans(self, group, after, branch=0):
        if self.lost is not None:
            self.host.node.replica.segment(group).lose(*self.lost)
        return await super().spans(group, after, branch)


def shrink(volume: Volume, *numbers: int) -> None:
    """Let copies shrink in the next recovery: to what they held before the piece that was written last."""
    for number in numbers:
        segment = volume.hosts[number].node.replica.segment(0)
        volume.links[number] = link = Shrinking(volume.hosts[number], volume.weather, volume.rnd)
        *_, last = segment.after(segment.base)
        link.lost = last.start, last.end


@pytest.mark.case
@pytest.mark.parametrize("seed", range(5))
def test_a_donor_that_shrank_after_its_promise_is_replaced_by_another_one(seed):
    async def main() -> None:
        volume = Volume(seed, striped=False)
        await volume.format()
        log = await volume.write(20)
        shrink(volume, 0, 1)
        assert await volume.recover() == BASE + len(log)
        assert await volume.read(BASE + len(log)) == log
        await volume.driver.close()

    run(main())


@pytest.mark.parametrize("seed", range(5))
def test_where_no_copy_has_what_was_promised_the_recovery_changes_nothing_and_can_be_tried_again(seed):
    async def main() -> None:
        volume = Volume(seed, striped=False)
        await volume.format()
        log = await volume.write(10)
        volume.weather.cut = {1, 2, 3, 4, 5}
        await volume.write(10, durable=False)
        volume.weather.cut = {1, 2}
        shrink(volume, 0)
        epochs = [host.node.replica.metadata.charter.history.epoch for host in volume.hosts]
        with pytest.raises(QuorumUnavailable, match="that nodes \\[0\\] promised"):
            await volume.recover()
        assert [host.node.replica.metadata.charter.history.epoch for host in volume.hosts] == epochs
        assert await volume.recover() == BASE + len(log)
        await volume.driver.close()

    run(main())


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_that_shrinks_while_the_volume_is_repaired_is_no_source(seed):
    async def main() -> None:
        volume = Volume(seed, striped=False)
        await volume.format()
        volume.weather.cut = {4, 5}
        log = await volume.write(20)
        volume.weather.cut = {3}
        damaged: list[int] = []
        for number in (0, 1, 2):
            volume.links[number] = Forgetful(volume.hosts[number], volume.weather, volume.rnd, damaged)
        assert await volume.recover() == BASE + len(log)
        assert await volume.read(BASE + len(log)) == log
        await volume.driver.close()

    run(main())


class Forgetful(Link):
    """A way to a copy that is found damaged if it is the first of which a peer wants something."""

    def __init__(self, host, weather, rnd, damaged) -> None:
        super().__init__(host, weather, rnd)
        self.damaged = damaged

    async def pull(self, epoch, group, after, limit, branch=0):
        if not self.damaged:
            self.damaged.append(self.node)
            segment = self.host.node.replica.segment(group)
            first = next(segment.after(after))
            segment.lose(first.start, first.end)
        return await super().pull(epoch, group, after, limit, branch)
