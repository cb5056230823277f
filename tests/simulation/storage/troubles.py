"""What the dimensions of a schedule bring: several things at a time, failing disks, slow starts, three nodes left.

What is begun here goes on beside the rest of the schedule. A violation that shows there is raised by the next step.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any, cast

from aurora_router_cluster.errors import ClusterError
from aurora_router_cluster.storage.core.errors import NodeUnavailable, QuorumUnavailable, Refused, StorageError
from aurora_router_cluster.storage.membership.change import MembershipChange

from .network import Link, Weather

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.storage.nodes import NodeSet

    from .network import Host
    from .schedule import Life, Schedule

MOST_BESIDE = 3
SHARE = 0.35
"""Of the steps bring a trouble, where the schedule has any."""


def _begin(_opened: object) -> None:
    raise AssertionError("three nodes are given up by `lose_three` alone")


class Troubles:
    """The troubles of one schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._rnd = schedule.rnd
        self._beside: set[asyncio.Task[None]] = set()
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._failures: list[BaseException] = []
        self.membership_change = MembershipChange(
            cast("NodeSet", Nodes(schedule)), self._driver, framing=lambda: schedule.framing, begin=_begin, patience=1.0
        )
        self._choices: list[Callable[[], Awaitable[None]]] = []
        drawn = schedule.drawn
        if "failing_disks" in drawn:
            self._choices += [self.fail_a_disk, self.fail_a_disk, self.mend_a_disk]
        if "scrubs_beside" in drawn:
            self._choices += [self.beside(schedule.rot_and_scrub), self.beside(self.scrub), self.beside(self.read)]
            self._choices += [self.damage_a_donor]
        if "concurrent_recoveries" in drawn:
            self._choices += [self.beside(schedule.lead), self.beside(schedule.lead)]
            self._choices += [self.beside(schedule.give_up_leading)]
        if "concurrent_changes" in drawn:
            self._choices += [self.beside(self.renew), self.beside(self.renew), self.break_off(self.renew)]
            self._choices += [self.beside(self.settle), self.beside(schedule.collect_garbage)]
            self._choices += [self.beside(self.collect_late)]
        if "three_left" in drawn:
            self._choices += [self.lose_three]

    async def come(self) -> bool:
        """Maybe bring a trouble; True: that was this step."""
        if self._failures:
            raise self._failures[0]
        if not self._choices or not self._schedule.oracle.lives or self._rnd.random() > SHARE:
            return False
        await self._rnd.choice(self._choices)()
        return True

    async def end(self) -> None:
        """What goes on beside ends; disks work again."""
        for host in self._schedule.hosts:
            host.disk.failure = None
        for _round in range(3000):
            if not self._beside and not self._starting:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"these never end: {[task.get_name() for task in self._beside]}")
        if self._failures:
            raise self._failures[0]
        for host in self._schedule.hosts:
            if host.is_absent() and host.node is not None:
                host.crash()  # its disk failed; it is started again

    # -- beside

    def beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Awaitable[None]]:
        """A step that begins something and does not wait for it."""

        async def begin() -> None:
            if len(self._beside) < MOST_BESIDE:
                self._begin(work)

        return begin

    def break_off(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Awaitable[None]]:
        """A step that begins something and cancels it after a while."""

        async def begin() -> None:
            if len(self._beside) < MOST_BESIDE:
                task = self._begin(work)
                asyncio.get_running_loop().call_later(self._rnd.random() * self._rnd.choice((0.02, 0.2)), task.cancel)

        return begin

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work())
        task.set_name(work.__name__)
        self._beside.add(task)
        task.add_done_callback(self._ended)
        self._schedule.counts[f"beside: {work.__name__}"] += 1
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    def _driver(self) -> Driver:
        return self._schedule.oracle.lives[-1].driver

    def _life(self) -> Life | None:
        life = self._schedule.oracle.lives[-1]
        return life if life.ready else None

    # -- disks

    async def fail_a_disk(self) -> None:
        """One disk takes no more writes: it is full, or reports errors."""
        schedule = self._schedule
        sound = [host for host in schedule.hosts if not host.is_absent() and not host.dismissed]
        if len(sound) > 3:
            host = self._rnd.choice(sound)
            host.disk.failure = OSError(self._rnd.choice((errno.ENOSPC, errno.EIO)), "the disk fails")
            schedule.counts["failing disks"] += 1

    async def mend_a_disk(self) -> None:
        """There is room again: the node is opened again over what it has."""
        failing = [host for host in self._schedule.hosts if host.is_absent() and host.node is not None]
        if failing:
            self.bring_back(self._rnd.choice(failing))

    def bring_back(self, host: Host) -> None:
        """A node that is absent comes back, whatever it was that kept it."""
        host.disk.failure = None
        if host.node is not None:
            host.crash()
        self._schedule.start_host(host)

    # -- starts

    def start_slowly(self, host: Host) -> None:
        """Start a node, which takes a while, and may fail: then it is started once more."""
        if host.number not in self._starting:
            task = asyncio.get_running_loop().create_task(self._start(host))
            self._starting[host.number] = task
            task.add_done_callback(lambda _: self._starting.pop(host.number))

    async def _start(self, host: Host) -> None:
        while True:
            await asyncio.sleep(self._rnd.random() * self._rnd.choice((0.01, 0.1, 0.4)))
            if host.dismissed or host.node is not None:
                return
            self._schedule.started(host)
            if self._rnd.random() < 0.6:
                return
            await asyncio.sleep(self._rnd.random() * 0.01)
            self._schedule.counts["killed while starting"] += 1
            if host.node is not None:
                host.crash()

    # -- scrubs and reads

    async def damage_a_donor(self) -> None:
        """While a recovery is under way a scrub finds a flipped byte, at a node whose copy goes farthest."""
        schedule = self._schedule
        up = [host for host in schedule.hosts if host.node is not None]
        if not up or len(self._beside) >= MOST_BESIDE or _any_wounded(schedule):
            return
        self._begin(schedule.lead)
        await asyncio.sleep(self._rnd.random() * 0.04)
        host = max((host for host in up if host.node is not None), key=_reach, default=None)
        if host is not None and not _any_wounded(schedule):
            host.rot()
            await host.scrub(schedule.links(schedule.weather()), schedule.oracle.peak)

    async def scrub(self) -> None:
        """One node reads its disk again."""
        host = self._rnd.choice([host for host in self._schedule.hosts if not host.dismissed])
        await host.scrub(self._schedule.links(self._schedule.weather()), self._schedule.oracle.peak)

    async def read(self) -> None:
        """A reader gets some of the durable log: the bytes that were ever durable, and no others."""
        life, oracle = self._life(), self._schedule.oracle
        if life is None:
            return
        start = self._rnd.randint(oracle.floor, max(oracle.floor, life.driver.durable))
        try:
            data = await life.driver.read(start, 40)
        except QuorumUnavailable:
            self._schedule.counts["failed reads"] += 1
        else:
            self._schedule.counts["reads"] += 1
            oracle.learn(start, data)

    # -- changes of the members

    async def renew(self) -> None:
        """`cluster replace-node`, of any node that is a member."""
        if self._schedule.oracle.lives[-1].ready:
            old = self._rnd.choice(self._driver().charter.membership.members)
            await self._change(lambda: self.membership_change.replace(old))

    async def settle(self) -> None:
        """What upkeep does."""
        if self.membership_change.unsettled:
            await self._change(self.membership_change.settle)

    async def _change(self, change: Callable[[], Awaitable[Any]]) -> None:
        schedule = self._schedule
        try:
            await change()
            schedule.counts["membership changes"] += 1
        except ClusterError:
            schedule.counts["failed membership changes"] += 1
        schedule.check_members(self._driver())

    async def collect_late(self) -> None:
        """A driver whose epoch may be over wants to collect garbage."""
        life = self._rnd.choice(self._schedule.oracle.lives[-2:])
        if life.ready:
            floor = min(life.driver.durable, self._schedule.oracle.peak)
            self._schedule.oracle.floor = max(self._schedule.oracle.floor, floor)
            try:
                await life.driver.collect(floor)
            except StorageError:
                self._schedule.counts["failed collections"] += 1

    # -- three nodes left

    async def lose_three(self) -> None:
        """Three members are lost; a recovery is tried, in vain; what is durable can be read all the same."""
        schedule, life = self._schedule, self._life()
        if life is None or not self._is_whole(life):
            return
        members = [schedule.hosts[number] for number in life.driver.charter.membership.members]
        lost = self._rnd.sample(members, 3)
        down_before = self._rnd.random() < 0.5
        if down_before:
            _crash(lost)
        links = schedule.links(Weather())
        recovering = asyncio.ensure_future(schedule.parts.recover(links, schedule.framing))
        await asyncio.sleep(self._rnd.random() * 0.02)
        _crash(lost)
        await asyncio.wait({recovering})
        schedule.counts["three left"] += 1
        error = recovering.exception()
        if error is not None and not isinstance(error, (QuorumUnavailable, Refused, NodeUnavailable)):
            raise error
        await self._read_all(life)
        promised = max(host.highest_promise() for host in members if host not in lost)
        if down_before and promised > life.driver.epoch:
            raise AssertionError(f"epoch {promised} is promised, though three nodes were down already")
        for host in lost:
            schedule.start_host(host)
        if error is None:
            await schedule.begin(recovering.result(), Weather(), links)

    def _is_whole(self, life: Life) -> bool:
        """Whether nothing is under way, and all six members are there and undamaged."""
        schedule, membership = self._schedule, life.driver.charter.membership
        if self._beside or self._starting or schedule.is_superseded(life.driver.epoch) or not membership.settled:
            return False
        absent = any(schedule.hosts[number].is_absent() for number in membership.members)
        return not absent and not _any_wounded(schedule)

    async def _read_all(self, life: Life) -> None:
        oracle, weather = self._schedule.oracle, life.weather
        weather.calm = True
        at, end = max(oracle.floor, life.driver.charter.floor), life.driver.durable
        while at < end:
            try:
                data = await life.driver.read(at, end - at)
            except QuorumUnavailable as error:
                raise AssertionError(
                    f"with three nodes left the log at {at} of {end} cannot be read: {error}"
                ) from error
            oracle.learn(at, data)
            at += len(data)
        weather.calm = False


