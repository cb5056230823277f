"""The heartbeat: look at every instance, measure lag, and start what has to be done about what is wrong.

It never blames an instance for its own lateness, nor for that of the machine: what was not answered while this process
or the instance's was kept from the processors is not missed (`Instance.sample`), and an instance that gets no log is
judged by how often that was seen, not by the clock alone: it is this process that sends the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from aurora_router_cluster.control.failover import answers, awake
from aurora_router_cluster.control.state import together
from aurora_router_cluster.errors import ClusterError, FailoverImpossibleError
from aurora_router_cluster.postgres.usage import ProcessorMeter

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aurora_router_cluster.control.failover import FailoverProcedure
    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.state import ClusterState

log = logging.getLogger(__name__)

SHORTEST_WAIT = 0.1  # seconds for an answer
HUNG_AFTER = 5  # heartbeats without an answer; a busy machine may well miss one or two
AGAIN = 1.0  # seconds after a failed repair until the next try
DIVERGED_AFTER = 3.0  # seconds without log after which a reader is rebuilt
DIVERGED_LOOKS = 8  # at least, within these seconds: fewer say that this process stood still, and sent no log
DISPUTED_AFTER = 1.0  # seconds that a failover or another change of the cluster has to open the epoch it asked for
JUDGED = frozenset({"available", "unreachable", "stopped"})


class Heartbeat:
    """Watches the instances of `state`.

    Args:
        state: the instances.
        procedure: what acts.
        interval: seconds between two beats.
        auto: act on what is found; else only show it.
    """

    def __init__(self, state: ClusterState, procedure: FailoverProcedure, *, interval: float, auto: bool) -> None:
        self._state = state
        self._procedure = procedure
        self.interval = interval
        self.auto = auto
        self._meter = ProcessorMeter()
        self._pulse: asyncio.Task[None] | None = None
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._disputed_since: float | None = None
        self._lost_since: float | None = None  # monotonic time; None: there is a writer, and it is available

    def start(self) -> None:
        """Begin to beat."""
        self._pulse = asyncio.get_running_loop().create_task(self._beat())

    async def close(self) -> None:
        """Stop, and stop what was started."""
        tasks = [*self._repairs.values(), *([self._pulse] if self._pulse else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def expect(self, name: str | None) -> None:
        """Bring a former writer back now, whether `auto` or not: its demotion was asked for."""
        instance = self._state.instances.get(name or "")
        if instance is not None and not instance.engine.alive and not instance.stopped_by_request:
            self._begin(name or "", self._bring_back(instance))

    async def _beat(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._look()
                self._measure()
                self._judge_all()
                self._state.write_status()
            except Exception:  # of one beat: without the next ones nothing would be replaced or repaired any more
                log.exception("a heartbeat failed")
            await asyncio.sleep(began + self.interval - time.monotonic())

    def _judge_all(self) -> None:
        for instance in list(self._state.instances.values()):
            self._judge(instance)
        if self._state.writer is None and self._may_act() and self._is_loss_detected():
            self._begin("(writer)", self._replace_writer(None))

    async def _look(self) -> None:
        """Ask the writer first: what a reader has replayed is compared with what was written before."""
        writer = self._state.writer
        if writer is not None:
            await self._sample([writer])
            newest = writer.newest
            if newest is not None and writer.missed == 0 and not newest.recovering:
                self._state.clock.observe(newest.at, newest.received)
        readers = self._state.readers
        await self._sample(readers)
        for reader in readers:
            if reader.newest is not None and reader.missed == 0:
                reader.lag = self._state.clock.lag(reader.newest)
        self._note_log_owed()

    def _note_log_owed(self) -> None:
        """Note which readers may have acknowledged commits that no other has.

        One that is down acknowledges nothing more. So once another reader has as much log as the writer had when it was
        down already, nothing is missing without it.
        """
        writer, readers = self._state.writer, self._state.readers
        written = None if writer is None or writer.newest is None or writer.missed else writer.newest.received
        for reader in readers:
            if awake(reader):
                reader.owes_log, reader.beats_down = reader.owes_log or reader.follows, 0
                continue
            reader.beats_down += 1
            others = [one for one in readers if one is not reader and answers(one) and one.newest is not None]
            newest = [one.newest.received for one in others if one.newest is not None and one.newest.recovering]
            if reader.beats_down > 1 and written is not None and any(each >= written for each in newest):
                reader.owes_log = False

    def _measure(self) -> None:
        """Refresh the processor use of all instances, not at every beat."""
        instances = self._state.instances.values()
        for one in instances:
            one.cpu = one.cpu if one.engine.here else one.engine.cpu
        by_pid = {one.pid: one for one in instances if one.engine.here and one.pid is not None}
        for pid, percent in self._meter.measure(list(by_pid), time.monotonic()).items():
            by_pid[pid].cpu = percent

    async def _sample(self, instances: list[Instance]) -> None:
        asked = [one for one in instances if one.engine.alive and _is_judged(one)]
        await together(one.sample(timeout=max(self.interval, SHORTEST_WAIT)) for one in asked)

    def _judge(self, instance: Instance) -> None:
        """Compare what was found with what ought to be."""
        if not _is_judged(instance):
            return
        before = instance.state
        hung = instance.missed >= (1 if before == "unreachable" else HUNG_AFTER)  # an answer ends it
        if not instance.engine.alive:
            instance.state = "stopped"
        elif hung or (before == "unreachable" and self._is_zombie(instance)):
            instance.state = "unreachable"
        elif not self._state.settle(instance) and before == "unreachable":
            instance.state = "restarting"
        if instance.state != before:
            log.info("%s is %s", instance.name, instance.state)
            self._state.publish()
        if self._may_act() and (work := self._remedy(instance)) is not None:
            self._begin(instance.name, work)

    def _may_act(self) -> bool:
        return self.auto and not self._state.lock.locked()

    def _begin(self, name: str, work: Coroutine[object, object, None]) -> None:
        """Start a repair, unless one of that name is under way or failed just now."""
        before = self._repairs.get(name)
        if (before is None or before.done()) and time.monotonic() >= self._not_before.get(name, 0.0):
            self._repairs[name] = asyncio.get_running_loop().create_task(self._run_guarded(name, work))
        else:
            work.close()

    async def _run_guarded(self, name: str, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except ClusterError as error:
            self._not_before[name] = time.monotonic() + AGAIN
            log.warning("%s: %s", name, error)
        except Exception:
            self._not_before[name] = time.monotonic() + AGAIN
            log.exception("%s: a repair failed", name)

    def _is_loss_detected(self) -> bool:
        """Whether the writer has been lost for as long as its loss takes to be detected, at this cluster's pace."""
        writer, now = self._state.writer, time.monotonic()
        if writer is not None and writer.available:
            self._lost_since = None
            return False
        self._lost_since = self._lost_since or now
        return now - self._lost_since >= self._state.pace.detection

    def _remedy(self, instance: Instance) -> Coroutine[object, object, None] | None:
        if instance is self._state.writer:
            lost = self._is_loss_detected()
            if not instance.available:
                return self._replace_writer(instance) if lost else None
            if self._is_disputed():
                return self._begin_epoch(instance)
            return None if self._state.volume.attached else self._reattach(instance)
        if not instance.engine.alive and not instance.stopped_by_request:
            return self._bring_back(instance)
        diverged = self._is_zombie(instance) or (instance.follows and self._is_diverged(instance))
        return self._rebuild(instance) if diverged else None

    def _is_zombie(self, instance: Instance) -> bool:
        """Whether a former writer that hung answers again, and still takes itself for the writer."""
        newest, writer = instance.newest, self._state.writer
        claims = newest is not None and not newest.recovering
        another = writer is not None and writer is not instance
        return claims and another and instance.missed == 0 and instance.engine.alive

    def _is_diverged(self, instance: Instance) -> bool:
        """Whether a running instance has diverged from the cluster: a former writer, or a reader that gets no log.

        A reader whose log has been deleted connects again and again: it seems to stream, and gets nothing. One that
        replays what it received needs no stream: PostgreSQL asks for more log when it has replayed what it has, for
        example after its stream broke. Log that is not durable no reader gets.
        """
        writer, newest = self._state.writer, instance.newest
        if newest is None or writer is None or not writer.available:
            return False
        silent = 0.0 if instance.silent_since is None else newest.at - instance.silent_since
        durable = self._state.volume.durable_lsn()
        has_all = durable is not None and newest.received >= durable
        lacking = 0.0 if has_all else self._state.clock.age(newest.received, newest.at)
        stalled = newest.at - instance.stalled_since
        seen = instance.stalled_looks >= min(DIVERGED_LOOKS, DIVERGED_AFTER / self.interval)
        return not newest.recovering or (seen and min(stalled, max(silent, lacking)) > DIVERGED_AFTER)

    async def _replace_writer(self, writer: Instance | None) -> None:
        async with self._state.lock:
            if self._state.writer is not writer or (writer is not None and writer.available):
                return
            try:
                await self._procedure.failover(None)
            except FailoverImpossibleError:
                if writer is None or writer.engine.frozen or writer.stopped_by_request or self._is_reader_expected():
                    raise
                await self._procedure.restart_instance(writer)  # no reader: it is restarted in its place, as on Aurora

    def _is_reader_expected(self) -> bool:
        """Whether a failover is possible soon, and a writer that restarts in place shows what was not acknowledged."""
        waits = self._state.volume.waits_for_readers
        return waits and any(not reader.stopped_by_request for reader in self._state.readers)

    def _is_disputed(self) -> bool:
        """Whether storage nodes have obeyed for a while an epoch that was never opened: another one ends that.

        They are missing from the present one. If too few are left of those it is over, and no commit succeeds.
        """
        now = time.monotonic()
        if not self._state.volume.disputed:
            self._disputed_since = None
            return False
        self._disputed_since = self._disputed_since or now
        return now - self._disputed_since >= DISPUTED_AFTER

    async def _begin_epoch(self, writer: Instance) -> None:
        """Open another epoch for the writer that there is, so that all storage nodes obey the same one again."""
        async with self._state.lock:
            volume = self._state.volume
            if self._state.writer is writer and writer.available and volume.disputed:
                await volume.check_quorum()
                await volume.recover()
                await volume.attach(writer.where)

    async def _reattach(self, writer: Instance) -> None:
        """Take the writer's log again: the connection that brought it was lost, and its commits wait."""
        async with self._state.lock:
            if self._state.writer is writer and writer.available and not self._state.volume.attached:
                await self._state.volume.attach(writer.where)

    async def _bring_back(self, instance: Instance) -> None:
        async with self._state.lock:
            if self._state.instances.get(instance.name) is instance and not instance.engine.alive:
                await self._procedure.restart_instance(instance)
        await self._state.wait_until_caught_up(instance)

    async def _rebuild(self, instance: Instance) -> None:
        async with self._state.lock:
            if self._state.instances.get(instance.name) is instance and self._is_diverged(instance):
                log.info("%s has diverged and is rebuilt", instance.name)
                instance.engine.kill()
                instance.engine.erase()  # nothing to rewind: it lacks log
                await self._procedure.restart_instance(instance)
        await self._state.wait_until_caught_up(instance)


def _is_judged(instance: Instance) -> bool:
    """Whether the heartbeat judges it: no request is starting or stopping it at present."""
    replays = instance.catch_up_lsn is not None and instance.state != "deleting"
    return instance.state in JUDGED or replays
