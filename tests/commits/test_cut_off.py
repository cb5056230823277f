"""Commits cut off at every point, on real servers: the work's rows are there exactly once."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest

import aurora_router
from aurora_router import Outcome
from aurora_router.flow import commit_sql

from .pair import eventually
from .relay import ANSWERS, Cut

pytestmark = pytest.mark.cluster

WAYS = ["log", "witness"]
CUTS = [Cut.BEFORE_SEND, Cut.AFTER_SEND, Cut.AFTER_ACK]


def insert(connection):
    connection.execute("insert into public.ledger values (1)")
    return "done"


def rows(pair, engine=None):
    return pair.value("select count(*) from public.ledger", engine)


def prepare(pair, way):
    if way == "witness":
        pair.run(commit_sql.INSTALL)


def run(pair, way, **options):
    """The transaction; returns what it returned and the tokens of its attempts."""
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_outcome=way, **options))
    return router.run_transaction(insert, on_token=tokens.append), tokens, router


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", [*CUTS, *ANSWERS], ids=lambda cut: cut.name)
def test_a_commit_cut_off_counts_once(pair, way, cut):
    prepare(pair, way)
    pair.relays[pair.one].arm(cut)
    result, tokens, router = run(pair, way)
    assert result == "done"
    assert pair.relays[pair.one].done.is_set()
    assert rows(pair) == 1
    assert router.outcome_of(tokens[-1]) is Outcome.COMMITTED
    if cut is Cut.BEFORE_SEND:
        assert len(tokens) == 2
        assert router.outcome_of(tokens[0]) is Outcome.NOT_COMMITTED
    if cut in {Cut.AFTER_ACK, *ANSWERS}:
        assert len(tokens) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", [*CUTS, *ANSWERS], ids=lambda cut: cut.name)
async def test_on_asyncio(pair, way, cut):
    prepare(pair, way)
    pair.relays[pair.one].arm(cut)
    router = aurora_router.AsyncRouter(pair.conninfo(aurora_outcome=way))
    tokens = []

    async def work(connection):
        await connection.execute("insert into public.ledger values (1)")
        return "done"

    assert await router.run_transaction(work, on_token=tokens.append) == "done"
    assert pair.relays[pair.one].done.is_set()
    assert rows(pair) == 1
    assert await router.outcome_of(tokens[-1]) is Outcome.COMMITTED


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "57014", "58030", "XX000"])
def test_an_error_of_the_server_at_commit_is_asked_for_on_its_connection(pair, sqlstate):
    """A deferred trigger raises it: the backend that ran the transaction says that it is aborted."""
    pair.run(
        f"""create function public.refuse() returns trigger language plpgsql as
        $$ begin raise exception 'not this one' using errcode = '{sqlstate}'; end $$;
        create constraint trigger refusing after insert on public.ledger initially deferred
        for each row execute function public.refuse()"""
    )
    tokens = []
    router = aurora_router.Router(pair.conninfo(aurora_outcome="log", aurora_transaction_attempts=2))
    with pytest.raises(psycopg.Error) as raised:
        router.run_transaction(insert, on_token=tokens.append, resolver=lambda: pytest.fail("it is resolved"))
    assert raised.value.sqlstate == sqlstate
    assert len(tokens) == (2 if sqlstate in {"40001", "40P01"} else 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.name)
@pytest.mark.parametrize("replicated", [True, False], ids=["replicated", "lost"])
def test_across_a_promotion(make_pair, way, cut, replicated):
    """Cut off, and the writer is gone: its log reached the standby or not, where other clients use up the xids."""
    pair = make_pair()
    prepare(pair, way)
    pair.caught_up()
    if not replicated:
        pair.hold()
    outcome = in_background(pair, way, cut, closing=True)
    assert pair.relays[pair.one].done.wait(10)
    eventually(lambda: idle_again(pair))
    if replicated:
        pair.caught_up()
    xid = outcome.tokens[0].xid
    pair.fail_over_with(burn=xid)
    assert outcome.join() == "done"
    assert rows(pair, pair.two) == 1
    survived = replicated and cut is not Cut.BEFORE_SEND
    assert len(outcome.tokens) == (1 if survived else 2)


def test_while_the_replica_is_awaited(make_pair):
    """The standby does not confirm; the client is cut off; then the standby comes back."""
    pair = make_pair(sync=True)
    pair.caught_up()
    pair.hold()
    outcome = in_background(pair, "log", Cut.AFTER_SEND)
    assert pair.relays[pair.one].done.wait(10)
    eventually(lambda: waiting(pair) >= 1)
    assert outcome.running
    pair.resume()
    assert outcome.join() == "done"
    assert rows(pair) == 1
    assert len(outcome.tokens) == 1


@pytest.mark.parametrize("way", WAYS)
def test_while_the_replica_is_awaited_and_the_writer_dies(make_pair, way):
    pair = make_pair(sync=True)
    prepare(pair, way)
    pair.caught_up()
    pair.hold()
    outcome = in_background(pair, way, Cut.AFTER_SEND)
    assert pair.relays[pair.one].done.wait(10)
    eventually(lambda: waiting(pair) >= 1)
    pair.fail_over_with(burn=outcome.tokens[0].xid)
    assert outcome.join() == "done"
    assert rows(pair, pair.two) == 1
    assert len(outcome.tokens) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_success_without_replicas_is_none_yet(make_pair, way):
    """The wait for the replica is cancelled: the server says success, with a warning; then it is lost."""
    pair = make_pair(sync=True)
    prepare(pair, way)
    pair.caught_up()
    pair.hold()
    outcome = in_background(pair, way, None)
    eventually(lambda: waiting(pair) == 1)
    pair.run("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
    eventually(lambda: outcome.asking(pair))
    assert outcome.running
    pair.fail_over_with(burn=outcome.tokens[0].xid)
    assert outcome.join() == "done"
    assert rows(pair, pair.two) == 1
    assert len(outcome.tokens) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_backend_that_nobody_will_ever_talk_to_is_ended(pair, way):
    prepare(pair, way)
    pair.relays[pair.one].arm(Cut.SILENT)
    result, tokens, _ = run(pair, way)
    assert result == "done"
    assert rows(pair) == 1
    assert len(tokens) == 2


def test_and_left_alone_where_that_is_asked_for(pair):
    pair.relays[pair.one].arm(Cut.SILENT)
    with pytest.raises(aurora_router.CommitOutcomeUnknown, match="has not ended yet") as raised:
        run(pair, "log", aurora_outcome_terminate="off", aurora_failover_timeout=2)
    assert raised.value.sqlstate == "08007"
    router = aurora_router.Router(pair.conninfo(aurora_failover_timeout=0))
    assert router.outcome_of(raised.value) is Outcome.IN_PROGRESS
    pair.relays[pair.one].close()
    eventually(lambda: pair.value("select count(*) from pg_stat_activity where state = 'idle in transaction'") == 0)


def test_without_a_way_to_ask_it_is_unknown(pair):
    pair.relays[pair.one].arm(Cut.AFTER_ACK)
    with pytest.raises(aurora_router.CommitOutcomeUnknown) as raised:
        run(pair, "off")
    assert raised.value.token is None
    assert isinstance(raised.value, psycopg.OperationalError)
    assert rows(pair) == 1


def test_cancelled_while_committing_it_can_be_asked_for(make_pair):
    """A task that is cancelled, as by Ctrl-C: the connection is closed, the token is left."""
    pair = make_pair(sync=True)
    pair.caught_up()
    pair.hold()
    router = aurora_router.AsyncRouter(pair.conninfo(aurora_outcome="log"))
    tokens, held = [], []

    async def work(connection):
        held.append(connection)
        await connection.execute("insert into public.ledger values (1)")

    async def cancelled():
        task = asyncio.create_task(router.run_transaction(work, on_token=tokens.append))
        await asyncio.to_thread(eventually, lambda: waiting(pair))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert held[0].closed
    pair.resume()
    assert asyncio.run(router.outcome_of(tokens[0])) is Outcome.COMMITTED
    assert rows(pair) == 1


# ---------------------------------------------------------------- helpers


def waiting(pair):
    return pair.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")


def idle_again(pair):
    """Whether no transaction of a client runs, so that all that will be in the log is there."""
    return pair.value("select count(*) from pg_stat_activity where usename = 'app' and backend_xid is not null") == 0


class InBackground:
    def __init__(self, pair, way, work=insert):
        self.tokens = []
        self.work = work
        self._result = None
        self.router = aurora_router.Router(pair.conninfo(aurora_outcome=way))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self._result = self.router.run_transaction(self.work, on_token=self.tokens.append)
        except Exception as error:  # noqa: BLE001 - raised again by `join`
            self._result = error

    @property
    def running(self):
        return self._thread.is_alive()

    def asking(self, pair):
        """Whether the resolver waits for its own commit by now."""
        return pair.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like 'BEGIN%'")

    def join(self):
        self._thread.join(40)
        assert not self._thread.is_alive()
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def in_background(pair, way, cut, *, closing=False):
    if cut is not None:
        pair.relays[pair.one].arm(cut, closing=closing)
    return InBackground(pair, way)
