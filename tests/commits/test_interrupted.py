"""Cancelled, or interrupted by a signal handler, at any point: no pool loses a connection, no commit is misreported."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections import Counter
from contextlib import suppress

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

import aurora_router
from aurora_router import CommitOutcomeUnknown, Outcome
from aurora_router.flow.commit import Commit
from aurora_router.pool import AsyncConnectionPool, ConnectionPool
from aurora_router_sqlalchemy import run_transaction_async

from .pair import eventually
from .relay import Cut
from .test_cut_off import prepare, rows
from .test_sqlalchemy import url

pytestmark = [pytest.mark.cluster, pytest.mark.case]

INSERT = "insert into public.ledger values (1)"
PROCEDURES = tuple(
    f"/aurora_router/{name}.py" for name in ("router", "flow/transaction", "flow/commit", "runtime/blocking")
)
STEPS = 40
"""More steps of the event loop than a roll-back and giving back take."""


class TooLong(Exception):
    """As a task queue's soft time limit."""


@pytest.fixture(scope="module")
def pair(make_module_pair):
    pair = make_module_pair()
    prepare(pair, "witness")
    pair.run(
        """create table slow (n int); grant all on slow to app;
        create function wait() returns trigger language plpgsql as $$begin perform pg_sleep(1); return null; end$$;
        create constraint trigger wait after insert on slow deferrable initially deferred
          for each row execute function wait()"""
    )
    return pair


@pytest.fixture(autouse=True)
def empty(pair):
    pair.run("truncate ledger, slow")


async def cancelled_after(steps, started, procedure, *, again=False):
    """Run a procedure, and cancel it some steps of the loop after `started` is set; `again`: as anyio's scopes do."""
    task = asyncio.create_task(procedure)
    await started.wait()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    while again and not task.done():
        await asyncio.sleep(0)
        task.cancel()
    with suppress(asyncio.CancelledError, ValueError):
        await task


class Stop(BaseException):
    """As KeyboardInterrupt."""


class Interruption:
    """A trace function that raises at one of the lines that run a transaction, counted from when COMMIT begins."""

    def __init__(self, kind, number):
        self.kind, self.left, self.begun = kind, number, False

    def __call__(self, frame, event, arg):
        if not frame.f_code.co_filename.endswith(PROCEDURES):
            return None
        self.begun = self.begun or frame.f_code is Commit.send.__code__
        if self.begun and event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise self.kind
        return self


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where it interrupts a close
@pytest.mark.parametrize("kind", [TooLong, Stop])
def test_interrupted_at_any_line_from_commit_on(pair, kind):
    """A signal handler raises at each of them in turn: what may be committed has a token, to the last line."""
    router = aurora_router.Router(pair.conninfo())
    seen, number, before = Counter(), 0, sys.gettrace()
    while not seen["returned"]:
        number += 1
        trace = Interruption(kind, number)
        sys.settrace(trace)
        try:
            router.run_transaction(
                lambda connection, n=number: connection.execute(f"insert into public.ledger values ({n})")
            )
            outcome = "returned"
        except (CommitOutcomeUnknown, Stop) as raised:
            outcome = "with a token" if getattr(raised, "token", None) is not None else "failed"
        except TooLong:
            outcome = "failed"
        finally:
            sys.settrace(before)
        seen[outcome, pair.value(f"select count(*) from public.ledger where n = {number}")] += 1
        seen["returned"] = trace.left > 0
    gc.collect()  # where a close was interrupted, the connection ends here, and not in the test after this one
    assert seen["with a token", 1] > 10
    assert not seen["failed", 1]
    assert seen["returned", 1] == 1


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
async def test_cancelled_in_a_roll_back_a_pool_loses_nothing(pair, again):
    router = aurora_router.AsyncRouter(pair.conninfo())
    async with AsyncConnectionPool(pair.conninfo(), min_size=1, max_size=1, open=False, timeout=10) as pool:
        for steps in range(STEPS):
            started = asyncio.Event()

            async def work(connection, started=started):
                await connection.execute(INSERT)
                started.set()
                raise ValueError("the work fails")

            await cancelled_after(steps, started, router.run_transaction(work, pool=pool), again=again)
            async with pool.connection():
                """It is to be had."""
    assert rows(pair) == 0


