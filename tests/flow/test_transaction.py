"""The procedures around a commit on the virtual clock: every message may be lost, before or after it took effect.

The server here is a model: it knows transactions, an xid counter and witness rows, and what to do with the very
messages of `flow.marks`, told apart by what they begin and end with. What SQL means is tried on real servers
(`tests/commits`); here it is the order of things, under schedules that a real server would hardly ever meet.
"""

from __future__ import annotations

import re
from contextlib import contextmanager

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_router.errors import CommitOutcomeUnknown, InvalidOption, TransactionEnded
from aurora_router.flow.outcome import Resolving
from aurora_router.flow.session import Modes, Notice, Reply
from aurora_router.flow.transaction import Plan, Transaction
from aurora_router.flow.world import DialFailed
from aurora_router.policy.outcome import Outcome
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime.call import read_call
from aurora_router.runtime.simulated.world import SimulatedWorld
from aurora_router.runtime.transacting import BlockingSessions
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation

FATES = ["fine", "lost before", "lost after", "unreplicated"]
CANCELLED = Notice("SyncRepWaitForLSN", "canceling wait for synchronous replication due to user request")


def refused(sqlstate):
    error = psycopg.errors.lookup(sqlstate)(sqlstate)
    return DialFailed(Fault(FaultKind.REJECTED, sqlstate, sqlstate), error)


def broke():
    return DialFailed(Fault(FaultKind.RESET, None, "reset"), psycopg.OperationalError("reset"))


class Database:
    """What all instances share: as Aurora's volume, it loses nothing."""

    def __init__(self, *, witness=True, log=True):
        self.witness_installed, self.log_offered = witness, log
        self.witnesses = {}
        self.status = {}
        self.ledger = []
        self.lacks_log_by = "0A000"
        self.xid = 700


class Sessions(SimulatedWorld):
    """A `SessionWorld` over a simulated cluster; `fates` is what becomes of the messages, in turn."""

    def __init__(self, network, database, fates=()):
        super().__init__(network)
        self.database_ = database
        self.fates = list(fates)
        self.connection_modes = Modes()
        self.sent = []

    async def execute(self, connection, sql, seconds):
        await self.simulation.sleep(0.001)
        self.sent.append(sql)
        fate = self.fates.pop(0) if self.fates else "fine"
        if self.broken(connection):
            raise broke()
        if fate == "lost before":
            self._lose(connection)
            raise broke()
        reply = self._answer(connection, sql)
        if fate == "lost after":
            self._lose(connection)
            raise broke()
        return Reply(reply.rows, reply.tags, (CANCELLED,)) if fate == "unreplicated" else reply

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
            raise refused("42P01" if ".witness" in sql else database.lacks_log_by)
        common = (str(database.xid), "1", "0", "0")
        if found := re.search(r"VALUES \('(.*?)'\)", sql):
            connection.written[found[1]] = False
            return Reply([common], ("BEGIN", "INSERT 0 1", "SELECT 1"))
        if "emit" in sql:
            return Reply([(*common, str(database.xid * 10), "off", "sys", "00000001", None)], ("BEGIN", "SELECT 1"))
        return Reply([], ("BEGIN",))

    def _committed(self, connection, sql):
        guard = re.search(r"'(\d+)'::pg_catalog.xid8", sql)
        if guard and int(guard[1]) != connection.xid:
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
        database.xid += 1
        if found := re.search(r"VALUES \('(.*?)', true\) ON CONFLICT", sql):
            void = database.witnesses.setdefault(found[1], True)
            return Reply([("t" if void else "f", "1.0")], ("BEGIN", "SELECT 1", "COMMIT"))
        xid = int(re.search(r"CASE WHEN '(\d+)'", sql)[1])
        status = database.status.get(xid, "in progress")
        return Reply([(status, "f", "0", "0/1", "sys", "00000001", None)], ("BEGIN", "SELECT 1", "COMMIT"))

    # ------------------------------------------------------------ what is known without asking

    async def rollback(self, connection):
        self._end(connection, "aborted")

    def broken(self, connection):
        return connection.broken or connection.closed

    def idle(self, connection):
        return getattr(connection, "state", "idle") == "idle"

    def aborted(self, connection):
        return getattr(connection, "state", "idle") == "error"

    def modes(self, connection):
        return self.connection_modes

    def server_version(self, connection):
        return 150000

    def database(self, connection):
        return "app"

    def trouble(self, error):
        return BlockingSessions.trouble(self, error)

    def unique(self):
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
        self.world = Sessions(network, self.database, fates)
        given = {f"aurora_{key}": value for key, value in options.items()}
        self.call = read_call(self.cluster.conninfo("writer", aurora_monitor="off"), given)
        self.tickets = []
        self.calls = 0
        self.given_back = 0
        self.ways = {}

    def resolving(self, ticket):
        return Resolving(self.world, self.process.home.find, self.call.request, self.call.sources, ticket)

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
        plan = Plan(self.call.request.options, self.take, self.give, self.resolving, self.ways)
        transaction = Transaction(self.world, plan, work or self.work, modes or Modes(), finish, self.tickets.append)
        return self.simulation.run(transaction.run())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FATES), max_size=12), st.sampled_from(["log", "witness"]), st.integers(0, 9))
