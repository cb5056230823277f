"""New storage nodes in the places of old ones: one, or a whole zone's, while the log goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError, RequestError
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.replacement import replace_node

if TYPE_CHECKING:
    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.storage.fleet import Fleet


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
