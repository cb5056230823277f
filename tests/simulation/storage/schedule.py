"""One seeded schedule over the real node, driver and recovery code, watched by an oracle.

What the oracle knows is only what was promised to the outside: every VDL that any driver ever reported makes the bytes
below it part of the one true log. From then on they may neither change nor vanish, whatever crashes.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.storage.core.errors import (
    CorruptLog,
    NodeUnavailable,
    QuorumUnavailable,
    Refused,
    StorageError,
)
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.driver import Driver
from aurora_router_cluster.storage.membership.replace import finish, replace_node, undo
from aurora_router_cluster.storage.node import StorageNode
from aurora_router_cluster.storage.recovery import recover

from .dimensions import draw
from .framing import TinyFraming, TinyScanner, TinyWriter
from .loop import run
from .network import Host, Link, Weather, missing_copies
from .troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Collection

    from aurora_router_cluster.storage.recovery import RecoveredVolume

BASE = 1000


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class Parts:
    """The code under test; mutants replace parts of it."""

    node: type[StorageNode] = StorageNode
    driver: type[Driver] = Driver
    recover: Any = recover


@dataclass
class Life:
    """One driver with its writer, as the oracle sees it."""

    driver: Driver
    writer: TinyWriter
    weather: Weather
    checked: int
    start: int
    links: dict[int, Any]
    killed: bool = False
    ready: bool = False

    @property
    def sent(self) -> int:
        """Up to where the driver has handed out the log; with several groups it holds back half a record."""
        tracker = self.driver.tracker
        return tracker.handed


@dataclass
class Oracle:
    """The one true log, and whether any answer contradicts it."""

    hosts: list[Host] = field(default_factory=list)
    truth: bytearray = field(default_factory=bytearray)
    lives: list[Life] = field(default_factory=list)
    scanner: TinyScanner = field(default_factory=lambda: TinyScanner(BASE))
    scanned: int = 0
    floor: int = BASE
    opened: int = BASE
    """Where an epoch began: as durable as anything reported, though its bytes may not be known yet."""

    @property
    def peak(self) -> int:
        return BASE + len(self.truth)

    def advanced(self, life: Life) -> None:
        """A driver reports a VDL."""
        vdl, driver = life.driver.durable, life.driver
        for other in self.lives:
            if other.driver.epoch > driver.epoch and vdl > other.start:
                raise Violation(
                    f"epoch {driver.epoch} reports {vdl} after epoch {other.driver.epoch} began at {other.start}"
                )
        begin = life.writer.start
        start = max(life.checked, self.floor)
        missing = missing_copies(self.hosts, driver.tracker.membership, start, vdl)
        self.learn(life.checked, bytes(life.writer.log[life.checked - begin : vdl - begin]))
        life.checked = vdl
        if missing is not None:
            raise Violation(f"VDL {vdl}: {missing[0]} is only on {missing[1]}")
        if vdl == self.peak and vdl != self.boundary():
            raise Violation(f"VDL {vdl} is no record boundary")

    def boundary(self) -> int:
        """The end of the last whole record of the truth."""
        self.scanner.feed(bytes(self.truth[self.scanned :]))
        self.scanned = len(self.truth)
        return self.scanner.boundary

    def learn(self, start: int, data: bytes) -> None:
        """Record that these bytes were reported durable."""
        known = bytes(self.truth[start - BASE : start - BASE + len(data)])
        if known != data[: len(known)]:
            raise Violation(f"bytes at {start} were {known!r} and are {data[: len(known)]!r}")
        if start > self.peak:
            raise Violation(f"a gap: the log is known to {self.peak}, now comes {start}")
        self.truth += data[len(known) :]


class Schedule:
    """The actors of one schedule."""

    def __init__(self, seed: int, parts: Parts, steps: int, drawn: Collection[str] = ()) -> None:
        self.rnd = random.Random(seed)
        self.drawn = drawn
        self.parts, self.steps = parts, steps
        self.framing = TinyFraming(striped=self.rnd.random() < 0.4)
        self.hosts = [Host(i, self.rnd, parts.node) for i in range(6)]
        for host in self.hosts:
            host.disk.reorders = "reordered_writes" in self.drawn
        self.oracle = Oracle(self.hosts)
        self.counts: Counter[str] = Counter()
        self.networks: list[tuple[Weather, dict[int, Any]]] = []
        self.troubles = Troubles(self)

    def links(self, weather: Weather) -> dict[int, Any]:
        """Ways to all nodes, also to those that are made later."""
        found = {host.number: Link(host, weather, self.rnd) for host in self.hosts if not host.dismissed}
        self.networks.append((weather, found))
        return found

    def weather(self, *arguments: Any) -> Weather:
        """The network of a new client."""
        made = Weather(*arguments)
        if "late_messages" in self.drawn:
            made.late = 0.05
        if "slow_network" in self.drawn:
            made.delay, made.impatient = self.rnd.choice((0.002, 0.05, 0.15)), True
        return made

    def make_host(self) -> Host:
        """A new node on an empty disk."""
        host = Host(len(self.hosts), self.rnd, self.parts.node)
        host.disk.reorders = "reordered_writes" in self.drawn
        self.hosts.append(host)
        for weather, links in self.networks:
            links[host.number] = Link(host, weather, self.rnd)
        return host

    def erase(self, number: int) -> None:
        """A node is no member any more, and will never be one."""
        for _weather, links in self.networks:
            links.pop(number, None)
        self.hosts[number].dismiss()

    async def format(self) -> None:
        """Six nodes are members of a new volume."""
        charter = Charter(History((EpochStart(1, BASE),)), Membership.of(range(6)))
        for host in self.hosts:
            assert host.node is not None
            await host.node.format(charter)

    async def play(self) -> Counter[str]:
        await self.format()
        await self.lead()
        for _step in range(self.steps):
            await self.step()
            if self.rnd.random() < 0.6:
                await asyncio.sleep(self.rnd.random() * self.rnd.choice((0.002, 0.01, 0.1)))
        await self.settle()
        return self.counts

    async def step(self) -> None:
        """One thing happens; the numbers are shares of a thousand."""
        if await self.troubles.come():
            return
        x = self.rnd.randrange(1000)
        for share, happen in (
            (590, self.write), (80, self.crash_or_restart), (120, self.change_weather), (60, self.lead),
            (80, self.give_up_leading), (20, self.kill_driver), (15, self.rot_and_scrub),
            (20, self.replace_a_node), (7, self.collect_garbage), (8, self.wake_a_node),
        ):  # fmt: skip
            x -= share
            if x < 0:
                if self.oracle.lives or happen == self.lead:
                    await happen()
                return

    async def write(self) -> None:
        """The latest writer goes on, or one that does not know that it was replaced."""
        lives = [life for life in self.oracle.lives[-2:] if life.ready]
        if not lives:
            return
        life = self.rnd.choice(lives)
        for _ in range(self.rnd.randint(1, 4)):
            life.driver.feed(*life.writer.next())
            self.counts["appends"] += 1

    async def crash_or_restart(self) -> None:
        down = [host for host in self.hosts if host.node is None and not host.dismissed]
        if down and (len(down) > 2 or self.rnd.random() < 0.6):
            self.start_host(self.rnd.choice(down))
        elif up := [host for host in self.hosts if host.node]:
            host = self.rnd.choice(up)
            host.crash()
            self.counts["crashes"] += 1
            if self.rnd.random() < 0.5:
                self.start_host(host)

    def start_host(self, host: Host) -> None:
        if "slow_starts" in self.drawn:
            self.troubles.start_slowly(host)
        else:
            self.started(host)

    def started(self, host: Host) -> None:
        """A node starts over its disk."""
        host.start()
        for life in self.oracle.lives[-1:]:
            life.driver.node_up(host.number)

    async def change_weather(self) -> None:
        for life in self.oracle.lives[-2:]:
            share = self.rnd.choice((0.0, 0.2, 0.4, 1.0))
            life.weather.cut = {i for i in range(len(self.hosts)) if self.rnd.random() < share}
            life.weather.loss = self.rnd.choice((0.0, 0.0, 0.1, 0.4))

    async def lead(self, *, calm: bool = False) -> None:
        """Recover the volume and become its driver; a failure leaves it to the next."""
        rnd = self.rnd
        weather = self.weather({i for i in range(len(self.hosts)) if rnd.random() < 0.12}, rnd.choice((0.0, 0.0, 0.05)))
        if calm:
            weather = Weather()
        links = self.links(weather)
        try:
            opened = await self.parts.recover(links, self.framing)
        except (QuorumUnavailable, Refused, NodeUnavailable):
            self.counts["failed recoveries"] += 1
            return
        self.counts["recoveries"] += 1
        await self.begin(opened, weather, links)

    async def begin(self, opened: RecoveredVolume, weather: Weather, links: dict[int, Any]) -> None:
        """An epoch is open: it has all that was durable before, and everything of it can be read."""
        epoch, point, oracle = opened.epoch, opened.point, self.oracle
        if any(life.driver.epoch > epoch for life in oracle.lives):
            self.counts["superseded recoveries"] += 1
            return  # another recovery was faster to finish, and has fenced this one
        if point < max(oracle.peak, oracle.opened):
            raise Violation(f"epoch {epoch} begins at {point}: {max(oracle.peak, oracle.opened)} was durable")
        oracle.opened = point
        driver = self.parts.driver(links, opened, self.framing)
        life = Life(driver, TinyWriter(point, self.rnd), weather, point, point, links)
        oracle.lives.append(life)
        driver.on_durable.append(lambda: oracle.advanced(life))
        driver.start()
        self._check_copies(epoch, point, driver.charter.membership)
        start = max(oracle.floor, driver.charter.floor)
        data = await self._read_all(life, start, point)
        oracle.learn(start, data)
        if start + len(data) < point:
            oracle.lives.remove(life)  # it was fenced before anything was written
            await driver.close()
            return
        life.ready = True
        if oracle.peak == point != oracle.boundary():
            raise Violation(f"epoch {epoch} begins at {point}, in the middle of a record")

    def _check_copies(self, epoch: int, point: int, membership: Membership) -> None:
        """When a volume opens, four disks hold everything, whether their machines run or not."""
        missing = missing_copies(self.hosts, membership, self.oracle.floor, point, epoch)
        if missing is not None and not self.is_superseded(epoch):
            raise Violation(f"epoch {epoch} is open at {point}: {missing[0]} is only on {missing[1]}")

    def is_superseded(self, epoch: int) -> bool:
        """Whether some node has promised a later epoch: then the copies may be changing."""
        return any(host.highest_promise() > epoch for host in self.hosts)

    async def _read_all(self, life: Life, begin: int, point: int) -> bytes:
        """All that is below the recovery point can be read from the nodes."""
        life.weather.calm = True
        data = b""
        for attempt in itertools.count():
            if begin + len(data) >= point:
                break
            down = [host for host in self.hosts if host.is_absent()]
            try:
                data += await life.driver.read(begin + len(data), point - begin - len(data))
            except QuorumUnavailable:
                if life is not self.oracle.lives[-1] or self._fenced(life):
                    return data
                absent = {*down, *(host for host in self.hosts if host.is_absent())}
                if len(absent) <= 2 or attempt > 1000:
                    raise Violation(
                        f"the log at {begin + len(data)} cannot be read, with {len(absent)} nodes absent"
                    ) from None
                self.troubles.bring_back(min(absent, key=lambda host: host.number))
                if self.drawn:
                    await asyncio.sleep(0.05)
        life.weather.calm = False
        return data

    def _fenced(self, life: Life) -> bool:
        promised = [host.node.replica.promised for host in self.hosts if host.node]
        return sum(epoch > life.driver.epoch for epoch in promised) >= 1

    async def give_up_leading(self) -> None:
        """A recovery begins and dies on the way."""
        weather = self.weather(
            {i for i in range(len(self.hosts)) if self.rnd.random() < 0.2}, 0.05, self.rnd.choice((0.0, 0.7))
        )
        task = asyncio.ensure_future(self.parts.recover(self.links(weather), self.framing))
        await asyncio.sleep(self.rnd.random() * self.rnd.choice((0.01, 0.02, 0.04, 0.3)))
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and isinstance(task.exception(), CorruptLog | Violation):
            raise task.exception()  # type: ignore[misc]
        self.counts["abandoned recoveries"] += 1

    async def rot_and_scrub(self) -> None:
        """A byte flips on one disk (never on two at a time: the other copies are what heals it); a scrub follows."""
        damaged = [host for host in self.hosts if host.wounded()]
        host = damaged[0] if damaged else self.rnd.choice([host for host in self.hosts if not host.dismissed])
        if not damaged:
            host.rot()
            self.counts["flipped bytes"] += 1
        if self.rnd.random() < 0.5:
            await host.scrub(self.links(Weather()), self.oracle.peak)

    async def replace_a_node(self) -> None:
        """Begin a replacement, or go on with one that an earlier driver left half done, or undo it."""
        if "concurrent_changes" in self.drawn:
            await self.troubles.renew()
            return
        driver = self.oracle.lives[-1].driver
        membership = driver.charter.membership
        try:
            if membership.settled:
                await self._begin_replacement(self.oracle.lives[-1], self.rnd.choice(membership.members))
            else:
                old, new = next(slot for slot in membership.slots if len(slot) > 1)
                await (finish(driver, new, 1.0) if self.rnd.random() < 0.7 else undo(driver, old))
            self.counts["membership changes"] += 1
            self.check_members(driver)
        except (StorageError, ValueError):
            self.counts["failed membership changes"] += 1

    def check_members(self, driver: Driver) -> None:
        """After each step all that is durable meets the write quorum of the membership in force."""
        if self.oracle.lives[-1].driver is not driver or self.is_superseded(driver.epoch):
            return
        membership = driver.charter.membership
        missing = missing_copies(self.hosts, membership, self.oracle.floor, driver.durable)
        if missing is not None:
            raise Violation(f"after a step of a replacement {missing[0]} is only on {missing[1]} of {membership.slots}")

    async def _begin_replacement(self, life: Life, old: int) -> None:
        newcomer = self.make_host()
        assert newcomer.node is not None
        await newcomer.node.format(life.driver.charter)
        await replace_node(life.driver, old, newcomer.number, 1.0)

    async def collect_garbage(self) -> None:
        """Forget the log below some position that was durable."""
        if not self.oracle.lives[-1].ready:
            return
        driver = self.oracle.lives[-1].driver
        floor = driver.durable
        await asyncio.sleep(self.rnd.random() * 0.1)
        self.oracle.floor = max(self.oracle.floor, floor)  # it may come into force, whatever the answer is
        try:
            await driver.collect(floor)
            self.counts["collections"] += 1
        except StorageError:
            self.counts["failed collections"] += 1

    async def wake_a_node(self) -> None:
        """The driver hears that a node is up."""
        self.oracle.lives[-1].driver.node_up(self.rnd.randrange(len(self.hosts)))

    async def kill_driver(self) -> None:
        life = self.oracle.lives[-1]
        life.weather.cut = set(range(len(self.hosts)))
        life.killed = True
        await life.driver.close()

    async def settle(self) -> None:
        """With all healed, a new epoch opens, its log becomes durable, and all six copies are equal."""
        await self.troubles.end()
        for host in self.hosts:
            if host.node is None:
                self.started(host)
        for life in self.oracle.lives:
            life.weather.clear_up()
        if self.oracle.lives:
            await self._wait_durable(self.oracle.lives[-1])
        for _attempt in range(8):
            before = len(self.oracle.lives)
            await self.lead(calm=True)
            if len(self.oracle.lives) > before:
                break
        else:
            raise Violation("no recovery succeeds with all nodes up")
        life = self.oracle.lives[-1]
        life.weather.cut, life.weather.loss = set(), 0.0
        await self._mend_all()
        for _ in range(5):
            life.driver.feed(*life.writer.next())
        await self._wait_equal(life)

    async def _mend_all(self) -> None:
        """With all up and in one epoch, scrubs find and refill everything."""
        for _attempt in range(20):
            members = self.oracle.lives[-1].driver.charter.membership.members
            damaged = [host for host in self.hosts if host.disk.damaged and host.number in members]
            for host in damaged:
                await host.scrub(self.links(Weather()), self.oracle.peak)
            if not damaged:
                return
            await asyncio.sleep(0.1)
        raise Violation(f"damage stays: {[(host.number, host.disk.damaged) for host in self.hosts]}")

    async def _wait_durable(self, life: Life) -> None:
        """Healing alone, without a recovery, makes everything durable that was received."""
        for _ in range(60):
            if life.killed or self._fenced(life) or life.driver.tracker.vcl == life.sent:
                return
            await asyncio.sleep(0.05)
        raise Violation(f"healed, but {life.driver.tracker.received} never becomes durable: {life.driver.tracker.vcl}")

    async def _wait_equal(self, life: Life) -> None:
        members = [self.hosts[member] for member in life.driver.charter.membership.members]
        for _ in range(80):
            floor = max(self.oracle.floor, life.driver.charter.floor)
            scls = [_scls(host, floor) for host in members if host.node]
            current = [host.node.replica.admits(life.driver.epoch) for host in members if host.node]
            received = life.driver.tracker.received
            whole = life.driver.tracker.vcl == life.sent and all(scl == scls[0] for scl in scls)
            if all(current) and whole and max(scls[0].values(), default=life.sent) == life.sent:
                break
            await asyncio.sleep(0.05)
        else:
            raise Violation(f"healed, but not whole: {scls} of {received}, in the epoch: {current}")
        for host in members:
            assert host.node is not None
            truth = bytes(self.oracle.truth[floor - BASE :])
            if host.node.read(0, floor, len(truth)) != truth:
                raise Violation(f"node {host.number} holds other bytes than were durable")


def _scls(host: Host, floor: int) -> dict[int, int]:
    """The SCLs of the groups that have log above what is never read again: a newcomer may begin there."""
    assert host.node is not None
    segments = host.node.replica.segments
    return {group: segment.scl for group, segment in segments.items() if segment.scl > max(segment.base, floor)}


def play(seed: int, parts: Parts | None = None, steps: int = 40, drawn: Collection[str] | None = None) -> Counter[str]:
    """Play the schedule of `seed`, with the dimensions that it draws, or with those given.

    Raises:
        Violation, AssertionError, CorruptLog: an invariant does not hold.
    """
    return run(Schedule(seed, parts or Parts(), steps, draw(seed) if drawn is None else drawn).play())