def test_whatever_is_lost_it_commits_once_or_says_so(fates, way, seed):
    ground = Ground(fates, seed=seed, outcome=way, failover_timeout=30)
    try:
        assert ground.run() == "done"
        assert ground.database.ledger == [1]
    except CommitOutcomeUnknown:
        assert len(ground.database.ledger) <= 1
    except psycopg.OperationalError:
        assert ground.database.ledger == []
    finally:
        ground.simulation.close()


@pytest.fixture
def ground():
    made = []

    def make(*args, **options):
        made.append(Ground(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.simulation.close()


def test_the_way_in_takes_one_message_and_the_way_out_another(ground):
    at = ground()
    assert at.run(modes=Modes("SERIALIZABLE", deferrable=True)) == "done"
    _probe, begin, commit = at.world.sent
    assert begin.startswith("BEGIN ISOLATION LEVEL SERIALIZABLE DEFERRABLE; INSERT INTO aurora_router.witness")
    assert commit.endswith("COMMIT")
    at.run()
    assert len(at.world.sent) == 5, "the way is asked for once"


def test_auto_takes_the_log_where_there_is_no_witness_and_nothing_where_there_is_no_log(ground):
    at = ground(witness=False)
    at.run()
    assert at.tickets[0].lsn == at.tickets[0].xid * 10
    for sqlstate in ("0A000", "42883", "XX000", "55000"):
        at = ground(witness=False, log=False)
        at.database.lacks_log_by = sqlstate
        assert at.run() == "done"
        assert at.tickets == []


def test_a_witness_table_that_vanishes_is_noticed(ground):
    at = ground()
    at.run()
    at.database.witness_installed = False
    assert at.run() == "done"
    assert at.tickets[-1].witness is None


@pytest.mark.parametrize("way", ["log", "witness"])
def test_a_way_that_is_insisted_on_and_not_there(ground, way):
    with pytest.raises(InvalidOption, match=f"aurora_outcome={way}"):
        ground(witness=False, log=False, outcome=way).run()


def test_without_a_way_a_lost_answer_is_unknown(ground):
    with pytest.raises(CommitOutcomeUnknown) as raised:
        ground(["fine", "lost after"], outcome="off").run()
    assert raised.value.ticket is None


def test_a_read_only_transaction_leaves_no_mark_and_is_run_again(ground):
    at = ground(["fine", "lost after"])
    assert at.run(modes=Modes(read_only=True)) == "done"
    assert at.world.sent == ["BEGIN READ ONLY", "COMMIT"] * 2
    assert at.calls == 2


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_conflicts_are_tried_again_up_to_the_limit(ground, sqlstate):
    at = ground(transaction_attempts=3)

    async def work(connection):
        at.calls += 1
        connection.conflict = sqlstate

    with pytest.raises(psycopg.errors.lookup(sqlstate)):
        at.run(work)
    assert at.calls == 3
    assert at.given_back == 3


def test_the_deadline_ends_it(ground):
    at = ground(transaction_attempts=1000, transaction_timeout=5)

    async def work(connection):
        await at.simulation.sleep(1.0)
        raise psycopg.errors.SerializationFailure("40001")

    began = at.world.now()
    with pytest.raises(psycopg.errors.SerializationFailure):
        at.run(work)
    assert at.world.now() - began < 8


def test_errors_of_the_work_are_not_tried_again(ground):
    at = ground()

    async def work(connection):
        at.calls += 1
        raise KeyError("mine")

    with pytest.raises(KeyError):
        at.run(work)
    assert at.calls == 1
    assert at.database.status == {701: "aborted"}


def test_a_connection_lost_in_the_work_is_replaced(ground):
    at = ground()

    async def work(connection):
        at.calls += 1
        if at.calls == 1:
            connection.breaks()
            raise psycopg.OperationalError("gone")
        return await at.work(connection)

    assert at.run(work) == "done"
    assert at.database.ledger == [1]


def test_dead_connections_of_a_pool_are_no_attempts(ground):
    at = ground(["fine"] + ["lost before"] * 10, transaction_attempts=1)
    assert at.run() == "done"


def test_a_demoted_writer_is_an_attempt(ground):
    at = ground(transaction_attempts=2)

    async def work(connection):
        at.calls += 1
        raise psycopg.errors.ReadOnlySqlTransaction("25006")

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        at.run(work)
    assert at.calls == 2


@pytest.mark.parametrize("state", ["idle", "error"])
def test_a_work_that_ends_or_breaks_its_transaction(ground, state):
    async def work(connection):
        connection.state = state

    with pytest.raises(TransactionEnded):
        ground().run(work)


def test_a_work_that_begins_another_transaction_does_not_commit_it(ground):
    at = ground()

    async def work(connection):
        connection.xid += 100

    with pytest.raises(TransactionEnded, match="by the work itself"):
        at.run(work)
    assert at.database.ledger == []


def test_a_layer_above_commits_by_the_connection(ground):
    at = ground(["fine", "fine", "lost after"])
    held = []

    async def work(connection):
        held.append(connection)
        return await at.work(connection)

    async def finish():
        await held[-1].commit()

    assert at.run(work, finish=finish) == "done"
    assert at.database.ledger == [1]
    assert at.calls == 1


def test_a_layer_above_that_does_not_commit_is_told(ground):
    async def finish():
        pass

    with pytest.raises(TransactionEnded, match="did not commit"):
        ground().run(finish=finish)


def test_modes_of_a_transaction_that_has_begun_already(ground):
    at = ground()

    async def take():
        connection = await Ground.take(at)
        connection.state = "open"
        return connection

    at.take = take
    with pytest.raises(InvalidOption, match="begun already"):
        at.run(modes=Modes("SERIALIZABLE"))


def test_a_transaction_that_lives_is_in_progress_until_the_time_is_up(ground):
    at = ground(outcome="log", failover_timeout=10)
    at.run()
    at.database.status.clear()
    finding = at.simulation.run(at.resolving(at.tickets[0]).run())
    assert finding.outcome is Outcome.IN_PROGRESS
    assert any("pg_terminate_backend" in sql for sql in at.world.sent)
    assert 10 <= at.world.now() < 20


def test_nobody_who_proves_to_be_the_writer(ground):
    at = ground(failover_timeout=5)
    at.run()
    at.world.fates = ["unreplicated"] * 10_000
    finding = at.simulation.run(at.resolving(at.tickets[0]).run())
    assert finding.outcome is Outcome.UNKNOWN
    assert "not acknowledged" in finding.reason


@pytest.mark.parametrize("way", ["log", "witness"])
def test_what_can_not_be_told_is_said_to_be_unknown(ground, way):
    at = ground(outcome=way, failover_timeout=5)

    async def work(connection):
        result = await at.work(connection)
        at.world.fates = ["lost after"] + ["lost before"] * 10_000
        return result

    with pytest.raises(CommitOutcomeUnknown) as raised:
        at.run(work)
    assert raised.value.ticket == at.tickets[-1]
    assert raised.value.sqlstate == "08007"
    assert at.calls == 1


def test_a_success_without_replicas_is_asked_for(ground):
    at = ground(["fine", "unreplicated", "unreplicated", "fine"], outcome="log")
    assert at.run() == "done"
    _begin, _commit, *asked = at.world.sent
    assert len(asked) == 2
    assert all("'barrier'" in sql for sql in asked)
