"""Garbage that a few nodes have removed when their epoch ends, while the next epoch does not know of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from aurora_router_cluster.storage.branching import branch_off
from aurora_router_cluster.storage.healing import catch_up
from aurora_router_cluster.storage.recovery import recover

from .loop import run
from .network import Host, Link
from .test_damaged_donor import BASE, Volume

AHEAD = (0, 1)
"""The nodes that have removed more than the others."""


async def interrupt_a_collection(volume: Volume) -> int:
    """All nodes learn that the log so far will not be read again, two remove it, and the driver ends.

    Returns:
        The end of what these two have removed.
    """
    await volume.format()
    await volume.write(30)
    driver, floor = volume.driver, volume.driver.durable
    placements = driver._cutter.placements()
    await volume.write(10)
    await driver.amend(floor=floor, placements=placements)
    await driver.close()
    after = replace(driver.charter, revision=driver.charter.revision + 1, collected=floor)
    for number in AHEAD:
        await volume.links[number].adopt(driver.epoch, after)
    volume.weather.cut = set(AHEAD)
    return floor


def collected(volume: Volume) -> list[int]:
    return [host.node.replica.metadata.charter.collected for host in volume.hosts if host.node is not None]


@pytest.mark.parametrize("striped", [False, True], ids=["one group", "striped"])
@pytest.mark.parametrize("seed", range(5))
def test_the_next_epoch_finishes_it_and_the_nodes_agree_again(seed, striped):
    async def main() -> None:
        volume = Volume(seed, striped=striped)
        floor = await interrupt_a_collection(volume)
        await volume.recover()
        assert volume.driver.charter.collected < volume.driver.charter.floor == floor
        volume.weather.cut = set()
        await volume.write(10)
        assert collected(volume) == [floor] * 6
        await volume.driver.close()

    run(main())


@pytest.mark.parametrize("striped", [False, True], ids=["one group", "striped"])
@pytest.mark.parametrize("seed", range(10))
def test_a_volume_opens_again_and_a_node_without_log_is_filled(seed, striped):
    """Nodes that have removed more come back: one copy is empty, and is filled by those that can begin at its start."""

    async def main() -> None:
        volume = Volume(seed, striped=striped)
        floor = await interrupt_a_collection(volume)
        opened = await recover(volume.links, volume.framing)
        volume.weather.cut = {2}
        for link in (volume.links[number] for number in AHEAD):
            await link.promise(opened.epoch)
            await link.adopt(opened.epoch, opened.charter)
        volume.hosts[5] = host = Host(5, volume.rnd)
        volume.links[5] = Link(host, volume.weather, volume.rnd)
        state = await host.node.format(opened.charter)
        states = [await volume.links[number].state() for number in (*AHEAD, 3)]
        assert [state.base for state in states] == [floor, floor, BASE]
        volume.weather.cut = {2}
        state = await catch_up(volume.links[5], state, volume.links, states)
        assert state.scls == states[-1].scls
        again = await recover(volume.links, volume.framing)
        assert again.point == opened.point
        assert again.charter.collected == floor

    run(main())


@pytest.mark.parametrize("striped", [False, True], ids=["one group", "striped"])
@pytest.mark.parametrize("seed", range(10))
def test_a_volume_can_be_set_back(seed, striped):
    """The nodes that have removed more miss the recovery, and are there when the branch is opened."""

    async def main() -> None:
        volume = Volume(seed, striped=striped)
        floor = await interrupt_a_collection(volume)
        opened = await recover(volume.links, volume.framing)
        volume.weather.cut = set()
        branched = await branch_off(volume.links, opened, floor, None, 0.0)
        assert branched.point == branched.charter.collected == floor
        await asyncio.sleep(1.0)
        assert set(collected(volume)) == {floor}

    run(main())
