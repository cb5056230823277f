"""A server of which the procedures around a commit are convinced, on the virtual clock.

It is a model: it knows transactions, an xid counter and witness rows, and what to do with the messages of
`flow.commit_sql`, distinguished by what they begin and end with. What SQL means is tried on real servers
(`tests/commits`).
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from aurora_router.flow.begin import Plan
from aurora_router.flow.outcome import Resolver
from aurora_router.flow.runtime import DialFailed
from aurora_router.flow.session import Modes, Notice, Reply, TransactionRecord
from aurora_router.flow.transaction import Transaction
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.simulated.runtime import SimulatedRuntime
from aurora_router.runtime.transacting import BlockingSessions
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation

FATES = ["fine", "lost before", "lost after", "unreplicated"]
LATER = "unreplicated, and lost later"
"""COMMIT is acknowledged with the warning of a wait that was cut short; then a failover loses what was committed."""
CANCELLED = Notice("SyncRepWaitForLSN", "canceling wait for synchronous replication due to user request")


def refused(sqlstate, severity="ERROR"):
    try:
        kind = psycopg.errors.lookup(sqlstate or "")
    except KeyError:
        kind = psycopg.DatabaseError
    error = kind(sqlstate)
    return DialFailed(Fault(FaultKind.REJECTED, sqlstate, sqlstate, severity), error)


@dataclass(frozen=True)
class Answered:
    """A pooler loses its server during a message, and answers for it; its client's connection goes on with another one.

    Attributes:
        sqlstate: of the pooler's error.
        severity: of that error.
        arrived: whether the server has carried out the message.
    """

    sqlstate: str | None
    severity: str = "ERROR"
    arrived: bool = True

    def loses(self, sessions, connection):
        """End the server's session, as far as it goes on."""
        sessions._end(connection, "aborted")
        connection.moved = True


def broke():
    return DialFailed(Fault(FaultKind.RESET, None, "reset"), psycopg.OperationalError("reset"))


def guarded(sql):
    """The xid that a message asks for, or guards COMMIT with."""
    found = re.search(r"'(\d+)'::pg_catalog.xid8", sql)
    return found and found[1]


class Database:
    """What all instances share: as Aurora's volume, it loses nothing."""

    def __init__(self, *, witness=True, log=True):
        self.witness_installed, self.log_offered = witness, log
        self.witnesses = {}
        self.status = {}
        self.ledger = []
        self.lacks_log_by = "0A000"
        self.lacks_witness_by = "42P01"
        self.xid = 700
        self.oid, self.system = 16384, "7"
        self.settings = {}
        """Of each new session, as ALTER ROLE … SET makes them."""

    def lose(self):
        """Fail over to a replica that has nothing of what was committed."""
        self.ledger, self.witnesses = [], {}
        self.status = dict.fromkeys(self.status, "aborted")

    def witness_table(self):
        return (str(self.oid), "16400", self.system)


