"""New storage nodes in the places of old ones: one, or a whole zone's, under load; or of all that are lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError, FailoverImpossibleError, RequestError
from aurora_router_cluster.storage.calls import ask
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.reforming import assess, reform
from aurora_router_cluster.storage.replacement import replace_node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router_cluster.storage.core.extents import Framing
    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.storage.fleet import Fleet
    from aurora_router_cluster.storage.opening import Opened
    from aurora_router_cluster.storage.reforming import Situation


async def renew(driver: Driver, fleet: Fleet, old: int) -> int:
    """Put a new, empty node in the place of `old`, dead or alive; returns its number.

    Raises:
        RequestError: there is no such member, or it is being replaced already.
        EngineError: too few nodes, or the newcomer could not be filled; the old one stays a member.
    """
    members = driver.charter.membership.members
    if old not in members:
        raise RequestError(f"node {old} is not a member; members are {', '.join(map(str, sorted(members)))}")
    new = max(fleet) + 1
    newcomer = fleet.make(new, fleet[old].zone)
    try:
        await newcomer.start()
        await newcomer.format(driver.charter)
        await replace_node(driver, old, new)
    except ValueError as error:
        await fleet.forget(new)
        raise RequestError(str(error)) from error
    except StorageError as error:
        if new not in driver.charter.membership.members:
            await fleet.forget(new)
        raise EngineError(f"node {old} could not be replaced: {error}") from error
    await fleet.forget(old)
    return new


async def renew_zone(driver: Driver, fleet: Fleet, zone: str) -> dict[int, int]:
    """Put new nodes in the places of all of a zone's, one after the other; returns old -> new.

    Raises:
        RequestError: there is no such zone.
        EngineError: as `renew`; those replaced before stay replaced.
    """
    members = driver.charter.membership.members
    zones = {node.zone for node in fleet.values()}
    if zone not in zones:
        raise RequestError(f"unknown zone {zone!r}; storage nodes are in {', '.join(sorted(zones))}")
    return {old: await renew(driver, fleet, old) for old in members if fleet[old].zone == zone}


async def survivors(fleet: Fleet) -> Situation:
    """Who would be left and who given up if the membership were formed anew.

    Raises:
        RequestError: a write quorum answers: nothing has to be given up.
        FailoverImpossibleError: fewer than three members are left.
    """
    try:
        return await assess(fleet)
    except ValueError as error:
        raise RequestError(str(error)) from error
    except StorageError as error:
        raise FailoverImpossibleError(str(error)) from error


async def renew_lost(fleet: Fleet, framing: Framing, situation: Situation) -> tuple[Opened, dict[int, int]]:
    """Give the lost nodes up and open the volume with new ones in their slots; see `reforming`.

    Returns:
        The new epoch, and lost -> new.

    Raises:
        FailoverImpossibleError: it did not come to that; the survivors can be asked again.
    """
    numbers = range(max(fleet) + 1, max(fleet) + 1 + len(situation.lost))
    pairs = dict(zip(situation.lost, numbers, strict=True))
    fresh = {new: fleet.make(new, fleet[old].zone) for old, new in pairs.items()}
    try:
        await asyncio.gather(*(node.start() for node in fresh.values()))
        formats = {new: node.format for new, node in fresh.items()}
        opened = await reform(fleet, framing, situation.survivors, formats)
    except StorageError as error:
        await _dismiss_unknown(fleet, situation, fresh)
        raise FailoverImpossibleError(f"the membership could not be formed anew: {error}; try again") from error
    for old in situation.lost:
        await fleet.forget(old)
    return opened, pairs


async def _dismiss_unknown(fleet: Fleet, situation: Situation, fresh: Iterable[int]) -> None:
    """Forget newcomers that no survivor has taken for members; those that one has may be needed from here on."""
    left = [fleet[number] for number in situation.survivors]
    states = await ask(left, lambda handle: handle.state(), lambda _answers: False)
    known = {member for state in states.values() for member in state.charter.membership.members}
    if len(states) == len(left):
        for number in set(fresh) - known:
            await fleet.forget(number)


async def count_for_reads(driver: Driver) -> None:
    """Let newcomers of a membership formed anew count for reads, too: a write quorum holds all that is durable.

    Raises:
        FailoverImpossibleError: too few nodes answer; the membership stays as it is, and reads need all survivors.
    """
    membership = driver.charter.membership
    try:
        for newcomer in membership.unproven:
            membership = membership.hydrated(newcomer)
        await driver.change_membership(membership)
    except StorageError as error:
        raise FailoverImpossibleError(f"the newcomers do not count for reads yet: {error}") from error
