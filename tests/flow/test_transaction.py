"""The procedures around a commit on the virtual clock: every message may be lost, before or after it took effect.

It is the order of things that is tried here, under schedules that a real server would hardly ever meet.
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurora_router.errors import CommitOutcomeUnknown, InvalidOption, TransactionEnded
from aurora_router.flow import commit_sql
from aurora_router.flow.begin import DEGRADED_SECONDS
from aurora_router.flow.session import Modes
from aurora_router.policy.options import OutcomeMethod
from aurora_router.policy.outcome import Outcome
from tests.flow.commit_ground import FATES, LATER, Answered, Database, Ground, Sessions

TRANSIENT = ["57014", "55P03", "53200", "40001", "XX000"]
"""SQLSTATEs that say nothing about what a server offers: cut short, no lock, no memory, a conflict, a fault."""


@given(st.lists(st.sampled_from(FATES), max_size=12), st.sampled_from(["log", "witness"]), st.integers(0, 9))
def test_whatever_is_lost_it_commits_once_or_says_so(fates, method, seed):
    ground = Ground(fates, seed=seed, outcome=method, failover_timeout=30)
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
    _probe, begin, commit = at.runtime.sent
    assert begin.startswith("BEGIN ISOLATION LEVEL SERIALIZABLE DEFERRABLE; INSERT INTO aurora_router.witness")
    assert commit.endswith("COMMIT")
    at.run()
    assert len(at.runtime.sent) == 5, "the method is asked for once"


def test_auto_takes_the_log_where_there_is_no_witness_and_nothing_where_there_is_no_log(ground):
    at = ground(witness=False)
    at.run()
    assert at.tokens[0].lsn == at.tokens[0].xid * 10
    for sqlstate in ("0A000", "42883", "42501", "55000"):
        at = ground(witness=False, log=False)
        at.database.lacks_log_by = sqlstate
        assert at.run() == "done"
        assert at.tokens == []


def test_a_witness_table_that_vanishes_is_noticed(ground):
    at = ground()
    at.run()
    at.database.witness_installed = False
    assert at.run() == "done"
    assert at.tokens[-1].witness is None


@pytest.mark.parametrize("elsewhere", [{"oid": 16385}, {"system": "8"}])
@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_resolver_that_asks_elsewhere_has_no_verdict(ground, elsewhere, fate):
    at = ground(["fine", "fine", fate])
    other = Database()
    for name, value in elsewhere.items():
        setattr(other, name, value)
    at.asked_runtime = Sessions(at.runtime.network, other)
    with pytest.raises(CommitOutcomeUnknown, match="ask by a router") as raised:
        at.run()
    assert raised.value.token == at.tokens[-1]
    assert at.calls == 1


def test_a_server_that_does_not_give_its_system_identifier(ground):
    at = ground(["fine", "fine", "fine", "lost after"])
    at.database.system = None
    assert at.run() == "done"
    assert at.tokens[0].witness_table.system is None
    begun = [sql for sql in at.runtime.sent if sql.startswith("BEGIN")]
    assert len(begun) == 3, "refused, without, and the resolver's"
    sent = len(at.runtime.sent)
    at.run()
    assert len(at.runtime.sent) == sent + 2, "it is remembered"


ANSWERS = [
    *(Answered(code, "FATAL") for code in ("58000", "57P01", "08006", "23505", "40001")),
    *(Answered(code) for code in ("58000", "08P01", "08006", "57P01", "XX000", "40003", None)),
]
"""What poolers answer with that lost their server."""
DOUBTFUL = [Answered(code) for code in ("40001", "40P01", "57014", "53300", "UE001")]
"""What a server answers with that refuses a COMMIT, and a pooler could as well."""


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("answer", ANSWERS, ids=str)
@pytest.mark.parametrize("method", ["log", "witness"])
def test_a_pooler_that_answers_commit_for_a_lost_server_is_not_believed(ground, method, answer, arrived):
    at = ground(["fine", replace(answer, arrived=arrived)], outcome=method)
    assert at.run() == "done"
    assert at.database.ledger == [1]
    assert at.calls == (1 if arrived else 2)


@pytest.mark.parametrize("answer", DOUBTFUL, ids=str)
@pytest.mark.parametrize("method", ["log", "witness"])
def test_an_error_that_a_server_may_have_answered_commit_with_is_asked_for(ground, method, answer):
    at = ground(["fine", answer], outcome=method)
    assert at.run() == "done"
    assert (at.database.ledger, at.calls) == ([1], 1)


@pytest.mark.parametrize("answer", [Answered("57014", arrived=False), Answered("UE001", arrived=False)], ids=str)
def test_an_error_that_proves_to_be_a_refusal_is_raised_as_it_is(ground, answer):
    at = ground(["fine", answer], outcome="log")
    with pytest.raises(psycopg.Error) as raised:
        at.run()
    assert raised.value.args == (answer.sqlstate,)
    assert (at.database.ledger, at.calls) == ([], 1)


@pytest.mark.parametrize(("sqlstate", "asked"), [("23505", 0), ("P0001", 0), ("57014", 1), ("58030", 1)])
def test_a_server_that_refuses_commit_is_asked_once_and_on_its_connection(ground, sqlstate, asked):
    at = ground(outcome="log")

    async def work(connection):
        at.calls += 1
        connection.conflict = sqlstate

    with pytest.raises(psycopg.Error) as raised:
        at.run(work)
    assert (raised.value.args, at.calls) == ((sqlstate,), 1)
    assert len(at.runtime.sent) == 2 + asked


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_a_pooler_that_answers_commit_for_a_lost_server_leaves_it_unknown_without_a_token(ground, answer):
    at = ground(["fine", answer], outcome="off")
    with pytest.raises(CommitOutcomeUnknown):
        at.run()
    assert at.calls == 1


def test_a_work_that_committed_and_failed_is_not_judged_by_another_server(ground):
    """The pooler's next server may know the number of the transaction, as that of another one."""
    at = ground(outcome="log", transaction_attempts=2)

    async def work(connection):
        at.calls += 1
        at.runtime.acts(connection, "insert")
        if at.calls == 1:
            at.runtime.acts(connection, "commit and chain")
            at.runtime.acts(connection, "fail")
            connection.moved = True
            raise CONFLICT("40001")

    with pytest.raises(TransactionEnded):
        at.run(work)
    assert at.database.ledger == [1]
    assert any("'barrier'" in sql for sql in at.runtime.sent)