@pytest.mark.parametrize("of_session", [False, True], ids=["engine", "session"])
async def test_cancelled_in_a_roll_back_an_engine_loses_nothing(pair, of_session):
    engine = create_async_engine(url(pair), pool_size=1, max_overflow=0, pool_timeout=10)
    source = async_sessionmaker(engine) if of_session else engine
    for steps in range(STEPS):
        started = asyncio.Event()

        async def work(subject, started=started):
            await subject.execute(sa.text(INSERT))
            started.set()
            raise ValueError("the work fails")

        await cancelled_after(steps, started, run_transaction_async(source, work))
        async with engine.connect():
            """It is to be had."""
    await engine.dispose()
    assert rows(pair) == 0


async def test_a_cancellation_of_commit_carries_the_token(pair):
    router = aurora_router.AsyncRouter(pair.conninfo())

    async def work(connection):
        await connection.execute("insert into slow values (1)")

    task = asyncio.create_task(router.run_transaction(work))
    committing = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    await asyncio.to_thread(eventually, lambda: pair.value(committing))
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert await router.outcome_of(raised.value.token) is Outcome.COMMITTED


@pytest.fixture
def alarm():
    """Set the timer; its handler raises `raising`."""

    def set_timer(seconds, raising):
        def interrupt(*_):
            raise raising

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.getsignal(signal.SIGALRM)
    yield set_timer
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", [TooLong, KeyboardInterrupt])
@pytest.mark.parametrize("pooled", [False, True])
def test_interrupted_while_committing(pair, alarm, kind, pooled):
    """A time limit becomes an unknown outcome; Ctrl-C stays what it is, with the token."""
    router = aurora_router.Router(pair.conninfo())

    def work(connection):
        connection.execute("insert into slow values (1)")
        alarm(0.3, kind())

    with ConnectionPool(pair.conninfo(), min_size=1, max_size=1, open=True, timeout=10) as pool:
        with pytest.raises(CommitOutcomeUnknown if kind is TooLong else KeyboardInterrupt) as raised:
            router.run_transaction(work, pool=pool if pooled else None)
        with pool.connection():
            """It is to be had."""
    assert kind is KeyboardInterrupt or isinstance(raised.value.__cause__, TooLong)
    assert router.outcome_of(raised.value.token) is Outcome.COMMITTED
    assert pair.value("select count(*) from slow") == 1


def test_interrupted_in_a_roll_back(pair, alarm):
    """The server does not answer ROLLBACK: the time limit is raised, and the connection goes."""
    router, stopped = aurora_router.Router(pair.conninfo()), []

    def work(connection):
        connection.execute(INSERT)
        stopped.append(connection.execute("select pg_backend_pid()").fetchone()[0])
        os.kill(stopped[0], signal.SIGSTOP)
        alarm(0.3, TooLong())
        raise ValueError("the work fails")

    with ConnectionPool(pair.conninfo(), min_size=1, max_size=1, open=True, timeout=20) as pool:
        try:
            with pytest.raises(TooLong):
                router.run_transaction(work, pool=pool)
        finally:
            os.kill(stopped[0], signal.SIGCONT)
        with pool.connection():
            """It is to be had."""
    assert rows(pair) == 0


def test_a_read_only_work_that_writes_is_not_doubled(pair):
    """What was asked for at BEGIN is not what holds at COMMIT."""

    def work(connection):
        connection.execute("set transaction read write")
        connection.execute(INSERT)

    pair.relays[pair.one].arm(Cut.AFTER_ACK)
    router = aurora_router.Router(pair.conninfo())
    with pytest.raises(aurora_router.InvalidOption, match="its work wrote"):
        router.run_transaction(work, read_only=True)
    assert rows(pair) == 0
