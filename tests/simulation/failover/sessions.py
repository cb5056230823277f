"""Connections of simulated processes, and the server's end of them: messages, transactions, answers that get lost.

A message that was sent is carried out whether or not its client still waits; the end of the connection reaches the
server after what was sent before. The messages are those of `aurora_router.flow.commit_sql`, distinguished by what
is in them, and those of the users' work: ``LEG n k`` writes, ``SLEEP s`` takes its time.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router.flow import commit_sql
from aurora_router.flow.runtime import DialFailed
from aurora_router.flow.session import Notice, Reply
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime.simulated import answers
from aurora_router.simulation import SimulatedConnection

from .servers import Died, Record, Transaction

if TYPE_CHECKING:
    from .servers import Server

CANCELLED = Notice("SyncRepWaitForLSN", "canceling wait for synchronous replication due to user request")
SYSTEM = "7300000000000000001"
PLACE = ("16384", "16400", SYSTEM)
END = None
"""The message that the client has closed."""
LOST = ["before it arrives", "while it is carried out", "its answer"]
"""What of a COMMIT may get lost with the connection."""


POOLERS = [("58000", "FATAL"), ("57P01", "FATAL"), ("58000", "ERROR"), ("08P01", "ERROR"), ("XX000", "ERROR")]
"""SQLSTATEs and severities of the errors with which poolers answer that lost their server."""
DOUBTFUL = [("40001", "ERROR"), ("57014", "ERROR")]
"""Those that a server may refuse a COMMIT with, too."""


def refused(sqlstate: str, severity: str = "ERROR") -> DialFailed:
    error = psycopg.errors.lookup(sqlstate)(sqlstate)
    return DialFailed(Fault(FaultKind.REJECTED, sqlstate, sqlstate, severity), error)


def broke() -> DialFailed:
    text = "server closed the connection unexpectedly"
    return DialFailed(Fault(FaultKind.RESET, None, text), psycopg.OperationalError(text))


class Conn(SimulatedConnection):
    """The client's end.

    Attributes:
        by_monitor: whether the process's monitor dialled it, and neither a user's connect nor the resolver.
    """

    def __init__(self, process: Any, cluster: Any, server: Server, *way: Any) -> None:
        super().__init__(cluster, server.instance, *way)
        self.process = process
        self.server = server
        self.state = "idle"
        self.since = server.clock.now
        self.answer: Any = None
        self.watched: Any = None
        self.waker: Any = None
        self.session = Session(self)
        self.by_monitor = False

    def wake(self) -> None:
        if self.waker is not None:
            self.waker()

    def close(self) -> None:
        super().close()
        self.session.post(END)

    def breaks(self) -> None:
        super().breaks()
        self.wake()

    def lose(self) -> None:
        """The network loses the connection: both ends find out."""
        self.breaks()
        self.session.post(END)


class Session:
    """The server's end."""

    def __init__(self, conn: Conn) -> None:
        self.conn = conn
        self.server = conn.server
        self.clock = conn.server.clock
        self.pid = conn.server.pid()
        self.dead = False
        self.state = "idle"
        self.txn: Transaction | None = None
        self.hides_warnings = False
        self._inbox: deque[str | None] = deque()
        self._busy = False
        self.server.sessions[self] = None

    @property
    def idle(self) -> bool:
        """Whether nothing was asked of it that is not answered."""
        return not self._busy and self.txn is None

    # ------------------------------------------------------------ its end

    def die(self) -> None:
        """The server has ended it; the client hears of it where the network lets it."""
        self.dead = True
        self.tell_of_death()

    def tell_of_death(self) -> None:
        if self.dead and not (self.server.dark or self.conn.process.dark):
            self.server.sessions.pop(self, None)
            if self.conn.session is self:
                self.conn.breaks()

    def _closed(self) -> None:
        self._rolled_back()
        self.dead = True
        self.server.sessions.pop(self, None)
        self.server.gate.open()

    def _rolled_back(self) -> None:
        if self.txn is not None:
            self.server.abort(self.txn)
        self.txn, self.state = None, "idle"

    # ------------------------------------------------------------ messages

    def post(self, message: str | None) -> None:
        """Take a message that is on its way."""
        self._inbox.append(message)
        if not self._busy:
            self._busy = True
            self.clock.spawn_outside(self._serve())

    async def _serve(self) -> None:
        try:
            while self._inbox and not self.dead:
                sql = self._inbox.popleft()
                await self._travel()
                if sql is END:
                    self._closed()
                    return
                await self._carry_out(sql)
        except Died:
            pass
        finally:
            self._busy = False

    async def _travel(self) -> None:
        """A packet's way: it waits while the network is dark, and at a server that does not run."""
        server = self.server
        await self.clock.sleep(server.instance.latency / 2 + server.slow)
        while (server.dark or self.conn.process.dark) and not self.dead:
            await server.gate.wait()
        await server.awake(self)

    async def _carry_out(self, sql: str) -> None:
        fate = self._fate(sql)
        if fate is not None and self.conn.process.is_answered_for:
            await self._lose_behind_pooler(sql, fate)
        if fate == LOST[0]:
            self.conn.breaks()
            self._closed()
            raise Died
        if fate == LOST[1]:
            self.conn.breaks()
        answer: Any
        try:
            answer = await self._answer(sql)
        except DialFailed as failed:
            answer = failed
        if fate == LOST[2]:
            self.conn.breaks()
        if fate is not None:
            self._closed()
            raise Died
        await self._travel()
        self._deliver(answer, self.state)

    async def _lose_behind_pooler(self, sql: str, fate: str) -> None:
        """Be lost by a pooler, which answers for the server and goes on with another session."""
        if fate == LOST[2]:
            with suppress(DialFailed):
                await self._answer(sql)
        await self._travel()
        following = self.conn.session = Session(self.conn)
        following.hides_warnings = self.hides_warnings
        store = self.server.store
        is_known = store.witness or not store.aurora  # else there is no token, and what is doubtful is believed
        self._deliver(refused(*self.clock.rng.choice(POOLERS + DOUBTFUL * is_known)), following.state)
        if fate == LOST[1]:
            with suppress(DialFailed):
                await self._answer(sql)
        self._closed()
        raise Died

    def _deliver(self, answer: Any, state: str) -> None:
        """Give the client its answer, and the state of its session after it."""
        self.conn.answer, self.conn.state = answer, state
        self.conn.unread = True
        if self.conn.heard_at is not None:
            self.conn.heard_at = self.clock.now
        self.conn.report_role()
        self.conn.wake()

    def _fate(self, sql: str) -> str | None:
        process = self.conn.process
        if not sql.endswith("COMMIT") or self.clock.rng.random() >= process.loses:
            return None
        return self.clock.rng.choice(LOST)

    async def _answer(self, sql: str) -> Reply:
        server = self.server
        if sql in answers.ANSWERS:
            return Reply(self._told(answers.answer(self.conn, sql), sql), ())
        if sql.startswith("SLEEP"):
            await self.clock.sleep(float(sql.split()[1]))
            await server.awake(self)
            return Reply([], ("SELECT 1",))
        if sql.startswith("SET client_min_messages"):
            self.hides_warnings = True
            return Reply([], ("SET",))
        if sql == "ROLLBACK":
            self._rolled_back()
            return Reply([], ("ROLLBACK",))
        if sql == commit_sql.PROBE:
            return Reply([("t" if server.store.witness else "f",)], ("SELECT 1",))
        if "pg_terminate_backend" in sql:
            return self._terminated(sql)
        return await self._written(sql)

    async def _written(self, sql: str) -> Reply:
        """What a writer alone does."""
        if not self.server.instance.writer:
            self.state = "idle" if "SET LOCAL" in sql else "error"
            raise refused("25006")
        if "SET LOCAL synchronous_commit" in sql:
            return await self._resolved(sql)
        if sql.startswith("SELECT coalesce"):
            own = self.txn is not None and self._asked_for(sql) == self.txn.xid
            return Reply([("t" if own else "f",)], ("SELECT 1",))
        if "pg_xact_status" in sql:
            if sql.startswith("ROLLBACK"):
                self._rolled_back()
            return Reply([(self.server.status(self._asked_for(sql)), self._is_own(sql))], ("SELECT 1",))
        if sql.endswith("COMMIT"):
            return await self._committed(sql)
        if sql.startswith("LEG"):
            if self.txn is None:
                self.state = "error"
                raise refused("25P01")
            self.txn.legs.append(tuple(sql.split()[1:]))
            return Reply([], ("INSERT 0 1",))
        return await self._begun(sql)

    def _is_own(self, sql: str) -> str:
        """Whether it is the session whose backend is named."""
        named = re.search(r"pg_backend_pid\(\) OPERATOR\(pg_catalog.=\) (\d+)", sql)
        started = re.search(r"int8 OPERATOR\(pg_catalog.=\) (\d+)", sql)
        assert named is not None
        assert started is not None
        return "t" if (int(named[1]), int(started[1])) == (self.pid, self.server.started) else "f"

    @staticmethod
    def _asked_for(sql: str) -> int | None:
        found = re.search(r"'(\d+)'::pg_catalog.xid8", sql)
        return int(found[1]) if found else None

    def _told(self, rows: Any, sql: str) -> Any:
        """The rows with ages by the server's own, wrong clock; what a writer says of itself is up to date."""
        server, cluster = self.server, self.conn.cluster
        if sql != answers.AURORA_POSTGRESQL.sql:
            return rows
        truthful = server is server.store.writer and server.instance.rewrites is None
        own = str(cluster.durable_lsn) if truthful else None
        told = []
        for *session, observer, id_, master, age, lag, cpu, lsn, updated in rows:
            aged = None if age is None else f"{float(age) + server.skew:.6f}"
            token = own if own and id_ == observer else lsn
            told.append((*session, observer, id_, master, aged, lag, cpu, token, updated))
        return told

    # ------------------------------------------------------------ transactions

    async def _begun(self, sql: str) -> Reply:
        server, store = self.server, self.server.store
        self.txn, self.state = server.begin(), "open"
        common = (str(self.txn.xid), str(self.pid), "0", str(server.started))
        if found := re.search(r"VALUES \('(.*?)'\)", sql):
            if not store.witness:
                self._fail("42P01")
            self.txn.witnesses[found[1]] = False
            return Reply([(*common, *PLACE)], ("BEGIN", "INSERT 0 1", "SELECT 1"))
        if "emit" not in sql:
            return Reply([], ("BEGIN",))
        if store.aurora:
            self._fail("0A000")
        server.buffer.append(Record("mark", self.txn.xid))
        lsn = server.log.end + 16 * len(server.buffer)
        life = self._life()
        if store.version >= commit_sql.FLUSHING_EMIT:
            await server.flush(self)
        restarts = "on" if store.restarts else "off"
        return Reply([(*common, str(lsn), restarts, *life)], ("BEGIN", "SELECT 1"))

    def _fail(self, sqlstate: str) -> None:
        self.state = "error"
        raise refused(sqlstate)

    def _life(self) -> tuple[str, str, str | None]:
        server = self.server
        recovered = None if server.recovered is None else f"0/{server.recovered:X}"
        return SYSTEM, f"{server.instance.timeline:08X}", recovered

    async def _committed(self, sql: str) -> Reply:
        guard = self._asked_for(sql)
        if self.txn is None or (guard is not None and guard != self.txn.xid):
            self._fail("22012")
        assert self.txn is not None
        replicated = await self.server.commit(self, self.txn)
        self.txn, self.state = None, "idle"
        audible = not self.hides_warnings or "client_min_messages" in sql
        notices = (CANCELLED,) if audible and not replicated else ()
        return Reply([], ("SELECT 1", "COMMIT") if guard is not None else ("COMMIT",), notices)

    # ------------------------------------------------------------ asking for an outcome

    async def _resolved(self, sql: str) -> Reply:
        server = self.server
        barrier = server.begin()
        try:
            rows = await self._by_witness(sql, barrier) if ".witness" in sql else self._by_log(sql, barrier)
        except DialFailed:
            server.abort(barrier)
            raise
        replicated = await server.commit(self, barrier)
        return Reply(rows, ("BEGIN", "SELECT 1", "COMMIT"), () if replicated else (CANCELLED,))

    def _by_log(self, sql: str, barrier: Transaction) -> Any:
        server = self.server
        found = re.search(r"CASE WHEN '(\d+)'", sql)
        assert found is not None
        xid = int(found[1])
        status = server.status(xid) if xid < barrier.xid else "future"
        server.buffer.append(Record("mark", barrier.xid))
        return [(status, "t" if server.promoted else "f", str(server.started), "0/1", *self._life())]

    async def _by_witness(self, sql: str, barrier: Transaction) -> Any:
        server, until = self.server, self.clock.now + 0.5
        found = re.search(r"id OPERATOR\(pg_catalog.=\) '(.*?)'", sql)
        assert found is not None
        id_ = found[1]
        if f"VALUES ('{id_}', true)" not in sql:
            return [("f" if server.log.witnesses.get(id_) is False else "t", "1.0", *PLACE)]
        while any(id_ in each.witnesses for each in server.running.values()):
            if self.clock.now >= until:
                self.state = "error"
                raise refused("55P03")
            await server.gate.wait(until)
            await server.awake(self)
        void = self._witness_of(id_)
        if void is None:
            barrier.witnesses[id_] = void = True
        return [("t" if void else "f", "1.0", *PLACE)]

    def _witness_of(self, id_: str) -> bool | None:
        for each in self.server.buffer:
            if each.kind == "committed" and id_ in dict(each.witnesses):
                return dict(each.witnesses)[id_]
        return self.server.log.witnesses.get(id_)

    def _terminated(self, sql: str) -> Reply:
        pid = re.search(r"a.pid OPERATOR\(pg_catalog.=\) (\d+)", sql)
        xid = re.search(r"backend_xid OPERATOR\(pg_catalog.=\) '(\d+)'", sql)
        assert pid is not None
        assert xid is not None
        for each in list(self.server.sessions):
            own = each.pid == int(pid[1]) and each.txn is not None and each.txn.xid == int(xid[1])
            if own and not each._busy and each.state in {"open", "error"}:
                each._rolled_back()
                each.die()
        return Reply([], ("SELECT 1",))