class Sessions(SimulatedRuntime):
    """A `SessionRuntime` over a simulated cluster; `fates` is what happens to the messages, in turn."""

    def __init__(self, network, database, fates=()):
        super().__init__(network)
        self.database_ = database
        self.fates = list(fates)
        self.connection_modes = Modes()
        self.sent = []
        self.advice = []

    async def execute(self, connection, sql, seconds):
        await self.simulation.sleep(0.001)
        self.sent.append(sql)
        fate = self.fates.pop(0) if self.fates else "fine"
        if self.is_broken(connection):
            raise broke()
        if fate == "lost before":
            self._lose(connection)
            raise broke()
        reply = None if isinstance(fate, Answered) and not fate.arrived else self._answer(connection, sql)
        if fate == "lost after":
            self._lose(connection)
            raise broke()
        if isinstance(fate, Answered):
            fate.loses(self, connection)
            raise refused(fate.sqlstate, fate.severity)
        if fate == LATER and sql.endswith("COMMIT"):
            self.database_.lose()
        cut_short = fate in {"unreplicated", LATER} and self._audible(connection, sql)
        return Reply(reply.rows, reply.tags, (CANCELLED,)) if cut_short else reply

    def _audible(self, connection, sql):
        """Whether a warning that comes with COMMIT reaches the client: what was set last before it counts."""
        level = {**self.database_.settings, **getattr(connection, "settings", {})}.get("client_min_messages")
        deferred = dict(getattr(connection, "deferred", {}))
        for statement in sql.split("; "):
            if statement == "SET CONSTRAINTS ALL IMMEDIATE" or statement.endswith("COMMIT"):
                level = deferred.pop("client_min_messages", level)
            if found := re.fullmatch(r"SET LOCAL client_min_messages TO (\w+)", statement):
                level = found[1]
        return level != "error"

    def _lose(self, connection):
        self._end(connection, "aborted")
        connection.breaks()

    def _end(self, connection, status):
        if getattr(connection, "xid", None) is not None:
            self.database_.status[connection.xid] = status
            if status == "committed":
                self.database_.ledger += connection.rows
                self.database_.witnesses.update(connection.written)
        connection.xid, connection.state = None, "idle"

    def _answer(self, connection, sql):
        if "pg_class" in sql:
            return Reply([("t" if self.database_.witness_installed else "f",)], ("SELECT 1",))
        if sql == "ROLLBACK":
            self._end(connection, "aborted")
            return Reply([], ("ROLLBACK",))
        if sql.startswith("SELECT coalesce"):
            return Reply([("t" if int(guarded(sql)) == connection.xid else "f",)], ("SELECT 1",))
        if "pg_xact_status" in sql and "barrier" not in sql:
            if sql.startswith("ROLLBACK"):
                self._end(connection, "aborted")
            own = "f" if getattr(connection, "moved", False) else "t"
            return Reply([(self.database_.status.get(int(guarded(sql)), "in progress"), own)], ("SELECT 1",))
        if "pg_terminate_backend" in sql:
            return Reply([], ("SELECT 0",))
        if "SET LOCAL synchronous_commit" in sql:
            return self._asked(sql)
        if sql.endswith("COMMIT"):
            return self._committed(connection, sql)
        return self._begun(connection, sql)

    def _begun(self, connection, sql):
        database = self.database_
        lacks = (".witness" in sql and not database.witness_installed) or ("emit" in sql and not database.log_offered)
        database.xid += 1
        connection.xid, connection.state = database.xid, "error" if lacks else "open"
        connection.rows, connection.written = [], {}
        if lacks:
            raise refused(database.lacks_witness_by if ".witness" in sql else database.lacks_log_by)
        common = (str(database.xid), "1", "0", "0")
        if found := re.search(r"VALUES \('(.*?)'\)", sql):
            connection.written[found[1]] = False
            if database.system is None and "pg_control_system" in sql:
                connection.state = "error"
                raise refused("0A000")
            return Reply([(*common, *database.witness_table())], ("BEGIN", "INSERT 0 1", "SELECT 1"))
        if "emit" in sql:
            return Reply([(*common, str(database.xid * 10), "off", "sys", "00000001", None)], ("BEGIN", "SELECT 1"))
        return Reply([], ("BEGIN",))

    def _committed(self, connection, sql):
        guard = guarded(sql)
        if "IS NULL THEN 1" in sql and connection.rows:
            connection.state = "error"
            raise refused("22012")
        if guard and int(guard) != connection.xid:
            connection.state = "error"
            raise refused("22012")
        if getattr(connection, "conflict", None):
            sqlstate, connection.conflict = connection.conflict, None
            self._end(connection, "aborted")
            raise refused(sqlstate)
        self._end(connection, "committed")
        return Reply([], ("SELECT 1", "COMMIT") if guard else ("COMMIT",))

    def _asked(self, sql):
        database = self.database_
        limited = [name for name, value in database.settings.items() if value and name.endswith("_timeout")]
        if any(f"SET LOCAL {name} TO" not in sql for name in limited):
            raise refused("57014")
        database.xid += 1
        if found := re.search(r"VALUES \('(.*?)', true\) ON CONFLICT", sql):
            void = database.witnesses.setdefault(found[1], True)
            return Reply([("t" if void else "f", "1.0", *database.witness_table())], ("BEGIN", "SELECT 1", "COMMIT"))
        xid = int(re.search(r"CASE WHEN '(\d+)'", sql)[1])
        status = database.status.get(xid, "in progress")
        return Reply([(status, "f", "0", "0/1", "sys", "00000001", None)], ("BEGIN", "SELECT 1", "COMMIT"))

    def acts(self, connection, *actions):
        """What a work does by itself in one message; the status that libpq reports after it is noted."""
        if self.is_broken(connection):
            raise psycopg.OperationalError("the connection is lost")
        for action in actions:
            if action == "insert":
                if self.is_idle(connection):
                    self._begin_another(connection)
                connection.rows.append(1)
            elif action == "fail":
                connection.state = "error"
            else:
                self._end(connection, "committed" if action.startswith("commit") else "aborted")
                if action.endswith("and chain"):
                    self._begin_another(connection)
        connection.record.note(idle=self.is_idle(connection), rollback=actions == ("rollback()",))

    def _begin_another(self, connection):
        self.database_.xid += 1
        connection.xid, connection.state = self.database_.xid, "open"
        connection.rows, connection.written = [], {}

    # ------------------------------------------------------------ what is known without asking

    async def complete(self, act, connection):
        await act(connection)

    async def rollback(self, connection):
        self._end(connection, "aborted")

    def is_broken(self, connection):
        return connection.broken or connection.closed

    def is_idle(self, connection):
        return getattr(connection, "state", "idle") == "idle"

    def is_aborted(self, connection):
        return getattr(connection, "state", "idle") == "error"

    def is_busy(self, connection):
        return False

    def modes(self, connection):
        return self.connection_modes

    def server_version(self, connection):
        return 150000

    def database(self, connection):
        return "app"

    def trouble(self, error):
        return BlockingSessions.trouble(self, error)

    def advise(self, connection, text):
        self.advice.append(text)

    @contextmanager
    def watching(self, connection):
        connection.record = TransactionRecord()
        yield connection.record

    def new_id(self):
        return f"{0:08x}-0000-4000-8000-{self.simulation.rng.getrandbits(40):012x}"

    @contextmanager
    def committing(self, connection, send):
        connection.commit = send
        yield
        del connection.commit


