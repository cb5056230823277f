"""Failover: how a reader becomes the writer, and how instances that went down come back.

Invariants:

* The writer changes only in `promote`, after the former one was stopped, killed, or fenced by the volume (or is
  frozen by our own `freeze`, and is ended before it wakes).
* A data directory that belonged to a writer is seeded before it follows the log; it is known by the absence of
  ``standby.signal``, which PostgreSQL deletes on promotion and `Engine.configure` writes for a reader.
* All methods want the cluster state's lock to be held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from aurora_router_cluster.control.state import together
from aurora_router_cluster.control.status import Failover
from aurora_router_cluster.errors import ClusterError, EngineError, FailoverImpossibleError, StartingUpError
from aurora_router_cluster.postgres import sysv

if TYPE_CHECKING:
    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.state import ClusterState
    from aurora_router_cluster.postgres.endpoints import RecoveryPoint

log = logging.getLogger(__name__)

FRESH, STILL = 5.0, 0.2
"""Seconds since its start in which a reader may still find log in its own files; seconds without more end that."""
REPLAY = 30.0
"""Seconds that a candidate has to replay its log to the end, in a failover."""


class Phases:
    """Stopwatch with named laps, in seconds."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._since = time.monotonic()

    def end(self, name: str) -> None:
        """The phase `name` ends now; the next one begins."""
        now = time.monotonic()
        self.times[name] = self.times.get(name, 0.0) + now - self._since
        self._since = now


