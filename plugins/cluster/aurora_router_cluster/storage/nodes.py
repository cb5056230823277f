"""The storage nodes of one volume: six to begin with, two in each of three zones, and those that replace them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from functools import partial
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError, RequestError
from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused
from aurora_router_cluster.storage.core.quorum import SLOTS
from aurora_router_cluster.storage.local import LocalNode
from aurora_router_cluster.storage.members import EMPTY, Member
from aurora_router_cluster.storage.scrubbing import ScrubReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from aurora_router_cluster.storage.inventory import Inventory

    Hosted = Callable[[int, Callable[[int], None]], Member | None]

log = logging.getLogger(__name__)

SHORTEST_PAUSE = 0.1
"""Seconds after the first failed try to start a lost node until the next one."""
LONGEST_PAUSE = 10.0
"""The same after many."""


class NodeSet(dict[int, Member]):
    """Number -> node.

    Args:
        directory: of the nodes' directories.
        zones: three availability zones.
        secret: what the nodes of this cluster know each other by.
        up_again: called with the number of a node that can be reached again.
        isolated: give each node a process of its own; else all run in this one.
        sync: whether the nodes' disks are synced.
        hosted: makes nodes that are on other hosts, with zones of their own; None: they are here.
        inventory: where the nodes are written down, to be found again; None: nowhere.
        known: the nodes of a volume that is opened again, see `Inventory.nodes`; None: it is a new one.

    Attributes:
        on_scrubbed: called with the report of each node's scrub.
        wrap: what is put in front of every node made from now on; nothing, unless there are faults.
    """

    def __init__(
        self,
        directory: Path,
        zones: tuple[str, ...],
        secret: str,
        up_again: Callable[[int], None],
        *,
        isolated: bool = False,
        sync: bool = True,
        hosted: Hosted | None = None,
        inventory: Inventory | None = None,
        known: tuple[Mapping[int, str], int] | None = None,
    ) -> None:
        super().__init__()
        self._made = 0 if known is None else known[1]
        self._reviving: dict[int, asyncio.Task[None]] = {}
        self._inventory = inventory
        self._hosted = hosted
        self._directory, self._secret, self._up_again = directory, secret, up_again
        self.isolated, self._sync = isolated, sync
        self.on_scrubbed: list[Callable[[ScrubReport], None]] = []
        self.wrap: Callable[[Member], Member] = lambda node: node
        new = {number: zones[number * len(zones) // SLOTS] for number in range(SLOTS)}
        for number, zone in (new if known is None else known[0]).items():
            self._make(number, zone)

    def next_number(self) -> int:
        """A number that no node of this set has or ever had: an old one may be known for what another node held."""
        self._made += 1
        return self._made - 1

    def make(self, number: int, zone: str) -> Member:
        """Enter a node that does not run yet.

        Raises:
            RequestError: there is no host for it.
        """
        made = self._make(number, zone)
        self.write_down()
        return made

    def write_down(self) -> None:
        """Write down which nodes there are, if that is wanted."""
        if self._inventory is not None:
            self._inventory.write_nodes({number: node.zone for number, node in self.items()}, self._made)

    def _make(self, number: int, zone: str) -> Member:
        directory = self._directory / f"node-{number}"
        self._made = max(self._made, number + 1)
        if self._hosted is not None:
            hosted = self._hosted(number, self._up_again)
            if hosted is None:
                raise RequestError(f"no host is left for a storage node {number}; start the cluster with more")
            self[number] = self.wrap(hosted)
            return self[number]
        if self.isolated:
            from aurora_router_cluster.storage.isolated import IsolatedNode  # noqa: PLC0415 - only where it is used

            node: Member = IsolatedNode(number, zone, directory, self._secret, sync=self._sync, up_again=self._up_again)
        else:
            node = LocalNode(number, zone, directory, sync=self._sync)
        self[number] = self.wrap(node)
        return self[number]

    def get_node(self, number: int) -> Member:
        """The node of a number.

        Raises:
            RequestError: there is none.
        """
        if number not in self:
            raise RequestError(f"there is no storage node {number}; there are {', '.join(map(str, sorted(self)))}")
        return self[number]

    async def start(self) -> None:
        """Bring all up.

        Raises:
            NodeUnavailable: one cannot run.
        """
        results = await asyncio.gather(*(node.start() for node in self.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def start_available(self) -> dict[int, str]:
        """Bring up those that can run; returns number -> what is in the way, of the others."""
        results = await asyncio.gather(*(node.start() for node in self.values()), return_exceptions=True)
        failed: dict[int, str] = {}
        for number, result in zip(self, results, strict=True):
            if isinstance(result, NodeUnavailable):
                log.warning("%s", result)
                failed[number] = str(result)
            elif isinstance(result, BaseException):
                raise result
        return failed

    async def down(self, number: int) -> None:
        """Take one down, as the loss of its machine.

        Raises:
            RequestError: there is none of that number.
        """
        await self.get_node(number).stop()

    async def up(self, number: int) -> None:
        """Bring one up over the files that it has; one that runs and whose disk has failed is opened again.

        Raises:
            RequestError: there is none of that number.
            EngineError: it cannot run, its disk still fails, or it holds nothing because its files are gone.
        """
        node = self.get_node(number)
        try:
            await node.start()
        except NodeUnavailable as error:
            raise EngineError(f"{error}; replace it by a new one: cluster replace-node {number}") from error
        if node.failure is not None and not await node.reopen():
            raise EngineError(
                f"storage node {number} runs, but its disk fails: {node.failure}. It comes back by itself once the "
                f"disk takes what is written (free some room in {self._directory}), or replace it by a new one: "
                f"cluster replace-node {number}"
            )
        with contextlib.suppress(NodeUnavailable, Refused):
            await node.state()
        if node.empty:
            raise EngineError(f"storage node {number} runs, but {EMPTY}: cluster replace-node {number}")
        self._up_again(number)

    def advice(self) -> str:
        """What can be done about nodes that do not answer: an end of the sentence that says so."""
        failed = sorted(node.node for node in self.values() if node.failure is not None)
        down = sorted(node.node for node in self.values() if not node.up)
        ways: list[str] = []
        if failed:
            numbers = ", ".join(map(str, failed))
            ways.append(f"let the disks of {numbers} take writes again (they come back by themselves then)")
        if down or not failed:
            which = f" {', '.join(map(str, down))}" if down else ""
            ways.append(f"bring up a storage node that is down (cluster node-up){':' if which else ''}{which}")
        return ", and ".join(ways)

    def revive(self) -> None:
        """Begin to bring those up again whose process ended without a request; none waits for another."""
        for number, node in self.items():
            if node.lost and number not in self._reviving:
                self._reviving[number] = task = asyncio.get_running_loop().create_task(_revive_node(node))
                task.add_done_callback(partial(self._end_revival, number))

    def _end_revival(self, number: int, _task: asyncio.Task[None]) -> None:
        del self._reviving[number]

    async def reopen_failed(self) -> None:
        """Open those again whose disk failed and takes what is written now."""
        for node in [node for node in self.values() if node.failure is not None]:
            if await node.reopen():
                log.warning("storage node %d works again: its disk takes what is written", node.node)
                self._up_again(node.node)

    async def scrub(self) -> list[ScrubReport]:
        """Check the disks of all nodes that run, and refill what is damaged from their peers.

        A node that cannot be read is left out, with the reason in its report; those after it are read all the same.
        """
        return [await self._scrub(node) for node in list(self.values()) if node.up]

    async def _scrub(self, node: Member) -> ScrubReport:
        try:
            report = await node.scrub(self)
        except (NodeUnavailable, Refused) as error:
            report = ScrubReport(node.node, 0, 0, (), str(error))
        for listener in self.on_scrubbed:
            listener(report)
        return report

    async def look(self) -> None:
        """Refresh what the nodes report about themselves."""
        await asyncio.gather(*(node.look() for node in self.values()))

    async def forget(self, number: int) -> None:
        """Take a node that is no member down for good, and delete its files."""
        node = self.pop(number)
        await node.stop()
        await asyncio.to_thread(shutil.rmtree, node.directory, ignore_errors=True)
        self.write_down()

    async def close(self) -> None:
        """Take all down."""
        reviving = list(self._reviving.values())
        for task in reviving:
            task.cancel()
        await asyncio.gather(*reviving, return_exceptions=True)
        await asyncio.gather(*(node.stop() for node in self.values()))


async def _revive_node(node: Member) -> None:
    """Start a node until it runs, or is not wanted any more; with growing pauses."""
    pause = SHORTEST_PAUSE
    while node.lost:
        log.warning("storage node %d was lost; it is started again", node.node)
        try:
            await node.start()
        except (NodeUnavailable, OSError) as error:
            log.warning("%s; the next try is in %g s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        except Exception:
            log.exception("storage node %d cannot be started", node.node)
            await asyncio.sleep(LONGEST_PAUSE)