class Ground:
    """A simulation with one cluster, and a client in it."""

    def __init__(self, fates=(), *, witness=True, log=True, seed=0, **options):
        self.simulation = Simulation(seed)
        network = Network(self.simulation)
        self.cluster = SimulatedCluster(network, readers=1)
        self.process = SimulatedProcess(network)
        self.database = Database(witness=witness, log=log)
        self.runtime = Sessions(network, self.database, fates)
        given = {f"aurora_{key}": value for key, value in options.items()}
        self.args = read_connect_args(self.cluster.conninfo("writer", aurora_monitor="off"), given)
        self.tokens = []
        self.calls = 0
        self.given_back = 0
        self.methods = {}
        self.degraded = {}
        self.nameless = set()
        self.report = None
        self.asked_runtime = self.runtime
        """Where the resolver asks."""

    async def asking(self, token):
        return self.new_resolver(token)

    def new_resolver(self, token):
        return Resolver(self.asked_runtime, self.process.home.find, self.args.request, self.args.sources, token)

    async def take(self):
        return await self.process.connect(self.cluster.conninfo("writer", aurora_monitor="off"))

    async def give(self, connection):
        self.given_back += 1
        connection.close()

    async def work(self, connection):
        self.calls += 1
        connection.rows.append(1)
        return "done"

    def run(self, work=None, modes=None, finish=None):
        plan = Plan(
            self.args.request.options, self.take, self.give, self.asking, self.methods, self.degraded, self.nameless
        )
        given = (work or self.work, modes or Modes(), finish, self.tokens.append)
        transaction = Transaction(self.runtime, plan, *given, report=self.report)
        return self.simulation.run(transaction.run())
