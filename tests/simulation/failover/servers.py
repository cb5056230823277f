"""Servers with a log, for the simulation: enough of a database to check what clients report.

Theory. A server writes records into a buffer and flushes it: on Aurora into the one log of the volume, which takes it
from the server of the current epoch alone; on plain PostgreSQL into a log of its own, which standbys copy, and a commit
is acknowledged when one of them has it (synchronous replication). What a crash takes is the buffer. A promotion goes
on from what is in the log, so an xid that never got there is assigned again.

It is a model: what SQL really does is tried on real servers (`tests/commits`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .clock import Gate

if TYPE_CHECKING:
    from aurora_router.simulation import SimulatedInstance

    from .clock import Clock

FIRST_LSN, RECORD_BYTES = 1000, 16


@dataclass(frozen=True)
class Record:
    """One record of the log; a commit carries what its transaction wrote."""

    kind: str
    xid: int
    legs: tuple[Any, ...] = ()
    witnesses: tuple[tuple[str, bool], ...] = ()


class Log:
    """Records, and what follows from them."""

    def __init__(self, records: Any = ()) -> None:
        self.records: list[Record] = []
        self.status: dict[int, str] = {}
        self.legs: Counter[Any] = Counter()
        self.witnesses: dict[str, bool] = {}
        self.top = 700
        self.extend(records)

    def extend(self, records: Any) -> None:
        """Append records."""
        for each in records:
            self.records.append(each)
            self.top = max(self.top, each.xid)
            if each.kind in {"committed", "aborted"}:
                self.status[each.xid] = each.kind
            self.legs.update(each.legs)
            self.witnesses.update(each.witnesses)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def end(self) -> int:
        """LSN of the end."""
        return FIRST_LSN + RECORD_BYTES * len(self.records)


@dataclass(eq=False)
class Transaction:
    """A transaction on its server, until it ended."""

    xid: int
    legs: list[Any] = field(default_factory=list)
    witnesses: dict[str, bool] = field(default_factory=dict)
    cancelled: bool = False


class Died(Exception):
    """The server's side of a session is gone."""


class Store:
    """What all servers of a cluster share.

    Attributes:
        aurora: one volume for all; else each server has a log of its own.
        epoch: of the volume.
        witness: whether the witness table is installed.
        version: of the servers, as libpq writes it.
        restarts: ``restart_after_crash``.
        writer: which server the control plane made the writer last.
        silent_fence: a fenced writer hangs at its next commit; else it dies.
        password: the only one with which a session begins.
    """

    def __init__(self, *, aurora: bool, witness: bool, version: int, restarts: bool, silent_fence: bool) -> None:
        self.aurora, self.witness, self.version = aurora, witness, version
        self.restarts, self.silent_fence = restarts, silent_fence
        self.password = "first"
        self.epoch = 1
        self.volume = Log()
        self.writer: Server | None = None


