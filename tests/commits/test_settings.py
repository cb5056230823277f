"""Settings of a session, of its role and of the work, on real servers: none changes a verdict."""

from __future__ import annotations

import psycopg
import pytest

import aurora_router
from aurora_router import Outcome
from aurora_router.flow import topology_query
from aurora_router.runtime.blocking import run as run_blocking
from aurora_router.runtime.libpq_runtimes import BlockingRuntime

from .pair import eventually
from .relay import Cut
from .test_cut_off import InBackground, insert, prepare, rows, run, waiting

pytestmark = [pytest.mark.cluster, pytest.mark.case]

HOSTILE = {
    "client_min_messages": "error",
    "search_path": "hostile, pg_catalog, public",
    "standard_conforming_strings": "off",
    "datestyle": "'German, DMY'",
    "intervalstyle": "sql_standard",
    "timezone": "'Asia/Kathmandu'",
    "extra_float_digits": "-15",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "synchronous_commit": "off",
    "session_replication_role": "replica",
    "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "off",
    "bytea_output": "escape",
    "lock_timeout": "1ms",
    "quote_all_identifiers": "on",
}
"""Settings that change how SQL is read, what it means, or how it is answered."""

DECEIVE = """
create schema hostile; grant usage on schema hostile to app;
create function hostile.yes(xid8, xid8) returns bool language sql immutable as 'select true';
create operator hostile.= (leftarg = xid8, rightarg = xid8, function = hostile.yes);
create operator hostile.< (leftarg = xid8, rightarg = xid8, function = hostile.yes);
create function hostile.pg_xact_status(xid8) returns text language sql as $$select 'committed'$$;
create function hostile.now() returns timestamptz language sql as $$select '-infinity'::timestamptz$$;
"""
"""Functions and operators that lie, found before those of pg_catalog."""

TRIGGER = """
create function hush() returns trigger language plpgsql as
  $$begin perform set_config('client_min_messages', 'error', true); return null; end$$;
create constraint trigger hush after insert on ledger deferrable initially deferred
  for each row execute function hush();
"""


@pytest.mark.parametrize("way", ["log", "witness"])
def test_hostile_settings_of_the_role(pair, way):
    prepare(pair, way)
    pair.run(DECEIVE)
    for name, value in HOSTILE.items():
        pair.run(f"alter role app set {name} = {value}")
    for expected, (cut, attempts) in enumerate([(Cut.BEFORE_SEND, 2), (Cut.AFTER_ACK, 1)], start=1):
        pair.relays[pair.one].arm(cut)
        result, tokens, router = run(pair, way)
        assert result == "done"
        assert rows(pair) == expected
        assert len(tokens) == attempts
        assert router.outcome_of(tokens[-1]) is Outcome.COMMITTED
    assert router.outcome_of(tokens[0]) is Outcome.COMMITTED


def hidden_by_the_role(pair):
    pair.run("alter role app set client_min_messages = error")
    return insert


def hidden_by_the_work(pair):
    def work(connection):
        connection.execute("set local client_min_messages = error")
        return insert(connection)

    return work


def hidden_by_a_deferred_trigger(pair):
    pair.run(TRIGGER)
    return insert


def in_an_encoding_that_python_lacks(pair):
    def work(connection):
        insert(connection)
        connection.pgconn.exec_(b"set client_encoding to 'EUC_TW'")
        return "done"

    return work


@pytest.mark.parametrize(
    "hide", [hidden_by_the_role, hidden_by_the_work, hidden_by_a_deferred_trigger, in_an_encoding_that_python_lacks]
)
def test_a_success_without_replicas_can_not_be_hidden(make_pair, hide):
    """The wait for the replica is cancelled: COMMIT succeeds, with a warning that was to be hidden; then it is lost."""
    pair = make_pair(sync=True)
    work = hide(pair)
    pair.caught_up()
    pair.hold()
    outcome = InBackground(pair, "log", work)
    eventually(lambda: waiting(pair) == 1)
    pair.run("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
    eventually(lambda: not outcome.running or outcome.asking(pair))
    assert outcome.running, "a commit was acknowledged that no replica has"
    pair.fail_over_with(burn=outcome.tokens[0].xid)
    assert outcome.join() == "done"
    assert rows(pair, pair.two) == 1
    assert len(outcome.tokens) == 2


def test_a_policy_that_hides_the_witness_is_no_proof(pair):
    """Row security on the table: no verdict is read from rows that are not shown."""
    prepare(pair, "witness")
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_outcome="witness", aurora_failover_timeout=1))
    router.run_transaction(insert, on_token=tokens.append)
    pair.run("alter table aurora_router.witness enable row level security")
    pair.run("create policy add on aurora_router.witness for insert to public with check (true)")
    assert router.outcome_of(tokens[0]) is Outcome.UNKNOWN
    auto = aurora_router.Router(pair.conninfo())
    auto.run_transaction(insert, on_token=tokens.append)
    assert tokens[-1].lsn is not None, "such a table is not used"


def test_a_witness_table_without_its_index_is_no_proof(pair):
    prepare(pair, "witness")
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_outcome="witness", aurora_failover_timeout=1))
    router.run_transaction(insert, on_token=tokens.append)
    pair.run("alter table aurora_router.witness drop constraint witness_pkey")
    assert router.outcome_of(tokens[0]) is Outcome.UNKNOWN


def test_a_time_limit_of_the_role_does_not_cut_our_own_queries_short(pair):
    """Those of a connect are repeated without it; the session keeps it."""
    sql = "SELECT 1 FROM pg_sleep(0.2)"
    with pair.admin(options="-c statement_timeout=20") as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(sql)
        world = BlockingRuntime(None, None)
        assert run_blocking(topology_query.ask(world, connection, sql, 5.0)) == [("1",)]
        assert connection.execute("show statement_timeout").fetchone() == ("20ms",)
