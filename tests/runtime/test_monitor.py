"""The background thread: when there is one, what it cuts, and what it must not."""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psycopg
import psycopg_pool
import pytest

import aurora_router
from aurora_router import native, pool
from aurora_router.flow.runtime import Activity
from aurora_router.model.event import ConfigurationAdvice
from aurora_router.runtime.monitor import MONITOR, Monitor
from aurora_router.runtime.monitor_runtime import ThreadMonitorRuntime
from aurora_router.runtime.registry import REGISTRY
from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster

PATIENCE = 30.0
NAME = "aurora-router-monitor"


@pytest.fixture(scope="module")
def still():
    """A cluster that does nothing by itself."""
    with LocalCluster.start(readers=1, auto=False) as cluster:
        yield cluster


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def until(condition, what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def test_a_lasting_process_has_what_a_failover_needs_before_it_comes(still):
    code = """
        import sys, time, aurora_router
        with aurora_router.connect(sys.argv[1]):
            assert "tenacity" not in sys.modules
            deadline = time.monotonic() + 30
            while "tenacity.wait" not in sys.modules:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    """
    done = run(code, still.conninfo())
    assert done.returncode == 0, done.stderr


def monitors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# ---------------------------------------------------------------- the thread


def test_none_at_import():
    done = run("import threading, aurora_router; print(threading.active_count())")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_one_while_it_is_needed_and_none_after(still):
    with aurora_router.connect(still.conninfo()), aurora_router.connect(still.conninfo("reader")):
        assert len(monitors()) == 1
        assert MONITOR.running
    until(lambda: not monitors(), "the thread has ended")
    with aurora_router.connect(still.conninfo()):
        assert len(monitors()) == 1


def test_none_where_it_is_not_wanted(still):
    until(lambda: not monitors(), "no thread is left of another test")
    with aurora_router.connect(still.conninfo(aurora_monitor="off")) as conn:
        assert not monitors()
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_garbage_connection_needs_nobody(still):
    conn = aurora_router.connect(still.conninfo())
    with pytest.warns(ResourceWarning, match="was deleted while still open"):
        del conn
    until(lambda: not monitors(), "the thread has ended")


def test_exit_with_open_connections_is_clean(still):
    done = run(
        """
        import sys, warnings, aurora_router
        conn = aurora_router.connect(sys.argv[1])
        print(conn.execute("SELECT 1").fetchone()[0])
        warnings.simplefilter("ignore", ResourceWarning)
        """,
        still.conninfo(),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_fork_leaves_the_parent_alone(still):
    done = run(
        """
        import os, sys, threading, warnings, aurora_router
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
        with aurora_router.connect(sys.argv[1]) as conn:
            before = conn.info.backend_pid
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    assert threading.active_count() == 1
                    with aurora_router.connect(sys.argv[1]) as own:
                        assert own.info.backend_pid != before
                        assert own.execute("SELECT 1").fetchone() == (1,)
                        assert threading.active_count() == 2
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            assert conn.execute("SELECT pg_backend_pid()").fetchone() == (before,)
            print("fine")
        """,
        still.conninfo(),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


# ---------------------------------------------------------------- where no thread is to be had


@pytest.mark.case
def test_a_refused_thread_is_tried_again_with_the_next_connect(still, events, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    until(lambda: not monitors(), "no thread is left of another test")
    REGISTRY.reset()
    with monkeypatch.context() as limited:
        limited.setattr(native, "start_thread", refuse)
        for _ in range(3):
            with aurora_router.connect(still.conninfo()) as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
                assert not MONITOR.running
    advice = [event.text for event in of(events, ConfigurationAdvice)]
    assert len(advice) == 1
    assert "can't start new thread" in advice[0]
    with aurora_router.connect(still.conninfo()) as conn:
        assert conn.placement._cluster.is_monitored
        assert len(monitors()) == 1


@pytest.mark.parametrize("moment", ["atexit", "a thread that outlives the main one"])
def test_a_first_connect_while_the_interpreter_shuts_down(still, moment):
    """Python 3.12 and later start no thread any more then."""
    done = run(
        """
        import sys, threading, time
        def connect():
            if sys.argv[2] != "atexit":
                threading.main_thread().join()
                time.sleep(0.1)
            import aurora_router, asyncio
            with aurora_router.connect(sys.argv[1]) as conn:
                print(conn.execute("SELECT 1").fetchone()[0])
            async def work():
                async with await aurora_router.AsyncConnection.connect(sys.argv[1]) as conn:
                    print((await (await conn.execute("SELECT 2")).fetchone())[0])
            asyncio.run(work())
            try:
                aurora_router.connect(host="no-such-name.invalid", user="app")
            except aurora_router.NameNotResolved:
                print(3)
        if sys.argv[2] == "atexit":
            import atexit
            atexit.register(connect)
        else:
            threading.Thread(target=connect).start()
        """,
        still.conninfo(),
        moment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2\n3\n", "")


def test_a_signal_handler_leaves_its_cluster_to_the_frame_that_it_interrupted(monkeypatch):
    """Two frames that start the thread at a time would start two."""
    monitor, began, under_way = Monitor(), [], []
    args = SimpleNamespace(request=None, sources=None, params=None, names=None)

    def begin_one(cluster, access, names):
        under_way.append(cluster)
        began.append((cluster.name, len(under_way)))
        if cluster.name == "first":  # a signal arrives, and its handler connects to another cluster
            monitor.attend(SimpleNamespace(name="second", monitor=None), args, None, ThreadMonitorRuntime)
        under_way.pop()
        return []

    monkeypatch.setattr(monitor, "_begin_one", begin_one)
    thread = threading.Thread(
        target=lambda: monitor.attend(SimpleNamespace(name="first", monitor=None), args, None, ThreadMonitorRuntime),
        daemon=True,
    )
    thread.start()
    thread.join(20)
    assert began == [("first", 1), ("second", 1)]


# ---------------------------------------------------------------- what must not be cut


def busy(conn, kind: str, seconds: float) -> None:
    """Keep a connection waiting for the server, in one of many ways."""
    if kind == "long query":
        conn.execute("SELECT pg_sleep(%s)", [seconds])
    elif kind == "idle COPY":
        with conn.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
            time.sleep(seconds)
            assert list(copy)
    elif kind == "stream":
        for _ in conn.cursor().stream("SELECT generate_series(1, 2000)"):
            time.sleep(seconds / 2000)
    elif kind == "short queries":
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            conn.execute("SELECT 1")
    else:
        conn.execute("LISTEN silence")
        assert list(conn.notifies(timeout=seconds)) == []


@pytest.mark.parametrize("kind", ["long query", "idle COPY", "stream", "short queries", "notifies"])
def test_who_waits_for_a_living_server_is_never_cut(still, events, kind):
    with aurora_router.connect(still.conninfo(aurora_hang_grace=0.3), autocommit=True) as conn:
        busy(conn, kind, 2.0)
        assert conn.execute("SELECT 1").fetchone() == (1,)
    if kind != "short queries":
        assert of(events, aurora_router.HangSuspected), "this test would show nothing"
        assert of(events, aurora_router.HangRefuted)
    assert not of(events, aurora_router.ConnectionsCut)


def test_a_short_stop_of_the_server_is_survived(still, events):
    with aurora_router.connect(still.conninfo(), autocommit=True) as conn:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(conn.execute("SELECT pg_sleep(0.2)").fetchall()))
        still.freeze(still.writer)
        thread.start()
        until(lambda: conn.waiting_since is not None, "the statement was seen waiting")
        time.sleep(0.4)
        still.thaw(still.writer)
        thread.join(PATIENCE)
    assert answers
    assert not of(events, aurora_router.ConnectionsCut)


def test_a_starved_client_blames_itself(still, events):
    with aurora_router.connect(still.conninfo(), autocommit=True) as conn:
        thread = threading.Thread(target=lambda: conn.execute("SELECT pg_sleep(4)"))
        thread.start()
        until(lambda: conn.waiting_since is not None, "the statement was seen waiting")
        ctypes.PyDLL(None).usleep(3_000_000)  # holds the interpreter: no other thread runs
        thread.join(PATIENCE)
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert of(events, aurora_router.ProcessStalled)
    assert not of(events, aurora_router.ConnectionsCut)


# ---------------------------------------------------------------- what must be


@pytest.mark.parametrize("kind", ["long query", "notifies"])
def test_who_waits_for_a_frozen_server_is_woken(still, events, kind):
    with aurora_router.connect(still.conninfo(aurora_profile="aggressive"), autocommit=True) as conn:
        thread_errors = []

        def work() -> None:
            try:
                busy(conn, kind, 60.0)
            except psycopg.OperationalError as error:
                thread_errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: conn.waiting_since is not None, "the connection was seen waiting")
        still.freeze(still.writer)
        thread.join(PATIENCE)
        still.thaw(still.writer)
        assert type(thread_errors[0]) is psycopg.OperationalError
        assert conn.broken
    # The user's thread is woken by the cut, and the monitor reports it after that.
    until(lambda: of(events, aurora_router.ConnectionsCut), "the cut is reported")
    cut = of(events, aurora_router.ConnectionsCut)
    assert [event.count for event in cut] == [1]
    assert "hung" in cut[0].reason


def close_blocking(class_, conninfo: str, freeze, outcome: list[str]) -> None:
    """Close a connection of a pool in the middle of a transaction, after the server froze."""
    with class_(
        conninfo, min_size=1, connection_class=aurora_router.Connection, close_returns=True, open=True
    ) as conns:
        conn = conns.getconn()
        conn.execute("SELECT 1")
        freeze()
        conn.close()
        outcome.append("closed" if conn.closed else "returned")


def close_awaited(class_, conninfo: str, freeze, outcome: list[str]) -> None:
    """The same on an event loop."""

    async def main() -> None:
        async with class_(
            conninfo, min_size=1, connection_class=aurora_router.AsyncConnection, close_returns=True, open=False
        ) as conns:
            conn = await conns.getconn()
            await conn.execute("SELECT 1")
            freeze()
            await conn.close()
            outcome.append("closed" if conn.closed else "returned")

    asyncio.run(main())


@pytest.mark.skipif(psycopg.__version__ < "3.3", reason="close_returns with a class of one's own needs psycopg 3.3")
@pytest.mark.parametrize(
    "close",
    [
        partial(close_blocking, psycopg_pool.ConnectionPool),
        partial(close_blocking, pool.ConnectionPool),
        partial(close_awaited, psycopg_pool.AsyncConnectionPool),
        partial(close_awaited, pool.AsyncConnectionPool),
    ],
)
def test_who_returns_a_connection_by_closing_it_is_woken_too(still, events, close):
    conninfo = still.conninfo(aurora_profile="aggressive")
    frozen, outcome = threading.Event(), []

    def freeze() -> None:
        still.freeze(still.writer)
        frozen.set()

    thread = threading.Thread(target=close, args=(conninfo, freeze, outcome), daemon=True)
    thread.start()
    try:
        assert frozen.wait(PATIENCE)
        until(lambda: of(events, aurora_router.ConnectionsCut), "the connection that is returned was cut")
    finally:
        still.thaw(still.writer)
        thread.join(PATIENCE)
    assert outcome == ["closed"]


@pytest.mark.parametrize("look", ["activity", "target", "heard_at", "has_unread", "cut"])
def test_the_monitor_waits_for_no_user_who_closes_a_connection(look):
    """One thread watches over all clusters: it takes a connection that is being closed for closed."""
    guard = native.new_rlock()
    held = SimpleNamespace(guard=guard, socket_id=object(), pgconn=None)
    runtime = ThreadMonitorRuntime(None, None)
    arguments = [held, "demo-1"] if look == "target" else [held]
    answers = []
    thread = threading.Thread(target=lambda: answers.append(getattr(runtime, look)(*arguments)), daemon=True)
    with guard:
        thread.start()
        thread.join(5.0)
        assert not thread.is_alive()
    assert answers[0] in {None, False, Activity.CLOSED}


def test_a_broken_connection_is_noticed_without_a_hook(still, events):
    one = aurora_router.connect(still.conninfo(), autocommit=True)
    with one as conn, aurora_router.connect(still.conninfo(), autocommit=True) as other:
        until(lambda: conn.placement._cluster.suspected_at is None, "the suspicion of an earlier test has ended")
        events.clear()
        other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
        until(lambda: of(events, aurora_router.WriterConfirmed), "the writer confirmed itself")
    assert "broke" in of(events, aurora_router.WriterSuspected)[0].reason


def test_nothing_is_left_open(still):
    """Neither threads nor descriptors grow, however often the monitor starts and ends."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def once() -> None:
        with aurora_router.connect(still.conninfo(aurora_hang_grace=0.1), autocommit=True) as conn:
            conn.execute("SELECT pg_sleep(0.3)")
        until(lambda: not monitors(), "the thread has ended")

    once()
    before = descriptors()
    for _ in range(3):
        once()
    until(lambda: descriptors() <= before, "as many descriptors as before")


def test_two_hundred_connects_leave_nothing_behind(still):
    """Descriptors, threads and sessions, with a monitor that lasts."""
    conninfo = still.conninfo("reader")

    def used() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def sessions() -> int:
        (count,) = kept.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = current_user").fetchone()
        return int(count)

    with aurora_router.connect(conninfo, autocommit=True) as kept:
        aurora_router.connect(conninfo).close()
        files, threads = used()
        for _ in range(200):
            aurora_router.connect(conninfo).close()
        assert kept.placement.instance == "demo-2"
        slack = 2  # the monitor's own session with each instance comes and goes
        until(lambda: used()[0] <= files + slack, f"{files} descriptors, as before")
        assert used()[1] <= threads
        until(lambda: sessions() <= 2, "our session there, and one of the monitor's")


def test_the_monitor_does_not_delay_the_exit(still):
    code = """
        import sys, threading, time, warnings, aurora_router
        conn = aurora_router.connect(sys.argv[1])
        conn.execute("SELECT pg_sleep(0.3)")
        assert any(each.name == "aurora-router-monitor" for each in threading.enumerate())
        warnings.simplefilter("ignore", ResourceWarning)
        print(time.time(), flush=True)
    """
    done = run(code, still.conninfo(aurora_hang_grace=0.1))
    ended = time.time()
    assert (done.returncode, done.stderr) == (0, "")
    assert ended - float(done.stdout) < 1.0