@pytest.mark.parametrize("method", ["log", "witness"])
def test_a_way_that_is_insisted_on_and_not_there(ground, method):
    with pytest.raises(InvalidOption, match=f"aurora_outcome={method}"):
        ground(witness=False, log=False, outcome=method).run()


def test_without_a_way_a_lost_answer_is_unknown(ground):
    with pytest.raises(CommitOutcomeUnknown) as raised:
        ground(["fine", "lost after"], outcome="off").run()
    assert raised.value.token is None


def test_a_read_only_transaction_leaves_no_mark_and_is_run_again(ground):
    at = ground(["fine", "lost after"])

    async def work(connection):
        at.calls += 1
        return "done"

    assert at.run(work, modes=Modes(read_only=True)) == "done"
    assert at.runtime.sent == ["BEGIN READ ONLY", commit_sql.commit_read_only()] * 2
    assert at.calls == 2


@pytest.mark.parametrize("fate", ["fine", "lost before", "lost after"])
def test_a_read_only_transaction_that_writes_is_never_committed(ground, fate):
    """The work may have said SET TRANSACTION READ WRITE: no row is there twice."""
    at = ground(["fine", fate], transaction_attempts=2)
    with pytest.raises(InvalidOption, match="its work wrote"):
        at.run(modes=Modes(read_only=True))
    assert at.database.ledger == []


class Interruption(Exception):
    """What a signal handler raises."""


class Stop(BaseException):
    """The same, as KeyboardInterrupt."""


