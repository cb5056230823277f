"""The control plane of a MariaDB cluster: roles, failover, and how servers that went down come back.

Theory. The writer acknowledges a commit when one reader has received it (semi-synchronous replication, ``AFTER_SYNC``:
before that no other session sees it, either). It never degrades to asynchronous by time. So what was acknowledged is in
the log of the writer, and in that of at least one reader. `Cluster.holders` are the readers that together have all of
it: after the loss of the writer the one of them that has received most, by GTID position, has all that was
acknowledged, because every log is a beginning of the same one. For that every holder has to be asked. One that is down
is started for it (what it received is in its relay log), one that hangs is killed before.

- There are holders only while the writer waits for a reader (`Cluster.semi_sync`). Then a reader becomes one *before*
  its replication starts: from then on the writer may rely on it alone.
- It stops being one when another holder has received all that the writer had written at that moment.
- A writer that begins to wait for its readers has all that was acknowledged until then, and they may lack some of it: a
  promoted one had received more, another one has acknowledged by itself. `Cluster.floor` is its position at that
  moment. A reader that has received a later commit has all before it. So while no holder has reached the floor, the
  writer is the only one with all: if it is lost then, it is started again on its own data.
- Without any reader that follows there is no holder: the writer then acknowledges by itself (its clients would wait
  forever), and after a crash it is started again on its own data. No failover is possible.

A server that does not carry out what its role needs is killed: whether the statement was executed is unknown, and a
server that was killed begins as a reader.

Fencing: the former writer is killed before another one is promoted, so it can acknowledge nothing any more, not even to
a client that goes around the front. What it had written and not acknowledged is discarded: its data are built again
as a copy of the new writer's. In a planned failover it is made read-only, which waits for the commits under way, and
nothing is lost or discarded: it follows the new writer at once.

This is no quorum storage: the loss of the writer and of the only reader that had received a commit loses that commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control.status import Failover
from aurora_router_cluster.errors import (
    ClusterError,
    EngineError,
    FailoverImpossibleError,
    RequestError,
    UnknownInstanceError,
)
from aurora_router_cluster.mysql.relaylog import find_unapplied
from aurora_router_cluster.mysql.rewriting import Member, rewrite
from aurora_router_cluster.mysql.server import REPLICATION
from aurora_router_cluster.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from aurora_router_cluster.dns.names import Names
    from aurora_router_cluster.mysql.front import Front
    from aurora_router_cluster.mysql.server import Server
    from aurora_router_cluster.postgres.addresses import Address

log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
"""How long an instance may take to answer a heartbeat, before it counts as silent."""
HUNG_SECONDS = 1.5
"""How long the writer may be silent before it is replaced."""
CATCH_UP_SECONDS = 30.0
TROUBLED_SECONDS = 2.0
"""How long the replication of a reader may have stopped, before its data are built again."""
ROLE_SECONDS = 5.0
"""How long an instance may take for the statements that give it its role."""
AGAIN_SECONDS = 1.0
"""Between two tries to start a server that did not start."""
POSITION = re.compile(r"(?<!\d)0-\d+-(\d+)")


@dataclass
class Instance:
    """One instance; mutable, owned by the control plane's event loop.

    Attributes:
        server: its MariaDB.
        front: what its clients connect to.
        address: where they do.
        zone: availability zone.
        tier: promotion tier.
        state: see `status.InstanceStatus`.
        session_id: what ``replica_host_status`` shows of it while it is a reader.
        created: when it was made, seconds since the epoch.
        lag: replica lag in seconds; None: unknown.
        position: the sequence number of the last transaction that it has written or received; None: unknown.
        heard_at: when it last answered, on the monotonic clock.
        held: it was killed, and is not started before that is asked for.
        not_before: when it is started again at the earliest, on the monotonic clock.
        trouble: what is wrong with its replication; None: nothing.
        troubled_since: since when that is so, on the monotonic clock.
    """

    server: Server
    front: Front
    address: Address
    zone: str
    tier: int = 1
    state: str = "creating"
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: float = field(default_factory=time.time)
    lag: float | None = None
    position: int | None = None
    heard_at: float = 0.0
    held: bool = False
    not_before: float = 0.0
    trouble: str | None = None
    troubled_since: float = 0.0

    @property
    def name(self) -> str:
        """Its identifier."""
        return self.server.name

    @property
    def available(self) -> bool:
        """Whether it takes connections, as far as known."""
        return self.state == "available"

    @property
    def ended(self) -> bool:
        """Whether it receives nothing more as it is: its process has ended, or is about to."""
        return self.state == "deleting" or not self.server.alive


class Cluster:
    """The instances and their roles; what `control.directory.Directory` reads.

    Args:
        names: the host names.
        password: of replication.

    Attributes:
        changed: called after every change of roles and states.
        holders: the names of the readers that together have all that was acknowledged.
        semi_sync: whether the writer waits for a reader.
        floor: the sequence number that a reader must have received to replace the writer.
    """

    def __init__(self, names: Names, password: str) -> None:
        self.names = names
        self.instances: dict[str, Instance] = {}
        self.writer: Instance | None = None
        self.epoch = 0
        self.holders: set[str] = set()
        self.semi_sync = False
        self.floor = 0
        self.activity = "available"
        self.changed: Callable[[], None] = lambda: None
        self._password = password
        self._returning: set[asyncio.Task[None]] = set()
        self.lock = asyncio.Lock()

    @property
    def readers(self) -> list[Instance]:
        """All instances but the writer."""
        return [each for each in self.instances.values() if each is not self.writer]

    def get(self, name: str) -> Instance:
        """The instance of that name.

        Raises:
            UnknownInstanceError: there is none.
        """
        if name not in self.instances:
            known = ", ".join(self.instances)
            raise UnknownInstanceError(f"the cluster {self.names.cluster} has no instance {name!r}; it has {known}")
        return self.instances[name]

    def members(self) -> list[Member]:
        """The rows of ``replica_host_status`` as of now."""
        now = time.monotonic()
        return [
            Member(each.name, each is self.writer, each.session_id, each.lag, max(0.0, now - each.heard_at))
            for each in self.instances.values()
            if each.available
        ]

    def rewriter(self, name: str) -> Callable[[bytes], bytes]:
        """What rewrites the statements of an instance's clients."""
        return lambda statement: rewrite(statement, name, self.members)

    # ------------------------------------------------------------ roles

    async def follow(self, reader: Instance, position: str | None = None) -> None:
        """Let a server that answers follow the writer; `position`: the GTID position that its data are of."""
        assert self.writer is not None, "the caller knows the writer"
        where = self.writer.server.replication
        if self.semi_sync:
            self.holders.add(reader.name)
        begin = [] if position is None else [f"SET GLOBAL gtid_slave_pos = '{position}'"]
        await reader.server.query(
            "STOP SLAVE",
            "SET GLOBAL rpl_semi_sync_master_enabled = OFF",
            *begin,
            f"CHANGE MASTER TO MASTER_HOST = '{where.host}', MASTER_PORT = {where.port}, "
            f"MASTER_USER = '{REPLICATION}', MASTER_PASSWORD = '{self._password}', MASTER_USE_GTID = slave_pos, "
            "MASTER_CONNECT_RETRY = 1, MASTER_SSL = 0",
            "START SLAVE",
        )

    async def promote(self, chosen: Instance, floor: int) -> None:
        """Make a reader that has applied all it received, up to `floor`, the writer; the former one is fenced.

        Raises:
            EngineError: it failed, and was killed; before `writer` was set, or later, when it has the role already.
        """
        others = [each for each in self.readers if each is not chosen and each.available]
        await self._command(chosen, "STOP SLAVE", "RESET SLAVE ALL", _semi_sync(wanted=bool(others)))
        self.writer, self.epoch, self.semi_sync, self.floor = chosen, self.epoch + 1, bool(others), floor
        self.holders = {each.name for each in others}
        await self._command(chosen, "SET GLOBAL read_only = OFF")
        chosen.state, chosen.lag, chosen.heard_at = "available", 0.0, time.monotonic()
        self.changed()
        for each, result in zip(others, await _together(map(self.follow, others)), strict=True):
            if isinstance(result, ClusterError):
                log.warning("%s does not follow: %s", each.name, result)

    async def _command(self, instance: Instance, *statements: str) -> None:
        """Have an instance execute what its role needs; it is killed if it does not."""
        try:
            await instance.server.query(*statements, seconds=ROLE_SECONDS)
        except EngineError:
            instance.server.kill()
            instance.state = "stopped"
            await instance.front.stop()
            self.changed()
            raise

    async def _await_readers(self, writer: Instance, *, wanted: bool) -> None:
        """Let the writer's commits wait for a reader, or not; every reader that may follow is a holder then."""
        await self._command(writer, _semi_sync(wanted=wanted))
        self.floor = await _query_written(writer)  # what it acknowledged by itself is no later than that
        self.semi_sync = wanted
        self.holders = {each.name for each in self.readers if not each.ended} if wanted else set()

    async def update_holders(self) -> None:
        """Adjust `holders` to the readers that there are now; see the module's theory.

        One that hangs stays a holder: when it goes on it receives more, and the writer may rely on it alone.
        """
        writer = self.writer
        if writer is None or not writer.available:
            return
        available = {each.name for each in self.readers if each.available}
        if available and not self.semi_sync:
            await self._await_readers(writer, wanted=True)
        lost = {name for name in self.holders if name not in self.instances or self.instances[name].ended}
        if not lost:
            return
        kept = self.holders & available
        if not kept:
            if self.holders == lost and all(self.instances[each].held for each in lost if each in self.instances):
                await self._await_readers(writer, wanted=False)
            return
        written = await _query_written(writer)
        for name in kept:
            if await _query_received(self.instances[name]) >= written:
                self.holders -= lost
                return

    # ------------------------------------------------------------ failover

    async def fail_over(self, target: str | None) -> Failover:
        """Make a reader the writer; returns when it takes writes.

        Raises:
            FailoverImpossibleError: no reader can be promoted without losing what was acknowledged.
            UnknownInstanceError: there is no such instance.
        """
        wanted = None if target is None else self.get(target)
        if wanted is not None and wanted is self.writer:
            raise FailoverImpossibleError(f"{target} is the writer already; name a reader, or none")
        self.activity = "failing-over"
        try:
            former, clock = self.writer, _Clock()
            if former is not None and former.available and not former.server.frozen and former.server.alive:
                return await self._switch_over(former, wanted, clock)
            return await self._replace(former, wanted, clock)
        finally:
            self.activity = "available"
            self.changed()

    async def _switch_over(self, former: Instance, wanted: Instance | None, clock: _Clock) -> Failover:
        able = [each for each in self.readers if each.available and (wanted is None or each is wanted)]
        if not able:
            raise FailoverImpossibleError(f"{'no reader' if wanted is None else wanted.name} answers as a reader")
        chosen = min(able, key=lambda each: each.tier)
        try:
            await former.server.query("SET SESSION lock_wait_timeout = 5", "SET GLOBAL read_only = ON", seconds=8.0)
            written = await _query_written(former)
            await former.front.stop()
            clock.end("stop")
            await _wait_until_applied(chosen, written)
            clock.end("replay")
            former.state = "restarting"
            await self.promote(chosen, written)
        except ClusterError as error:
            if self.writer is not former:  # the new one was killed, and is started again or replaced as a lost writer
                self.spawn_return(former)
                raise
            await self._keep(former)
            raise FailoverImpossibleError(f"{former.name} is still the writer: {error}") from None
        if self.semi_sync:
            self.holders.add(former.name)  # it has all, which the others may still have to get
        clock.end("promote")
        self.spawn_return(former)
        return Failover(former.name, chosen.name, self.epoch, planned=True, phases=clock.phases)

    async def _keep(self, writer: Instance) -> None:
        """Let a writer that was to be replaced go on."""
        with contextlib.suppress(ClusterError):
            await self._command(writer, "SET GLOBAL read_only = OFF")
            await writer.front.start()
            writer.state = "available"

    async def _replace(self, former: Instance | None, wanted: Instance | None, clock: _Clock) -> Failover:
        """Replace a writer that is lost; it is killed first, wherever it hangs."""
        if not self.holders:
            raise FailoverImpossibleError(
                "no reader is known to have all that was acknowledged; start the writer again"
            )
        if former is not None:
            former.server.replaced = True
            former.server.kill()
            await former.front.stop()
            former.state = "stopped"
        clock.end("fence")
        self.changed()
        holders = [self.instances[name] for name in sorted(self.holders)]
        received: dict[str, int] = {}
        for each, result in zip(holders, await _together(map(_collect, holders)), strict=True):
            if isinstance(result, ClusterError):
                raise FailoverImpossibleError(
                    f"{each.name} may be the only one with an acknowledged commit, and does not answer: {result}"
                )
            received[each.name] = result
        most = max(received.values())
        if most < self.floor and former is not None:
            former.server.replaced, floor, end = False, self.floor, "it is started again when that is asked for"
            if not former.held:
                await self.bring_back(former)
                await _together(map(self.follow, holders))
                end = "it was started again"
            raise FailoverImpossibleError(
                f"no reader has all that was acknowledged: they have received {most} transactions of {floor}; "
                f"{former.name} is the writer as before, and {end}"
            )
        best = [each for each in holders if received[each.name] == most]
        chosen = min(best, key=lambda each: (each is not wanted, each.tier))
        clock.end("replay")
        for each in holders:
            each.state = "available"
        await self.promote(chosen, most)
        clock.end("promote")
        for each in holders:
            await each.front.start()
        if wanted is not None and chosen is not wanted:
            log.info("%s has more than %s, and is the writer now", chosen.name, wanted.name)
        return Failover(former.name if former else None, chosen.name, self.epoch, planned=False, phases=clock.phases)

    def spawn_return(self, former: Instance) -> None:
        """Let the former writer of a planned failover follow the new one, in the background."""

        async def back() -> None:
            try:
                await self.follow(former, await _position(former))
                await former.front.start()
                former.state, former.heard_at = "available", time.monotonic()
            except ClusterError as error:
                log.warning("%s is built again: %s", former.name, error)
                former.server.replaced = True
                former.server.kill()
                former.state = "stopped"
            self.changed()

        task = asyncio.get_running_loop().create_task(back())
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def bring_back(self, instance: Instance) -> None:
        """Start a server that is down, in the role that it has now; a former writer is built again.

        Raises:
            ClusterError: it did not start.
        """
        server, writer = instance.server, self.writer
        instance.state = "restarting"
        try:
            if instance is writer:
                await server.start()
                await self._await_readers(instance, wanted=any(each.available for each in self.readers))
                await self._command(instance, "SET GLOBAL read_only = OFF")
            elif writer is None:
                raise EngineError(f"{instance.name} has no writer to follow")  # noqa: TRY301 - its state is set below
            elif server.replaced or not server.data.exists():
                server.kill()
                position = await asyncio.to_thread(server.clone, writer.server)
                await server.start()
                await self.follow(instance, position)
                server.replaced = False
            else:
                await server.start()
                await _apply_relay_log(instance)  # before it is asked for again: the writer may be lost meanwhile
                await self.follow(instance)
            await instance.front.start()
        except BaseException:
            server.kill()
            instance.state, instance.not_before = "stopped", time.monotonic() + AGAIN_SECONDS
            raise
        instance.state, instance.heard_at = "available", time.monotonic()
        self.changed()


