"""Replacing a storage node under load: a membership change in steps, each of which can be undone.

1. the newcomer becomes a second candidate of the old node's slot: from now on writes need 4/6 with either of them;
2. it is *hydrated* from its peers, while the log goes on;
3. when it holds all that is durable, and that meets the write quorum of every combination, it counts for reads;
4. the old node is dismissed.

Nothing is thrown away before the newcomer is complete, and until step 4 `undo` leads back to the old node.
(SIGMOD 2018 paper on Aurora, section 4.1; ``core.quorum`` has the sets.)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import Fenced, QuorumUnavailable

if TYPE_CHECKING:
    from aurora_router_cluster.storage.core.quorum import Membership
    from aurora_router_cluster.storage.driver import Driver

POLL_SECONDS = 0.02


async def replace_node(driver: Driver, old: int, new: int, timeout: float = 60.0) -> None:
    """Let `new`, a formatted and empty node that the driver has a handle of, take the place of `old`.

    Args:
        driver: of the current epoch.
        old: a member, dead or alive.
        new: the newcomer.
        timeout: seconds without progress of the hydration; then the change is undone.

    Raises:
        ValueError: another replacement is under way, `old` is not a member in rest, or `new` is one already.
        Fenced: a later epoch has taken over; it finds the change half done and can finish or undo it.
        QuorumUnavailable: too few nodes, or the newcomer could not be hydrated in time.
    """
    await driver.change_membership(lambda membership: _alone(membership).replacing(old, new))
    await finish(driver, new, timeout)


def _alone(membership: Membership) -> Membership:
    """The membership, if nothing is replaced in it."""
    for slot in membership.slots:
        if len(slot) > 1:
            raise ValueError(f"node {slot[0]} is being replaced by node {slot[1]}; one change of the members at a time")
    return membership


async def finish(driver: Driver, new: int, timeout: float = 60.0) -> None:
    """Go on with a replacement that was begun, perhaps by the driver of an earlier epoch; undo it if it takes too long.

    Raises:
        ValueError: no replacement by `new` is under way.
        Fenced, QuorumUnavailable: as `replace_node`.
    """
    if new in driver.charter.membership.joining:
        if not await _is_hydrated(driver, new, timeout):
            old = driver.charter.membership.rival(new)
            await undo(driver, old)
            raise QuorumUnavailable(
                f"node {new} got no more log for {timeout:g} s, and is not hydrated; node {old} stays"
            )
        await driver.change_membership(lambda membership: membership.confirm_hydrated(new))
    await driver.change_membership(lambda membership: membership.settling(new))


async def undo(driver: Driver, old: int) -> None:
    """Dismiss the newcomer in the slot of `old`, whatever step the replacement was at.

    Raises:
        ValueError: no replacement of `old` is under way.
        Fenced, QuorumUnavailable: as `replace_node`.
    """
    await driver.change_membership(lambda membership: membership.settling(old))


async def _is_hydrated(driver: Driver, new: int, timeout: float) -> bool:
    """Wait until the newcomer holds all that was durable when it joined, and the branches that are kept.

    False: it made no progress for `timeout` seconds.
    """
    now = asyncio.get_running_loop().time
    deadline, most = now() + timeout, -1
    goal = driver.tracker.complete()
    while True:
        kept, amount = await driver.progress_of_kept(new)
        if kept and driver.tracker.holds(new, goal):
            return True
        amount += sum(max(0, driver.tracker.scl(new, group)) for group in goal)
        if amount > most:
            deadline, most = now() + timeout, amount
        if driver.over or new in driver.tracker.refusals:
            raise Fenced(f"epoch {driver.epoch} is over; node {new} is not hydrated yet")
        if now() > deadline:
            return False
        driver.node_up(new)
        await asyncio.sleep(POLL_SECONDS)
