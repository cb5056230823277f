"""New storage nodes in the places of old ones: one, or a whole zone's, under load; or of all that are lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import EngineError, FailoverImpossibleError, RequestError
from aurora_router_cluster.storage.core.errors import Fenced, QuorumUnavailable, StorageError
from aurora_router_cluster.storage.membership.reform import assess, reform
from aurora_router_cluster.storage.membership.replace import finish, replace_node, undo
from aurora_router_cluster.storage.quorum_call import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aurora_router_cluster.storage.core.extents import Framing
    from aurora_router_cluster.storage.core.quorum import Membership
    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.storage.membership.reform import Survivors
    from aurora_router_cluster.storage.nodes import NodeSet
    from aurora_router_cluster.storage.recovery import RecoveredVolume

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02


class MembershipChange:
    """Changes of the members of one volume, one at a time.

    A change that is interrupted, by a failover or because it was broken off, is not lost: the nodes keep the membership
    that it has come to, so the next epoch finds it half done. `replace` goes on with the driver of that epoch by
    itself; `settle` finishes or undoes what nothing goes on with. A node that is no member any more is forgotten only
    where that is certain: while no revision is on its way that might make it one.

    Args:
        node_set: the nodes.
        driver: returns the present epoch's.
        framing: returns what knows where records end.
        begin: takes over the epoch that a repair has opened.
        patience: seconds for the hydration of a newcomer, and for the next epoch to begin where one has ended.
    """

    def __init__(
        self,
        node_set: NodeSet,
        driver: Callable[[], Driver],
        *,
        framing: Callable[[], Framing],
        begin: Callable[[RecoveredVolume], None],
        patience: float = 60.0,
    ) -> None:
        self._node_set = node_set
        self._framing, self._begin = framing, begin
        self._patience = patience
        self._driver = driver
        self._under_way = ""

    @property
    def unsettled(self) -> bool:
        """Whether something is left to settle, and nothing is under way that will."""
        driver = self._driver()
        membership = driver.charter.membership
        left = not membership.settled or bool(membership.unproven or self._strangers())
        return left and not self._under_way and not driver.over

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Let nothing else change the members meanwhile; `what` is named in the error of other changes.

        Raises:
            RequestError: another change is under way.
        """
        if self._under_way:
            raise RequestError(f"{self._under_way}; the members change one at a time: wait until that is done")
        self._under_way = what
        try:
            yield
        finally:
            self._under_way = ""

    async def replace(self, old: int) -> int:
        """Put a new, empty node in the place of `old`, dead or alive; returns its number.

        Raises:
            RequestError: there is no such member, or a change is under way.
            EngineError: too few nodes, or the newcomer could not be filled; the old one stays a member.
        """
        with self.alone(f"storage node {old} is being replaced"):
            return await self._replace(old)

    async def replace_zone(self, zone: str) -> dict[int, int]:
        """Put new nodes in the places of all of a zone's, one after the other; returns old -> new.

        Raises:
            RequestError: there is no such zone, or a change is under way.
            EngineError: as `replace`; those replaced before stay replaced.
        """
        zones = {node.zone for node in self._node_set.values()}
        if zone not in zones:
            raise RequestError(f"unknown zone {zone!r}; storage nodes are in {', '.join(sorted(zones))}")
        with self.alone(f"the storage nodes of zone {zone} are being replaced"):
            members = self._driver().charter.membership.members
            return {old: await self._replace(old) for old in members if self._node_set[old].zone == zone}

    async def _replace(self, old: int) -> int:
        driver, node_set = self._driver(), self._node_set
        membership = driver.charter.membership
        if old not in membership.members:
            members = ", ".join(map(str, sorted(membership.members)))
            raise RequestError(f"node {old} is not a member; members are {members}")
        if not membership.settled:
            raise RequestError(
                f"a change of the members was interrupted and is not settled ({_describe_changes(membership)}): the "
                "cluster finishes or undoes it as soon as a write quorum (4 of 6) answers; try again then"
            )
        new = node_set.next_number()
        newcomer = node_set.make(new, node_set[old].zone)
        try:
            await newcomer.start()
            await newcomer.format(driver.charter)
            await self._carry_through(driver, old, new)
        except ValueError as error:
            raise RequestError(str(error)) from error
        except StorageError as error:
            raise EngineError(
                f"node {old} could not be replaced: {error}. What was begun of it is finished or undone by the cluster "
                "as soon as a write quorum (4 of 6) answers"
            ) from error
        finally:
            await self._forget_strangers()
        return new

    async def _carry_through(self, driver: Driver, old: int, new: int) -> None:
        """Replace a node, in the epochs that come meanwhile too."""
        while True:
            members = driver.charter.membership.members
            try:
                if new not in members:
                    await replace_node(driver, old, new, self._patience)
                elif old in members:
                    await finish(driver, new, self._patience)
            except Fenced:
                driver = await self._next_driver(driver)
            else:
                return

    async def _next_driver(self, before: Driver) -> Driver:
        """The driver of the next epoch.

        Raises:
            QuorumUnavailable: there is none yet; `settle` goes on with the change when there is.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + self._patience
        while self._driver() is before:
            if now() > deadline:
                raise QuorumUnavailable(
                    f"epoch {before.epoch} is over and no other has begun; the change is finished or undone then"
                )
            await asyncio.sleep(POLL_SECONDS)
        return self._driver()

    async def settle(self) -> None:
        """Finish a change that was interrupted, or undo it if its newcomer is not there.

        Raises:
            RequestError: another change is under way.
            EngineError: too few nodes; it can be tried again.
        """
        driver, node_set = self._driver(), self._node_set
        membership = driver.charter.membership
        changes = _describe_changes(membership)
        with self.alone(f"a change of the members that was interrupted ({changes}) is being settled"):
            try:
                for old, new in [slot for slot in membership.slots if len(slot) > 1]:
                    if new not in membership.joining or (new in node_set and node_set[new].up):
                        await finish(driver, new, self._patience)
                    else:
                        await undo(driver, old)
                if membership.unproven:
                    await count_for_reads(driver)
            except (StorageError, ValueError) as error:
                raise EngineError(f"the members stay as they are for now ({changes}): {error}") from error
            finally:
                await self._forget_strangers()

    async def repair(self, *, force: bool) -> dict[str, Any]:
        """Form a new membership from three survivors, the other nodes being gone for good; see `reform`.

        The epoch that it opens has no writer: a failover follows.

        Raises:
            RequestError: a write quorum answers, it was not asked for with `force`, or the members change already.
            FailoverImpossibleError: too few nodes are left, or one failed meanwhile.
        """
        situation = await survivors(self._node_set)
        left, lost = (", ".join(map(str, numbers)) for numbers in (situation.survivors, situation.lost))
        if not force:
            raise RequestError(
                f"storage nodes {lost} do not answer, {left} are left: three of six can be read, but not written to. "
                f"To go on, {self._node_set.advice()}. If they are gone for good, repair --force forms a new "
                "membership without them; if one of them is alive elsewhere, there will be two volumes"
            )
        with self.alone(f"a new membership is being formed from storage nodes {left}"):
            log.warning("nodes %s are given up, a new membership is formed from %s", lost, left)
            opened, pairs = await renew_lost(self._node_set, self._framing(), situation)
            self._begin(opened)
            await count_for_reads(self._driver())
        return {"survivors": list(situation.survivors), "replaced": [list(pair) for pair in pairs.items()]}

    def _strangers(self) -> list[int]:
        """Nodes that are no members, and that nothing on its way makes members."""
        driver = self._driver()
        if driver.unsettled or driver.over:
            return []
        return [number for number in self._node_set if number not in driver.charter.membership.members]

    async def _forget_strangers(self) -> None:
        for number in self._strangers():
            await self._node_set.forget(number)


def _describe_changes(membership: Membership) -> str:
    pairs = [f"node {slot[0]} is being replaced by node {slot[1]}" for slot in membership.slots if len(slot) > 1]
    pairs += [f"node {number} does not count for reads yet" for number in membership.unproven]
    return ", ".join(pairs) or "the members are " + ", ".join(map(str, membership.members))


async def survivors(node_set: NodeSet) -> Survivors:
    """The nodes that would be left, and those given up, if a new membership were formed.

    Raises:
        RequestError: a write quorum answers: nothing has to be given up.
        FailoverImpossibleError: fewer than three members are left.
    """
    try:
        return await assess(node_set)
    except ValueError as error:
        raise RequestError(str(error)) from error
    except StorageError as error:
        raise FailoverImpossibleError(str(error)) from error


async def renew_lost(
    node_set: NodeSet, framing: Framing, situation: Survivors
) -> tuple[RecoveredVolume, dict[int, int]]:
    """Give the lost nodes up and open the volume with new ones in their slots; see `reform`.

    Returns:
        The new epoch, and lost -> new.

    Raises:
        FailoverImpossibleError: it did not come to that; the survivors can be asked again.
    """
    pairs = {old: node_set.next_number() for old in situation.lost}
    fresh = {new: node_set.make(new, node_set[old].zone) for old, new in pairs.items()}
    try:
        await asyncio.gather(*(node.start() for node in fresh.values()))
        formats = {new: node.format for new, node in fresh.items()}
        opened = await reform(node_set, framing, situation.survivors, formats)
    except StorageError as error:
        await _dismiss_unknown(node_set, situation, fresh)
        raise FailoverImpossibleError(f"no new membership could be formed: {error}; try again") from error
    for old in situation.lost:
        await node_set.forget(old)
    return opened, pairs


async def _dismiss_unknown(node_set: NodeSet, situation: Survivors, fresh: Iterable[int]) -> None:
    """Forget newcomers that no survivor has taken for members; those that one has may be needed from here on."""
    left = [node_set[number] for number in situation.survivors]
    states = await ask(left, lambda handle: handle.state(), lambda _answers: False)
    known = {member for state in states.values() for member in state.charter.membership.members}
    if len(states) == len(left):
        for number in set(fresh) - known:
            await node_set.forget(number)


async def count_for_reads(driver: Driver) -> None:
    """Let newcomers of a re-formed membership count for reads, too: a write quorum holds all that is durable.

    Raises:
        FailoverImpossibleError: too few nodes answer; the membership stays as it is, and reads need all survivors.
    """
    try:
        await driver.change_membership(_mark_proven)
    except StorageError as error:
        raise FailoverImpossibleError(f"the newcomers do not count for reads yet: {error}") from error


def _mark_proven(membership: Membership) -> Membership:
    for newcomer in membership.unproven:
        membership = membership.confirm_hydrated(newcomer)
    return membership