@pytest.mark.parametrize("kind", [Interruption, Stop])
@pytest.mark.parametrize("method", ["log", "witness", "off"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_of_commit_is_no_failure(ground, kind, method, when):
    at = ground(outcome=method)
    execute = at.runtime.execute

    async def interrupted(connection, sql, seconds):
        if not sql.endswith("COMMIT"):
            return await execute(connection, sql, seconds)
        if when == "after":
            await execute(connection, sql, seconds)
        connection.state = "open"
        raise kind

    at.runtime.execute = interrupted
    with pytest.raises(CommitOutcomeUnknown if kind is Interruption else Stop) as raised:
        at.run()
    assert raised.value.token == (at.tokens[-1] if at.tokens else None)
    assert kind is Stop or isinstance(raised.value.__cause__, Interruption)
    assert (at.calls, at.given_back) == (1, 1)


@pytest.mark.parametrize("kind", [Interruption, Stop])
def test_an_interruption_after_commit_is_no_failure(ground, kind):
    at = ground()

    async def give(connection):
        await Ground.give(at, connection)
        raise kind

    at.give = give
    with pytest.raises(CommitOutcomeUnknown if kind is Interruption else Stop) as raised:
        at.run()
    assert raised.value.token == at.tokens[-1]
    assert at.database.ledger == [1]


@pytest.mark.parametrize("kind", [Interruption, Stop])
def test_an_interruption_of_the_report_is_no_failure(ground, kind):
    """It comes last, when the connection was given back."""
    at = ground()

    def report():
        assert at.given_back == 1
        raise kind

    at.report = report
    with pytest.raises(CommitOutcomeUnknown if kind is Interruption else Stop) as raised:
        at.run()
    assert raised.value.token == at.tokens[-1]
    assert at.database.ledger == [1]


@pytest.mark.parametrize("kind", [Interruption, Stop])
def test_an_interruption_of_a_roll_back_is_raised_and_gives_the_connection_back(ground, kind):
    at = ground()
    seen = []

    async def rollback(connection):
        seen.append(connection)
        raise kind

    async def work(connection):
        raise psycopg.errors.SerializationFailure("40001")

    at.runtime.rollback = rollback
    with pytest.raises(kind):
        at.run(work)
    assert seen[0].closed
    assert at.given_back == 1


def test_an_interruption_while_it_is_asked_for_is_not_hidden(ground):
    at = ground()

    async def asking(token):
        raise Interruption

    async def work(connection):
        connection.breaks()
        raise psycopg.OperationalError("gone")

    at.asking = asking
    with pytest.raises(CommitOutcomeUnknown) as raised:
        at.run(work)
    assert isinstance(raised.value.__cause__, Interruption)


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

    began = at.runtime.now()
    with pytest.raises(psycopg.errors.SerializationFailure):
        at.run(work)
    assert at.runtime.now() - began < 8


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

    with pytest.raises(TransactionEnded, match="ended its transaction itself"):
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
    finding = at.simulation.run(at.new_resolver(at.tokens[0]).run())
    assert finding.outcome is Outcome.IN_PROGRESS
    assert any("pg_terminate_backend" in sql for sql in at.runtime.sent)
    assert 10 <= at.runtime.now() < 20


def test_nobody_who_proves_to_be_the_writer(ground):
    at = ground(failover_timeout=5)
    at.run()
    at.runtime.fates = ["unreplicated"] * 10_000
    finding = at.simulation.run(at.new_resolver(at.tokens[0]).run())
    assert finding.outcome is Outcome.UNKNOWN
    assert "not acknowledged" in finding.reason


@pytest.mark.parametrize("method", ["log", "witness"])
def test_what_can_not_be_told_is_said_to_be_unknown(ground, method):
    at = ground(outcome=method, failover_timeout=5)

    async def work(connection):
        result = await at.work(connection)
        at.runtime.fates = ["lost after"] + ["lost before"] * 10_000
        return result

    with pytest.raises(CommitOutcomeUnknown) as raised:
        at.run(work)
    assert raised.value.token == at.tokens[-1]
    assert raised.value.sqlstate == "08007"
    assert at.calls == 1


def test_a_success_without_replicas_is_asked_for(ground):
    at = ground(["fine", "unreplicated", "unreplicated", "fine"], outcome="log")
    assert at.run() == "done"
    _begin, _commit, *asked = at.runtime.sent
    assert len(asked) == 2
    assert all("'barrier'" in sql for sql in asked)


# ---------------------------------------------------------------- settings of a session


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "client_min_messages": st.sampled_from(["debug5", "notice", "warning", "error"]),
        **dict.fromkeys(["statement_timeout", "lock_timeout"], st.sampled_from([0, 1])),
    },
)


@pytest.mark.case
@given(
    SETTINGS,
    SETTINGS,
    SETTINGS,
    st.lists(st.sampled_from([*FATES, LATER]), max_size=6),
    st.sampled_from(["log", "witness"]),
)
@example({"client_min_messages": "error"}, {}, {}, [LATER], "log")
@example({}, {"client_min_messages": "error"}, {}, [LATER], "witness")
@example({}, {}, {"client_min_messages": "error"}, [LATER], "log")
@example({"client_min_messages": "error"}, {}, {}, ["lost after", LATER], "log")
@example({"statement_timeout": 1, "lock_timeout": 1}, {}, {}, ["lost after"], "log")
def test_no_setting_of_a_session_changes_a_verdict(of_role, of_work, of_trigger, fates, method):
    """Settings of the role, of the work by SET LOCAL, and of a deferred trigger that runs within COMMIT."""
    ground = Ground(["fine", *fates], outcome=method, failover_timeout=30)
    ground.database.settings = of_role

    async def work(connection):
        connection.settings, connection.deferred = of_work, of_trigger
        return await ground.work(connection)

    try:
        assert ground.run(work) == "done"
        assert ground.database.ledger == [1]
    except CommitOutcomeUnknown:
        assert len(ground.database.ledger) <= 1
    except psycopg.OperationalError:
        assert ground.database.ledger == []
    finally:
        ground.simulation.close()


