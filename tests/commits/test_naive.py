"""The naive question (``pg_xact_status`` alone) answers about another client's transaction; ours does not."""

from __future__ import annotations

import psycopg
import pytest

import aurora_router
from aurora_router import Outcome
from aurora_router.flow import commit_sql

from .pair import eventually
from .relay import Cut
from .test_cut_off import idle_again, in_background, insert, prepare, rows

pytestmark = pytest.mark.cluster


def naive(pair, engine, xid):
    """What ``pg_xact_status`` alone says."""
    return pair.value(f"select pg_xact_status('{xid}'::xid8)", engine)


def left_open(pair, way="log", **options):
    """A transaction with its mark taken, its COMMIT kept back; returns it and its token."""
    outcome = in_background(pair, way, Cut.STAY, **options)
    assert pair.relays[pair.one].done.wait(10)
    return outcome, outcome.tokens[0]


@pytest.mark.parametrize("way", ["log", "witness"])
def test_an_xid_reused_after_a_promotion(pair, way):
    prepare(pair, way)
    pair.caught_up()
    pair.hold()
    outcome = in_background(pair, way, Cut.AFTER_ACK, closing=True)
    assert pair.relays[pair.one].done.wait(10)
    eventually(lambda: idle_again(pair))
    token = outcome.tokens[0]
    assert naive(pair, pair.one, token.xid) == "committed"
    pair.fail_over_with(burn=token.xid)
    assert naive(pair, pair.two, token.xid) == "committed", "the naive way is fooled"
    assert outcome.join() == "done"
    assert rows(pair, pair.two) == 1
    assert outcome.router.outcome_of(token) is Outcome.NOT_COMMITTED
    assert outcome.router.outcome_of(outcome.tokens[1]) is Outcome.COMMITTED


def test_before_the_xid_is_reused_it_is_in_the_future(pair):
    pair.caught_up()
    pair.hold()
    outcome = in_background(pair, "log", Cut.AFTER_ACK, closing=True)
    assert pair.relays[pair.one].done.wait(10)
    eventually(lambda: idle_again(pair))
    pair.relays[pair.two].pause()
    pair.fail_over()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="in the future"):
        naive(pair, pair.two, outcome.tokens[0].xid)
    for relay in pair.relays.values():
        relay.resume()
    assert outcome.join() == "done"
    assert rows(pair, pair.two) == 1


def test_an_xid_reused_after_a_crash_under_the_same_postmaster(make_pair):
    """The start of the postmaster stays what it was, and yet a recovery lost the xid."""
    pair = make_pair(restart_after_crash="on")
    router = aurora_router.Router(pair.conninfo(aurora_outcome="log"))
    router.run_transaction(insert)
    _, token = left_open(pair)
    started = pair.value("select pg_postmaster_start_time()")
    pair.crash_in_place()
    assert pair.value("select pg_postmaster_start_time()") == started
    flushed = pair.one.binaries.major >= 17
    if not flushed:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="in the future"):
            naive(pair, pair.one, token.xid)
    pair.burn(token.xid, pair.one)
    assert naive(pair, pair.one, token.xid) == ("aborted" if flushed else "committed"), "the naive way is fooled"
    assert router.outcome_of(token) is Outcome.NOT_COMMITTED


def test_an_xid_reused_after_a_crash_in_place_and_then_a_promotion(make_pair):
    """The log of the promoted standby is long enough, but holds another transaction at our place: never a guess."""
    pair = make_pair(restart_after_crash="on")
    pair.caught_up()
    _, token = left_open(pair)
    pair.crash_in_place()
    pair.burn(token.xid + 20, pair.one)
    eventually(pair.streaming)
    pair.caught_up()
    pair.relays[pair.one].let_go()
    pair.fail_over()
    flushed = pair.one.binaries.major >= 17
    assert naive(pair, pair.two, token.xid) == ("aborted" if flushed else "committed")
    router = aurora_router.Router(pair.conninfo(aurora_outcome="log", aurora_failover_timeout=3))
    assert router.outcome_of(token) is (Outcome.NOT_COMMITTED if flushed else Outcome.UNKNOWN)


@pytest.mark.parametrize("committed", [True, False])
def test_a_restart_in_place_is_not_taken_for_a_promotion(pair, committed):
    """With our record in the log: an xid that committed may be any client's, one that aborted is no client's."""
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_outcome="log", aurora_failover_timeout=3))
    if committed:
        router.run_transaction(insert, on_token=tokens.append)
    else:
        with pytest.raises(psycopg.errors.DivisionByZero):
            router.run_transaction(lambda connection: connection.execute("select 1/0"), on_token=tokens.append)
    pair.run("select pg_switch_wal()")
    pair.restart_in_place()
    assert router.outcome_of(tokens[0]) is (Outcome.UNKNOWN if committed else Outcome.NOT_COMMITTED)


def test_a_promoted_server_that_was_restarted_proves_nothing(pair):
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_outcome="log", aurora_failover_timeout=3))
    router.run_transaction(insert, on_token=tokens.append)
    pair.caught_up()
    pair.fail_over()
    assert router.outcome_of(tokens[0]) is Outcome.COMMITTED
    pair.two.kill()
    pair.two.start()
    eventually(lambda: pair.two.state().value == "ready")
    assert router.outcome_of(tokens[0]) is Outcome.UNKNOWN


def test_asking_twice_does_not_change_the_verdict_of_a_witness(pair):
    prepare(pair, "witness")
    outcome, token = left_open(pair, "witness")
    router = aurora_router.Router(pair.conninfo(aurora_outcome="witness", aurora_failover_timeout=0))
    assert router.outcome_of(token) is Outcome.IN_PROGRESS
    pair.run(f"select pg_terminate_backend({token.pid})")
    eventually(lambda: idle_again(pair))
    assert [router.outcome_of(token) for _ in range(3)] == [Outcome.NOT_COMMITTED] * 3
    pair.relays[pair.one].let_go()
    assert outcome.join() == "done"
    assert rows(pair) == 1


def test_a_witness_that_may_be_pruned_is_not_asked_for(pair):
    prepare(pair, "witness")
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_failover_timeout=1))
    router.run_transaction(insert, on_token=tokens.append)
    old = aurora_router.CommitToken.parse(
        str(tokens[0]).replace(str(tokens[0].began), str(tokens[0].began - 13 * 3600 * 10**6))
    )
    assert router.outcome_of(old) is Outcome.UNKNOWN
    pair.run(commit_sql.prune(0))
    assert pair.value(f"select count(*) from {commit_sql.TABLE}") == 0