class Heartbeat:
    """Looks at every instance, and does what has to be done about what is wrong.

    Args:
        cluster: the instances.
        interval: seconds between two beats.
        auto: act on what is found; else only show it.
    """

    def __init__(self, cluster: Cluster, interval: float, *, auto: bool) -> None:
        self._cluster = cluster
        self._interval = interval
        self._auto = auto
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()

    def start(self) -> None:
        """Begin to beat."""
        for each in self._cluster.instances.values():
            self.watch(each)
        self._spawn(self._beat())

    def watch(self, instance: Instance) -> None:
        """Notice at once when an instance's process ends."""

        def on_exit() -> None:
            if instance.state in {"available", "unreachable"}:
                instance.state = "stopped"
                self._spawn(instance.front.stop())
                self._cluster.changed()
                self._woken.set()

        instance.server.on_exit = on_exit

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop beating."""
        for each in list(self._tasks):
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await wait_at_most(self._interval, self._woken.wait())
            self._woken.clear()
            for each in list(self._cluster.instances.values()):
                if each.state in {"available", "unreachable"} and each.name not in self._busy:
                    self._busy.add(each.name)
                    self._spawn(self._look(each))
            if self._auto and not self._cluster.lock.locked():
                try:
                    async with self._cluster.lock:
                        await self._act()
                except ClusterError as error:
                    log.warning("%s", error)
                except Exception:  # of one beat: without the next ones nothing would be replaced any more
                    log.exception("a heartbeat failed")

    async def _look(self, instance: Instance) -> None:
        try:
            await _sample(instance, self._cluster.writer)
        except EngineError as error:
            if instance.state == "available" and time.monotonic() - instance.heard_at > HUNG_SECONDS:
                log.info("%s does not answer: %s", instance.name, error)
                instance.state = "unreachable"
                self._cluster.changed()
        else:
            if instance.state == "unreachable":
                instance.state = "available"
                self._cluster.changed()
        finally:
            self._busy.discard(instance.name)

    async def _act(self) -> None:
        cluster, writer = self._cluster, self._cluster.writer
        if writer is not None and writer.state in {"stopped", "unreachable"}:
            if cluster.holders:
                await cluster.fail_over(None)
            elif writer.state == "stopped" and not writer.held:
                await cluster.bring_back(writer)
            return
        try:
            await cluster.update_holders()
        except ClusterError as error:  # readers come back in spite of it: one may be what is missing
            log.warning("%s", error)
        now = time.monotonic()
        for each in cluster.readers:
            if each.available and each.trouble is not None and now - each.troubled_since > TROUBLED_SECONDS:
                log.warning("%s is built again: %s", each.name, each.trouble)
                each.server.replaced, each.trouble = True, None
                each.server.kill()
                await each.front.stop()
                each.state = "stopped"
                cluster.changed()
        for each in cluster.readers:
            if each.state == "stopped" and not each.held and now >= each.not_before:
                each.state = "restarting"
                self._spawn(self._bring_back(each))

    async def _bring_back(self, instance: Instance) -> None:
        try:
            await self._cluster.bring_back(instance)
        except ClusterError as error:
            log.warning("%s is not back: %s", instance.name, error)


# ---------------------------------------------------------------- what servers are asked


class _Clock:
    """Stopwatch with named laps, in seconds."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._since = time.monotonic()

    def end(self, name: str) -> None:
        now = time.monotonic()
        self.phases[name], self._since = now - self._since, now