@pytest.mark.parametrize("version", [150000, 170000])
@pytest.mark.parametrize("method", ["log", "witness"])
def test_time_limits_of_the_role_do_not_stop_the_resolver(ground, method, version):
    at = ground(["fine", "lost after"], outcome=method)
    at.database.settings = dict.fromkeys(["statement_timeout", "lock_timeout"], 1)
    if version >= 170000:
        at.database.settings["transaction_timeout"] = 1
    at.runtime.server_version = lambda _: version
    assert at.run() == "done"
    assert at.calls == 1


# ---------------------------------------------------------------- a work that ends its transaction

ENDINGS = ["commit", "rollback", "rollback()", "commit and chain", "rollback and chain"]
CONFLICT = psycopg.errors.SerializationFailure


async def fail_later(at, connection, how):
    at.calls += 1
    if how == "lost":
        connection.breaks()
        raise psycopg.OperationalError("gone")
    raise CONFLICT("40001") if how == "conflict" else KeyError("mine")


@pytest.mark.case
@given(
    st.lists(st.sampled_from(["insert", *ENDINGS]), max_size=5),
    st.sampled_from(["conflict", "lost", "error"]),
    st.sampled_from(["log", "witness", "off"]),
    st.booleans(),
)
@example(["rollback and chain", "insert", "commit"], "conflict", "log", False)
def test_a_work_that_ends_its_transaction_is_never_run_again(actions, how, method, fails_once):
    """What it did is there once at most: either it is raised that it ended its transaction, or it is run again."""
    if method == "off" and any(each.endswith("chain") for each in actions):
        return  # without a token there is no evidence
    if "rollback and chain" in actions and "commit and chain" in actions:
        return  # documented
    ground = Ground(outcome=method, failover_timeout=30, transaction_attempts=3)
    committed = []

    async def work(connection):
        ground.database.ledger.clear()  # what an earlier run left would be a duplicate
        assert not committed
        for action in actions:
            ground.runtime.acts(connection, action)
            committed.extend(ground.database.ledger)
        if not fails_once or ground.calls == 0:
            await fail_later(ground, connection, how)
        return "done"

    try:
        ground.run(work)
    except (TransactionEnded, CommitOutcomeUnknown, psycopg.Error, KeyError):
        pass
    finally:
        ground.simulation.close()


@pytest.mark.parametrize("method", ["log", "witness", "off"])
@pytest.mark.parametrize("how", ["conflict", "lost"])
def test_a_work_that_commits_and_then_fails(ground, how, method):
    at = ground(outcome=method)

    async def work(connection):
        at.runtime.acts(connection, "insert")
        at.runtime.acts(connection, "commit")
        await fail_later(at, connection, how)

    with pytest.raises(TransactionEnded, match="then failed") as raised:
        at.run(work)
    assert at.database.ledger == [1]
    assert at.calls == 1
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)


@pytest.mark.parametrize("actions", [("commit and chain",), ("commit", "insert", "fail"), ("commit and chain", "fail")])
def test_endings_that_libpq_does_not_report(ground, actions):
    at = ground()

    async def work(connection):
        at.runtime.acts(connection, "insert", *actions)
        await fail_later(at, connection, "conflict")

    with pytest.raises(TransactionEnded):
        at.run(work)
    assert at.database.ledger == [1]


def test_a_connection_lost_during_a_commit_of_the_work(ground):
    """The operation that was under way may have been a COMMIT: the server is asked before the work is run again."""
    at = ground()

    async def work(connection):
        at.runtime.acts(connection, "insert")
        at.runtime._end(connection, "committed")
        await fail_later(at, connection, "lost")

    with pytest.raises(TransactionEnded):
        at.run(work)
    assert at.database.ledger == [1]
    assert at.calls == 1


def test_a_connection_lost_in_the_work_when_nobody_can_be_asked(ground):
    at = ground(outcome="log", failover_timeout=5)

    async def work(connection):
        at.runtime.fates = ["lost before"] * 10_000
        await fail_later(at, connection, "lost")

    with pytest.raises(CommitOutcomeUnknown, match="before that") as raised:
        at.run(work)
    assert raised.value.token == at.tokens[0]
    assert at.calls == 1