class FailoverProcedure:
    """Changes of role for the instances of `state`."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    async def failover(self, target: str | None) -> Failover:
        """Make a reader the writer; the former writer is left down, frozen, or running behind the volume's fence.

        Args:
            target: name of the reader; None: the best by tier, then by log received.

        Raises:
            FailoverImpossibleError: no reader (or not `target`) can be promoted; a writer that worked still does.
        """
        state, phases = self._state, Phases()
        candidate = await self._candidate(target)
        with state.failing_over_to(candidate):
            return await self._replace_writer(candidate, target, phases)

    async def _replace_writer(self, candidate: Instance, target: str | None, phases: Phases) -> Failover:
        state = self._state
        former = state.writer
        if former is not None and awake(former) and former.state != "unreachable":
            await former.sample(timeout=1.0)  # asked now: a writer that works must not be ended for one late answer
        planned = former is not None and answers(former)
        if former is not None and planned:
            await state.volume.check_quorum()
            former.state = "restarting"
            await former.engine.stop()
            phases.end("stop")
        elif former is not None and not state.volume.fences and not former.engine.frozen:
            former.engine.kill()  # nothing else keeps a hung writer from waking up and acknowledging commits
            phases.end("fence")
        restarting: list[Instance] = []
        try:
            if state.volume.waits_for_readers:
                candidate = await self._most_complete(candidate, chosen=target is not None)
            await self._take_time(candidate, restarting, phases)
            await self.promote(candidate, await state.volume.recover(), phases)
        except ClusterError:
            if planned and former is state.writer and former is not None:
                await self.restart_instance(former)
            raise
        finally:
            await self._restart_readers(restarting)
        if former is not None:
            former.lag = None
            former.state = "unreachable" if former.engine.alive else "stopped"
        log.info("%s is the writer, epoch %d, %s", candidate.name, state.epoch, phases.times)
        return Failover(former.name if former else None, candidate.name, state.epoch, planned, phases.times)

    async def _take_time(self, candidate: Instance, restarting: list[Instance], phases: Phases) -> None:
        """Let a failover take as long as the pace says, and end the readers if they restart in it.

        Args:
            candidate: the reader that is promoted; it is back as a reader when this returns.
            restarting: the other readers that were ended are added to it.
            phases: records how long it took.

        Raises:
            EngineError: the candidate did not come back.
        """
        state, pace = self._state, self._state.pace
        if not pace.promotion and not pace.restart_readers:
            return
        until = time.monotonic() + pace.promotion
        if pace.restart_readers:
            leave = {reader.name for reader in state.readers if reader is candidate or reader.state == "deleting"}
            others = [reader for reader in state.readers if reader.name not in leave and awake(reader)]
            for reader in (*others, candidate):
                reader.state = "restarting"
            state.publish()
            restarting += others
            await together(reader.engine.stop() for reader in (*others, candidate))
            await self.restart_instance(candidate)
        await asyncio.sleep(until - time.monotonic())
        phases.end("pace")

    async def _restart_readers(self, readers: list[Instance]) -> None:
        """Start readers that a failover has ended; one that does not come back is left to the heartbeat."""
        results = await asyncio.gather(*map(self.restart_instance, readers), return_exceptions=True)
        for reader, result in zip(readers, results, strict=True):
            if isinstance(result, ClusterError):
                log.warning("%s did not come back: %s", reader.name, result)
            elif isinstance(result, BaseException):
                raise result

    async def _candidate(self, target: str | None) -> Instance:
        """The reader to promote: lowest tier, then the most log; asked now, not remembered.

        One that has not yet replayed up to its `catch_up_lsn` comes last.
        """
        writer = self._state.writer
        if writer is not None and target == writer.name:
            raise FailoverImpossibleError(f"{target} is the writer already; name a reader, or none")
        readers = [
            reader
            for reader in self._state.readers
            if awake(reader)
            and reader.state != "deleting"
            and (reader.name == target or (target is None and reader.state != "unreachable"))
        ]
        await together(reader.sample(timeout=1.0) for reader in readers)
        ready = [(reader, reader.newest) for reader in readers if answers(reader)]
        following = [(reader, newest) for reader, newest in ready if newest is not None and newest.recovering]
        if not following:
            raise FailoverImpossibleError(
                f"{target} does not answer as a reader and cannot be promoted; start it, or name another"
                if target
                else "there is no reader to promote: none answers as a reader; add a reader, or start one that is down"
            )
        return min(following, key=lambda pair: (pair[0].catch_up_lsn is not None, pair[0].tier, -pair[1].received))[0]

    async def _most_complete(self, candidate: Instance, *, chosen: bool) -> Instance:
        """The reader that has all that was acknowledged, now that the writer acknowledges nothing more: the most log.

        Args:
            candidate: the reader that was to be promoted; it is, unless it lacks log.
            chosen: whether it was asked for, so that no other one may take its place.

        Raises:
            FailoverImpossibleError: a reader that may have more log does not answer, or `candidate` was chosen and
                lacks log.
        """
        owing = [reader for reader in self._state.readers if reader.owes_log or reader is candidate]
        positions = await asyncio.gather(*map(_settled_position, owing))
        silent = [reader.name for reader, position in zip(owing, positions, strict=True) if position is None]
        if silent:
            raise FailoverImpossibleError(
                f"{', '.join(silent)} may have commits that no other reader has, and does not answer: start it"
            )
        found = [(position or 0, reader) for reader, position in zip(owing, positions, strict=True)]
        best = max(found, key=lambda pair: (pair[0], pair[1] is candidate))[1]
        if best is not candidate and chosen:
            raise FailoverImpossibleError(f"{candidate.name} lacks log that {best.name} has: promote that one")
        return best

    async def promote(
        self, candidate: Instance, point: RecoveryPoint | None, phases: Phases, patience: float = REPLAY
    ) -> None:
        """Make a standby that runs the writer, its log ending at `point`.

        Args:
            candidate: the standby.
            point: None where the volume does not know where the log ends.
            phases: records each phase.
            patience: seconds for the replay up to `point`.

        Raises:
            EngineError: it could not be promoted, or not be attached.
            FailoverImpossibleError: it did not replay its log up to the point in time.
        """
        state = self._state
        if point is not None:
            phases.end("fence")
            state.volume.preconnect(candidate.where)
            await self.wait_until_replayed(candidate, point.lsn, patience)
            phases.end("replay")
        extra = state.volume.writer_settings()
        if extra:
            candidate.engine.follow({**state.settings(candidate), **extra, **state.overrides})
        if point is not None:
            candidate.engine.leave_out(point)
        await candidate.engine.promote()
        phases.end("promote")
        state.writer = candidate
        state.epoch += 1
        candidate.catch_up_lsn, candidate.state = None, "available"
        attaching = asyncio.ensure_future(
            together([state.volume.attach(candidate.where), candidate.sample(timeout=1.0)])
        )
        try:
            await asyncio.sleep(0)  # it asks its first question before files are written
            state.publish()
            await attaching
        finally:
            attaching.cancel()
        state.write_status()  # at once: its durable position distinguishes it from the writer that it once was
        candidate.engine.configure(state.settings(candidate), standby=False)
        for reader in state.readers:
            reader.owes_log = reader.follows and awake(reader)
            if reader.owes_log:
                self._follow(reader)
        phases.end("attach")

    async def wait_until_replayed(self, candidate: Instance, lsn: int, timeout: float = REPLAY) -> None:
        """Return when a standby has replayed the log up to `lsn` (bytes).

        Raises:
            FailoverImpossibleError: it has not within `timeout` seconds.
            EngineError: it does not answer.
        """
        deadline = time.monotonic() + timeout
        query = "SELECT pg_last_wal_replay_lsn() - '0/0'"
        while await _position(candidate, query) < lsn:
            if time.monotonic() > deadline:
                raise FailoverImpossibleError(
                    f"{candidate.name} has not replayed the log up to {lsn >> 32:X}/{lsn & 0xFFFFFFFF:08X} "
                    f"within {timeout:g} s:\n{candidate.engine.log_tail()}"
                )
            await asyncio.sleep(0.001)

    def _follow(self, reader: Instance) -> None:
        """Make a running reader follow the present writer."""
        with contextlib.suppress(EngineError):  # it died meanwhile: the heartbeat sees to that
            reader.engine.follow(self._state.settings(reader))

    async def restart_instance(self, instance: Instance) -> None:
        """Start an instance in the role that it now has; what still runs of it is ended first.

        Raises:
            EngineError: it did not start; its state is then ``stopped``.
        """
        instance.engine.kill()
        instance.state = "restarting"
        try:
            if instance is self._state.writer:
                await self._restore_writer(instance)
            elif instance.engine.was_writer:
                await self.rebuild(instance)
            else:
                await self._state.start(instance)
        except BaseException:
            instance.engine.kill()
            instance.state = "stopped"
            raise
        finally:
            self._state.publish()

    async def _restore_writer(self, instance: Instance) -> None:
        """Start a writer that has no successor.

        Where the volume knows where the log ends, the instance's own files may hold commits that were never
        acknowledged: it is built from the log and promoted like any other.
        """
        point = await self._state.volume.recover()
        if point is None:
            await self._state.start(instance)
            await self._state.volume.attach(instance.where)
            return
        self._state.writer = None
        await self.rebuild(instance)
        await self.promote(instance, point, Phases())

    async def rebuild(self, instance: Instance) -> None:
        """Build an instance from the volume and start it as a reader."""
        writer = self._state.writer
        sysv.remove(instance.engine.data)
        instance.engine.make_home()
        await self._state.volume.seed(instance.where, writer.where if writer is not None else None)
        await self._state.start(instance)


async def _position(standby: Instance, query: str) -> int:
    """What a query for a position returns; 0: unknown yet.

    Raises:
        EngineError: it does not answer.
    """
    try:
        return int((await standby.session.query(query))[0][0] or 0)
    except StartingUpError:  # it takes connections when it has replayed up to its `catch_up_lsn`
        return 0


async def _settled_position(reader: Instance) -> int | None:
    """How much log a reader has; None: it does not answer.

    One that was started a moment ago may still find log in its own files. It has all of it once the position has stood
    still for `STILL` seconds, as there is no writer that sends more.
    """
    while True:
        await reader.sample(timeout=1.0)
        newest = reader.newest
        if not answers(reader) or newest is None:
            return None
        if time.monotonic() - reader.started_at > FRESH or newest.at - reader.stalled_since > STILL:
            return newest.received
        await asyncio.sleep(STILL / 4)


def awake(instance: Instance) -> bool:
    """Whether its server runs and is not frozen."""
    return instance.engine.alive and not instance.engine.frozen


def answers(instance: Instance) -> bool:
    """Whether it is awake and answered the last heartbeat."""
    return awake(instance) and instance.missed == 0