async def _together(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """Do several things at once; what failed is in the place of its result."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException) and not isinstance(each, ClusterError):
            raise each
    return results


async def _sample(instance: Instance, writer: Instance | None) -> None:
    """Ask an instance for its position, its lag, and what is wrong with its replication."""
    if instance is writer:
        instance.trouble = None
        instance.position, instance.lag = await _query_written(instance, ANSWER_SECONDS), 0.0
    else:
        rows = await instance.server.query("SHOW SLAVE STATUS", seconds=ANSWER_SECONDS)
        status = rows[0] if rows else {}
        trouble = None if writer is None else _find_trouble(status, writer)
        if trouble is None or instance.trouble is None:
            instance.troubled_since = time.monotonic()
        instance.trouble = trouble
        applied = await instance.server.query("SELECT @@GLOBAL.gtid_slave_pos AS pos", seconds=ANSWER_SECONDS)
        received = _sequence(status.get("Gtid_IO_Pos"))
        instance.position = received
        behind = status.get("Seconds_Behind_Master")
        caught_up = _sequence(applied[0]["pos"]) >= received
        instance.lag = 0.0 if caught_up else None if behind is None else float(behind)
    instance.heard_at = time.monotonic()


def _find_trouble(status: dict[str, Any], writer: Instance) -> str | None:
    """What is wrong with a reader's replication; None: nothing, as far as it says."""
    where = writer.server.replication
    if not status or (status["Master_Host"], int(status["Master_Port"])) != (where.host, where.port):
        return "it does not follow the writer"
    for thread in ("IO", "SQL"):
        if status[f"Last_{thread}_Errno"] and status[f"Slave_{thread}_Running"] == "No":
            return f"its replication ended: {status[f'Last_{thread}_Error']}"
        if status[f"Slave_{thread}_Running"] == "No":
            return f"the {thread} thread of its replication does not run"
    return None


def _semi_sync(*, wanted: bool) -> str:
    return f"SET GLOBAL rpl_semi_sync_master_enabled = {'ON' if wanted else 'OFF'}"


def _sequence(position: str | None) -> int:
    """The sequence number of a GTID position in domain 0; 0: it is empty."""
    found = POSITION.search(position or "")
    return int(found[1]) if found is not None else 0


async def _position(instance: Instance, seconds: float = 5.0) -> str:
    rows = await instance.server.query("SELECT @@GLOBAL.gtid_binlog_pos AS pos", seconds=seconds)
    return str(rows[0]["pos"])


async def _query_written(instance: Instance, seconds: float = 5.0) -> int:
    return _sequence(await _position(instance, seconds))


async def _query_received(reader: Instance) -> int:
    rows = await reader.server.query("SHOW SLAVE STATUS", seconds=ANSWER_SECONDS)
    return _sequence(rows[0]["Gtid_IO_Pos"]) if rows else 0


async def _collect(reader: Instance) -> int:
    """End what a reader receives, and let it apply all that it has; returns the position.

    A server that is down, or does not answer, is started again for it.
    """
    server = reader.server
    try:
        if server.frozen or not server.alive:
            raise EngineError(f"{reader.name} does not run")  # noqa: TRY301 - it is started below
        await server.query("STOP SLAVE IO_THREAD", seconds=5.0)
    except EngineError:
        server.kill()
        await server.start()
        await _apply_relay_log(reader)
        rows = await server.query("SELECT @@GLOBAL.gtid_slave_pos AS pos")
        return max(_sequence(rows[0]["pos"]), await _query_written(reader))
    return await _wait_until_all_is_applied(reader)


async def _apply_relay_log(reader: Instance) -> None:
    """Apply what a server had received before its process ended, and not applied; its replication does not run yet.

    A replica that follows by GTID deletes its relay log when it starts, since it can ask its primary again. Here the
    primary may be lost, and the relay log the only place of a commit that was acknowledged. So it is read by file and
    position, from the first transaction on that is missing.

    Raises:
        EngineError: it cannot be applied.
    """
    server = reader.server
    applied = _sequence((await server.query("SELECT @@GLOBAL.gtid_slave_pos AS pos"))[0]["pos"])
    found = await asyncio.to_thread(find_unapplied, server.data, applied)
    if found is None:
        return
    await server.query(
        f"CHANGE MASTER TO MASTER_USE_GTID = no, RELAY_LOG_FILE = '{found[0]}', RELAY_LOG_POS = {found[1]}",
        "START SLAVE SQL_THREAD",
    )
    await _wait_until_all_is_applied(reader)


async def _wait_until_all_is_applied(reader: Instance) -> int:
    """Wait until a server has applied all that it has received; returns the position."""
    server = reader.server
    until = time.monotonic() + CATCH_UP_SECONDS
    while True:
        rows = await server.query("SHOW SLAVE STATUS")
        if not rows:
            return await _query_written(reader)
        if rows[0]["Last_SQL_Errno"]:
            raise EngineError(f"{reader.name} cannot apply what it received: {rows[0]['Last_SQL_Error']}")
        applied = _sequence((await server.query("SELECT @@GLOBAL.gtid_slave_pos AS pos"))[0]["pos"])
        has_all = "has read all relay log" in (rows[0]["Slave_SQL_Running_State"] or "")
        by_gtid = rows[0]["Using_Gtid"] != "No"
        if has_all and (not by_gtid or applied >= _sequence(rows[0]["Gtid_IO_Pos"])):
            return applied
        if time.monotonic() > until:
            raise EngineError(f"{reader.name} has not applied what it received within {CATCH_UP_SECONDS:g} s")
        await asyncio.sleep(0.002)


async def _wait_until_applied(reader: Instance, sequence: int) -> None:
    """Wait until a reader has applied a transaction of the writer's.

    Raises:
        EngineError: it has not in time.
    """
    until = time.monotonic() + CATCH_UP_SECONDS
    while True:
        rows = await reader.server.query("SELECT @@GLOBAL.gtid_slave_pos AS pos")
        if _sequence(rows[0]["pos"]) >= sequence:
            return
        if time.monotonic() > until:
            raise EngineError(f"{reader.name} has not caught up within {CATCH_UP_SECONDS:g} s")
        await asyncio.sleep(0.002)


def refuse(what: str) -> RequestError:
    """The error for what this engine does not do."""
    return RequestError(f"the engine mysql does not serve {what}; the engine postgresql does")