def test_a_rollback_before_an_error_is_raised_leaves_the_error_as_it_is(ground):
    at = ground()

    async def work(connection):
        at.runtime.acts(connection, "insert")
        at.runtime.acts(connection, "rollback()")
        raise KeyError("mine")

    with pytest.raises(KeyError):
        at.run(work)
    assert not any("xact_status" in sql for sql in at.runtime.sent), "no server was asked"


def test_a_conflict_that_the_work_rolled_back_is_tried_again(ground):
    at = ground()

    async def work(connection):
        at.calls += 1
        at.runtime.acts(connection, "insert")
        if at.calls == 1:
            at.runtime.acts(connection, "rollback()")
            raise CONFLICT("40001")
        return "done"

    assert at.run(work) == "done"
    assert at.database.ledger == [1]


def test_a_work_that_fails_costs_one_question_before_it_is_run_again(ground):
    at = ground(outcome="log")

    async def work(connection):
        at.calls += 1
        if at.calls == 1:
            at.runtime.acts(connection, "fail")
            raise CONFLICT("40001")
        return "done"

    assert at.run(work) == "done"
    assert [sql.split()[0] for sql in at.runtime.sent] == ["BEGIN;", "ROLLBACK;", "BEGIN;", "SELECT"]


def test_a_committed_work_is_not_committed_again(ground):
    """It ended its transaction and began another one that looks like it: COMMIT is not sent, token or no token."""
    at = ground(outcome="off")

    async def work(connection):
        at.runtime.acts(connection, "insert")
        at.runtime.acts(connection, "commit")
        at.runtime.acts(connection, "insert")

    with pytest.raises(TransactionEnded):
        at.run(work)
    assert at.database.ledger == [1]


# ---------------------------------------------------------------- a method that is not to be had


@pytest.mark.case
@pytest.mark.parametrize("sqlstate", TRANSIENT)
@pytest.mark.parametrize("witness", [True, False])
def test_an_error_that_passes_does_not_turn_a_way_off(ground, sqlstate, witness):
    at = ground(witness=witness, log=False)
    at.database.lacks_log_by = at.database.lacks_witness_by = sqlstate
    at.methods["app"] = OutcomeMethod.WITNESS if witness else OutcomeMethod.LOG
    at.database.witness_installed = False
    with pytest.raises(psycopg.errors.lookup(sqlstate)):
        at.run()
    at.database.witness_installed, at.database.log_offered = witness, True
    assert at.run() == "done"
    assert len(at.tokens) == 1
    assert at.degraded == {}
    assert at.runtime.advice == []


@pytest.mark.case
def test_a_way_that_is_not_to_be_had_is_reported_once_and_tried_again(ground):
    at = ground(witness=False, log=False)
    for _ in range(3):
        assert at.run() == "done"
    assert (at.tokens, at.methods) == ([], {"app": OutcomeMethod.OFF})
    assert len(at.runtime.advice) == 1
    assert "cannot be resolved" in at.runtime.advice[0]
    assert "There is no witness table, and the log position is not available:" in at.runtime.advice[0]
    at.database.log_offered = True
    at.run()
    assert at.tokens == [], "it is not tried at each transaction"
    at.simulation.run(at.runtime.sleep(DEGRADED_SECONDS))
    at.run()
    assert len(at.tokens) == 1
    sent = len(at.runtime.sent)
    at.run()
    assert len(at.runtime.sent) == sent + 2, "the method is known again: no more questions"
    assert len(at.runtime.advice) == 1


def test_what_stays_away_is_not_reported_again(ground):
    at = ground(witness=False, log=False)
    for _ in range(3):
        at.run()
        at.simulation.run(at.runtime.sleep(DEGRADED_SECONDS))
    assert len(at.runtime.advice) == 1


def test_a_witness_installed_later_is_noticed(ground):
    at = ground(witness=False, log=False)
    at.run()
    at.database.witness_installed = True
    at.simulation.run(at.runtime.sleep(DEGRADED_SECONDS))
    at.run()
    assert at.tokens[-1].witness is not None


def test_a_transaction_that_had_begun_is_begun_again_without_the_way_that_is_lacking(ground):
    at = ground(witness=False, log=False)

    async def take():
        connection = await Ground.take(at)
        at.runtime._begin_another(connection)
        return connection

    at.take = take
    assert at.run() == "done"
