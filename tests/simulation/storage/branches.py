"""Setting a volume back and forth, over the real nodes, driver and recovery: seeded schedules against a model.

The model knows the bytes of every branch. After each switch the whole log is read back, and every branch that is kept
is as well; hosts crash, restart and stay away meanwhile, two at a time at most.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

from aurora_router_cluster.storage.branching import branch_off
from aurora_router_cluster.storage.core.errors import NodeUnavailable, QuorumUnavailable, Refused
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.driver import Driver
from aurora_router_cluster.storage.membership.replace import finish, replace_node
from aurora_router_cluster.storage.recovery import RecoveredVolume, recover

from .framing import TinyFraming, TinyScanner, TinyWriter
from .loop import run
from .network import Host, Link, Weather

BASE = 1000


@dataclass
class Model:
    """What one branch holds: its bytes from `BASE` on."""

    log: bytes

    def boundaries(self, lowest: int) -> list[int]:
        found: list[int] = [lowest]
        TinyScanner(BASE, lambda _start, end, _record: found.append(end)).feed(self.log)
        return [end for end in found if end >= lowest]


class Play:
    """One schedule.

    Args:
        seed: decides everything.
        members_change: nodes are also replaced, and miss that the volume goes to another branch.
    """

    def __init__(self, seed: int, *, members_change: bool = False) -> None:
        self.members_change = members_change
        self.rnd = random.Random(seed)
        self.framing = TinyFraming(striped=self.rnd.random() < 0.5)
        self.hosts = [Host(number, self.rnd) for number in range(6)]
        self.links = {host.number: Link(host, Weather(), self.rnd) for host in self.hosts}
        self.branches: dict[int, Model] = {1: Model(b"")}
        self.floor = BASE
        self.driver: Driver

    @property
    def line(self) -> int:
        return self.driver.charter.line.number

    async def play(self, steps: int) -> None:
        charter = Charter(History((EpochStart(1, BASE),)), Membership.of(range(6)))
        states = tuple([await host.node.format(charter) for host in self.hosts])
        self.begin(RecoveredVolume(1, charter, states))
        choices = [
            self.write, self.write, self.write, self.crash, self.restart, self.restart, self.fail_over,
            self.back, self.back, self.forth, self.collect, self.let_go,
        ]  # fmt: skip
        if self.members_change:
            choices += [self.replace_a_node, self.replace_a_node, self.miss_a_switch, self.miss_a_switch]
        for _step in range(steps):
            await self.rnd.choice(choices)()
        for host in self.hosts:
            await self.up(host)
        await self.check()
        await self.driver.close()

    def begin(self, opened: RecoveredVolume) -> None:
        self.driver = Driver(self.links, opened, self.framing)
        self.driver.start()

    async def write(self) -> None:
        writer = TinyWriter(self.driver.tracker.received, self.rnd)
        end = writer.start
        while len(writer.log) < self.rnd.randrange(5, 80) or self.driver._cutter.boundary < end:
            start, data = writer.next()
            self.driver.feed(start, data)
            end = start + len(data)
        await self.settled(end)
        self.branches[self.line].log += bytes(writer.log)

    async def settled(self, end: int) -> None:
        for _round in range(3000):
            if self.driver.durable >= end:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.driver.durable} never reaches {end}: {asyncio.get_running_loop().errors}")

    async def crash(self) -> None:
        if len(self.down) < 2:
            self.rnd.choice([host for host in self.hosts if host.node is not None]).crash()

    @property
    def down(self) -> list[Host]:
        return [host for host in self.hosts if host.node is None and not host.dismissed]

    async def restart(self) -> None:
        await self.up(self.rnd.choice(self.hosts))

    async def up(self, host: Host) -> None:
        if host.node is None and not host.dismissed:
            host.start()
            self.driver.node_up(host.number)
            await asyncio.sleep(0.05)

    async def replace_a_node(self) -> None:
        """A new node takes the place of one that is there, or is not; that one's disk is gone then."""
        old = self.rnd.choice(self.driver.charter.membership.members)
        newcomer = Host(len(self.hosts), self.rnd)
        self.hosts.append(newcomer)
        self.links[newcomer.number] = Link(newcomer, Weather(), self.rnd)
        await newcomer.node.format(self.driver.charter)
        await persist(lambda: self.go_on_replacing(old, newcomer.number))
        del self.links[old]
        self.hosts[old].dismiss()
        await self.check()

    async def go_on_replacing(self, old: int, new: int) -> None:
        """Begin a replacement, or carry through what of it did not reach a quorum: a node may be down, or be behind."""
        if self.driver.unsettled:
            await self.driver.amend()
        membership = self.driver.charter.membership
        if new not in membership.members:
            await replace_node(self.driver, old, new)
        elif not membership.settled:
            await finish(self.driver, new)

    async def miss_a_switch(self) -> None:
        """A node is away while the volume goes to another branch, and comes back in a later epoch of that one."""
        if len(self.down) == 2:
            return
        if not self.driver.charter.kept:
            await self.back()
        host = self.rnd.choice([host for host in self.hosts if host.node is not None])
        host.crash()
        await self.rnd.choice([self.back, self.forth, self.forth])()
        await self.write()
        await self.fail_over()
        await self.up(host)
        await self.write()
        await self.check()

    async def leave(self) -> RecoveredVolume:
        """End the present epoch as a control plane does, and recover."""
        await self.driver.close()
        opened = await recover(self.links, self.framing)
        assert opened.point == BASE + len(self.branches[opened.charter.line.number].log)
        return opened

    async def fail_over(self) -> None:
        self.begin(await self.leave())
        await self.check()

    async def back(self) -> None:
        opened = await self.leave()
        model = self.branches[opened.charter.line.number]
        point = self.rnd.choice(model.boundaries(self.floor))
        opened = await branch_off(self.links, opened, point, None, 0.0)
        self.branches[opened.charter.line.number] = Model(model.log[: point - BASE])
        self.begin(opened)
        await self.check()

    async def forth(self) -> None:
        kept = self.driver.charter.kept
        if not kept:
            return
        opened = await self.leave()
        source = self.rnd.choice(kept)
        model = self.branches[source.line.number]
        point = self.rnd.choice(model.boundaries(max(self.floor, source.line.start)))
        opened = await branch_off(self.links, opened, point, source, 0.0)
        self.branches[opened.charter.line.number] = Model(model.log[: point - BASE])
        self.begin(opened)
        await self.check()

    async def collect(self) -> None:
        ends = [self.driver.durable, *(branch.line.start or self.floor for branch in self.driver.charter.kept)]
        ends += [branch.end for branch in self.driver.charter.kept]
        boundaries = self.branches[self.line].boundaries(self.floor)
        shared = [b for b in boundaries if b <= min(ends) and self.same_everywhere(b)]
        if shared:
            self.floor = max(self.floor, self.rnd.choice(shared))
            await persist(lambda: self.driver.collect(self.floor))
            await self.check()

    def same_everywhere(self, lsn: int) -> bool:
        mine = self.branches[self.line].log[: lsn - BASE]
        kept = [self.branches[branch.line.number].log for branch in self.driver.charter.kept]
        return all(log[: lsn - BASE] == mine for log in kept)

    async def let_go(self) -> None:
        """A branch leaves the retention window."""
        kept = self.driver.charter.kept
        if kept and self.rnd.random() < 0.5:
            await persist(lambda: self.driver.amend(kept=kept[1:]))

    async def check(self) -> None:
        model = self.branches[self.line].log
        assert self.driver.durable == BASE + len(model)
        assert await self.whole(0, BASE + len(model)) == model[self.floor - BASE :]
        for branch in self.driver.charter.kept:
            log = self.branches[branch.line.number].log
            assert branch.end == BASE + len(log)
            assert await self.whole(branch.line.number, branch.end) == log[self.floor - BASE :]

    async def whole(self, branch: int, end: int) -> bytes:
        """All of a branch, from whichever nodes have it."""
        log = b""
        while self.floor + len(log) < end:
            at = self.floor + len(log)
            for link in self.links.values():
                if link.host.node is None:
                    continue
                try:
                    data = await link.read(0 if branch else self.driver.epoch, at, end - at, branch)
                except (NodeUnavailable, Refused):
                    continue  # it is behind; another has it
                if data:
                    break
            else:
                raise AssertionError(f"no node has branch {branch} at {at} of {end}")
            log += data
        return log


async def persist(amend) -> None:
    """A revision that some nodes took already, on the driver's second try, is asked for again."""
    for _round in range(50):
        try:
            await amend()
        except QuorumUnavailable:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the charter could never be amended")


def play(seed: int) -> Counter[str]:
    """Play the schedule of a seed in which nodes are replaced, and miss switches."""
    run(Play(seed, members_change=True).play(40))
    return Counter({"schedules of branches": 1})