def _reach(host: Host) -> tuple[int, int]:
    """How far a copy goes; of those that go equally far the first is the most likely donor."""
    return max((end for _, end in host.spans()), default=0), -host.number


def _crash(hosts: list[Host]) -> None:
    for host in hosts:
        if host.node is not None:
            host.crash()


def _any_wounded(schedule: Schedule) -> bool:
    return any(host.wounded() for host in schedule.hosts if not host.dismissed)


class Nodes:
    """The nodes as `storage.node_set.NodeSet` has them: as far as `MembershipChange` needs it."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def __iter__(self) -> Any:
        return iter([host.number for host in self._schedule.hosts if not host.dismissed])

    def __contains__(self, number: int) -> bool:
        return number in set(self)

    def __getitem__(self, number: int) -> Member:
        return Member(self._schedule.hosts[number], Weather(), self._schedule.rnd)

    def values(self) -> list[Member]:
        return [self[number] for number in self]

    def next_number(self) -> int:
        return len(self._schedule.hosts)

    def make(self, number: int, _zone: str) -> Member:
        self._schedule.make_host()
        return self[number]

    async def forget(self, number: int) -> None:
        self._schedule.erase(number)
        self._schedule.counts["dismissed nodes"] += 1


class Member(Link):
    """A node as `storage.members.Member` has it."""

    zone = "anywhere"

    @property
    def up(self) -> bool:
        return self.host.node is not None

    async def start(self) -> None:
        if self.host.node is None:
            self.host.start()

    async def format(self, charter: Any) -> Any:
        return await self._ask(lambda node: node.format(charter))