class Server:
    """One instance's server.

    Attributes:
        stopped: it does not run (SIGSTOP, a hung host); its kernel still takes packets.
        briefly: it was stopped for a moment, and nothing is wrong with it.
        alone: its replicas are cut off from it.
        deaf: it accepts no session; those that it has go on.
        balking: it refuses sessions with a sentence that is not known; those that it has go on.
        dark: packets between it and all clients are lost.
        login: seconds that a login takes after the first bytes of the server's (LDAP, a login trigger).
        slow: seconds that everything takes longer.
        skew: seconds by which its clock is wrong.
        gate: opens whenever a task that waits for it should look again.
        mute: spans of time in which it answered no client.
        darkness: spans of time in which packets were lost.
        loaded: spans of time in which everything took longer.
        deafness: spans of time in which it accepted no session.
        logins: spans of time in which a login took long.
        refusing: spans of time in which it refused sessions with a sentence that is not known.
        behind: spans of time in which it lagged behind, as a reader.
        lonely: spans of time in which it was cut off from its replicas, so that nothing it commits is acknowledged.
        odd: spans of time in which its answers were not as they should be.
        stale: spans of time in which it reported an old topology.
        harmed: spans of time in which something was wrong with it.
        lives: grows with each start.
    """

    def __init__(self, clock: Clock, instance: SimulatedInstance, store: Store) -> None:
        self.clock, self.instance, self.store = clock, instance, store
        self.stopped = self.deaf = self.balking = self.dark = self.briefly = self.alone = False
        self.login = self.slow = self.skew = 0.0
        self.gate = Gate(clock)
        self.mute: list[list[float]] = []
        self.darkness: list[list[float]] = []
        self.loaded: list[list[float]] = []
        self.deafness: list[list[float]] = []
        self.logins: list[list[float]] = []
        self.refusing: list[list[float]] = []
        self.behind: list[list[float]] = []
        self.lonely: list[list[float]] = []
        self.odd: list[list[float]] = []
        self.stale: list[list[float]] = []
        self.harmed: list[list[float]] = []
        self.sessions: dict[Any, None] = {}
        self.lives = 0
        self.log = store.volume if store.aurora else Log()
        self.buffer: list[Record] = []
        self.running: dict[int, Transaction] = {}
        self.source: tuple[Server, int] | None = None
        self.standbys: list[Server] = []
        self.epoch = store.epoch
        self.started = 1_000_000
        self.recovered: int | None = None
        self.promoted = False
        self.xid = self.log.top
        self._pids = 0

    @property
    def id(self) -> str:
        return self.instance.id

    def pid(self) -> int:
        """A process id that was not used before."""
        self._pids += 1
        return self.lives * 100_000 + self._pids

    # ------------------------------------------------------------ being reached

    @property
    def muted(self) -> bool:
        """Whether it answers no client."""
        return self.stopped or self.dark

    def silence(self, *, stopped: bool | None = None, dark: bool | None = None) -> None:
        """Stop it or cut it off, or let it go on."""
        before = self.muted
        self.stopped = self.stopped if stopped is None else stopped
        if dark and not self.dark:
            self.darkness.append([self.clock.now, float("inf")])
        elif self.dark and dark is False:
            self.darkness[-1][1] = self.clock.now
        self.dark = self.dark if dark is None else dark
        if self.muted and not before:
            self.mute.append([self.clock.now, float("inf")])
        elif before and not self.muted:
            self.mute[-1][1] = self.clock.now
        if not self.dark:
            for session in list(self.sessions):
                session.tell_of_death()
        self.gate.open()

    async def awake(self, session: Any) -> None:
        """Go on only while it runs, for a session that lives."""
        while self.stopped and not session.dead:
            await self.gate.wait()
        if session.dead:
            raise Died

    # ------------------------------------------------------------ its life

    def end_sessions(self) -> None:
        """All sessions die, with their transactions."""
        for session in list(self.sessions):
            session.die()
        self.running.clear()
        self.gate.open()

    def crash(self) -> None:
        """Lose everything that was not flushed."""
        self.lives += 1
        self.buffer.clear()
        self.end_sessions()

    def recover(self, *, promoted: bool, in_place: bool = False) -> None:
        """Begin a life as the writer, from what the log holds."""
        self.store.writer = self
        self.buffer.clear()
        self.running.clear()
        self.lives += 1
        if self.store.aurora:
            self.store.epoch += 1
            self.epoch = self.store.epoch
        self.recovered, self.promoted, self.source = self.log.end, promoted, None
        if not (in_place or promoted):
            self.started = 1_000_000 + int(self.clock.now * 1e6)
        self.log.extend([Record("recovered", 0)])
        self.xid = self.log.top

    # ------------------------------------------------------------ transactions

    def begin(self) -> Transaction:
        """Assign an xid."""
        self.xid += 1
        transaction = self.running[self.xid] = Transaction(self.xid)
        return transaction

    def abort(self, transaction: Transaction) -> None:
        """End one without a trace but its record."""
        if self.running.pop(transaction.xid, None) is not None:
            self.buffer.append(Record("aborted", transaction.xid))
            self.gate.open()

    def status(self, xid: int) -> str:
        """What the server says of an xid."""
        if xid in self.running:
            return "in progress"
        if xid > self.xid:
            return "future"
        pending = next((each.kind for each in self.buffer if each.xid == xid and each.kind != "mark"), None)
        return pending or self.log.status.get(xid, "aborted")

    async def flush(self, session: Any) -> None:
        """Make the buffer durable where this server may."""
        await self.clock.sleep(self.clock.rng.uniform(0.0003, 0.003))
        await self.awake(session)
        if self.store.aurora and self.epoch != self.store.epoch:
            if not self.store.silent_fence:
                self.crash()
            while not session.dead:
                await self.gate.wait()
            raise Died
        self.log.extend(self.buffer)
        self.buffer.clear()

    async def commit(self, session: Any, transaction: Transaction) -> bool:
        """Commit; returns whether the replicas have it (False: that wait was cancelled)."""
        record = Record("committed", transaction.xid, tuple(transaction.legs), tuple(transaction.witnesses.items()))
        self.buffer.append(record)
        await self.flush(session)
        replicated = self.store.aurora or await self._replicated(session, transaction)
        await self.awake(session)
        self.running.pop(transaction.xid, None)
        self.gate.open()
        return replicated

    async def _replicated(self, session: Any, transaction: Transaction) -> bool:
        needed, life = len(self.log), self.lives
        for each in self.standbys:
            self.clock.spawn_outside(self._ship(each, needed, life), after=self.clock.rng.uniform(0.001, 0.02))
        while not any(len(each.log) >= needed for each in self.standbys if each.source == (self, life)):
            if transaction.cancelled:
                return False
            await self.gate.wait()
            if session.dead:
                raise Died
        return True

    async def _ship(self, standby: Server, needed: int, life: int) -> None:
        """Send the log up to a record to a standby, when both run."""
        while standby.stopped or self.stopped or self.alone:
            await (standby if standby.stopped else self).gate.wait()
        if self.lives == life and standby.source == (self, life) and len(standby.log) < needed:
            standby.log.extend(self.log.records[len(standby.log) : needed])
            self.gate.open()

    def follow(self, writer: Server) -> None:
        """Become (again) a standby of `writer`, with its log, whatever was there before."""
        self.source = (writer, writer.lives)
        if not self.store.aurora:
            self.log = Log(writer.log.records)
        if self not in writer.standbys:
            writer.standbys.append(self)
        writer.gate.open()
