"""Forks at the worst moments: no child hangs, whatever another thread of the parent was doing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from aurora_router import forks
from aurora_router_cluster import LocalCluster

PROGRAM = Path(__file__).with_name("forking.py")


@pytest.fixture(scope="module")
def still():
    """A cluster that does nothing by itself."""
    with LocalCluster.start(readers=1, auto=False) as cluster:
        yield cluster


@pytest.mark.case
@pytest.mark.cluster
@pytest.mark.parametrize("mode", ["connect", "monitor", "async"])
def test_no_child_hangs_in_an_import(still, mode):
    command = [sys.executable, str(PROGRAM), mode, still.conninfo()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    count, _, ends = done.stdout.partition(" ")
    assert (done.returncode, ends) == (0, "[]\n"), done.stderr
    assert int(count) > 0


@pytest.mark.case
@pytest.mark.cluster
def test_connections_of_before_a_fork_are_not_used_in_the_child(still):
    """Neither by an engine nor by a pool; closing them there leaves the parent's sessions alone."""
    code = """
        import os, sys, warnings
        import aurora_router
        from aurora_router.pool import ConnectionPool
        from sqlalchemy import create_engine, text

        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
        info, url = sys.argv[1:]
        engine = create_engine(url, pool_size=2)
        pool = ConnectionPool(info, min_size=2, open=True)
        plain = aurora_router.connect(info, autocommit=True)
        backend = "SELECT pg_backend_pid()"

        def backends():
            with engine.connect() as connection, pool.connection() as pooled:
                found = [connection.execute(text(backend)).scalar(), *pooled.execute(backend).fetchone()]
            return [*found, *plain.execute(backend).fetchone()]

        def child(before):
            with engine.connect() as connection:
                assert connection.execute(text(backend)).scalar() not in before
            with pool.connection(timeout=20) as pooled:
                assert pooled.execute(backend).fetchone()[0] not in before
            try:
                aurora_router.check(plain)
            except aurora_router.StaleConnection as error:
                assert "forked" in str(error)
            assert plain.closed
            engine.dispose()
            pool.close()

        pool.wait()
        before = backends()
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                try:
                    child(before)
                except BaseException as error:
                    os.write(2, f"{error!r}\\n".encode())
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        after = backends()
        assert after[::2] == before[::2], (before, after)
        pool.close()
        plain.close()
        engine.dispose()
        print("fine")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), still.conninfo(), still.url()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_fork_waits_for_a_late_import_of_another_thread():
    code = """
        import os, sys, threading, time
        from aurora_router.forks import IMPORTING
        held, seen = threading.Event(), []
        def late():
            with IMPORTING:
                held.set()
                time.sleep(0.3)
                seen.append("imported")
        threading.Thread(target=late).start()
        held.wait()
        child = os.fork()
        if child == 0:
            assert IMPORTING.acquire(blocking=False)
            os._exit(0 if seen == ["imported"] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert IMPORTING.acquire(blocking=False)
        print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_fork_that_runs_no_hook_before_it_leaves_a_lock_that_can_be_had():
    """uWSGI forks in C, and calls only what is to be done in the child."""
    code = """
        import threading
        from aurora_router import forks
        held, done = threading.Event(), threading.Event()
        def late_import():
            with forks.IMPORTING:
                held.set()
                done.wait()
        thread = threading.Thread(target=late_import, daemon=True)
        thread.start()
        held.wait()
        forks._in_child()
        assert forks.IMPORTING.acquire(blocking=False)
        print("fine")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_fork_waits_for_a_step_of_another_threads_dial_but_not_for_ever(monkeypatch):
    steps, entered, done = forks.STEPS, threading.Event(), threading.Event()

    def dial():
        yield
        entered.set()
        done.wait()

    thread = threading.Thread(target=lambda: list(forks.step_by_step(dial())))
    thread.start()
    entered.wait()
    monkeypatch.setattr(forks, "STEP_SECONDS", 0.05)
    steps.stop()  # in vain: the step goes on
    assert steps.is_busy()
    steps.resume()
    monkeypatch.setattr(forks, "STEP_SECONDS", 60.0)
    threading.Timer(0.05, done.set).start()
    steps.stop()
    assert not steps.is_busy()
    steps.resume()
    thread.join()


@pytest.mark.parametrize("locks", ["gate", "lock"])
def test_a_signal_handler_may_fork_where_its_own_thread_enters_a_step(locks):
    """The handler runs between any two instructions of its thread, which may hold a lock of the steps."""
    steps = forks.Steps()
    ended = threading.Event()

    def interrupted():
        with getattr(steps, locks):
            steps.stop()
            steps.resume()
        ended.set()

    threading.Thread(target=interrupted, daemon=True).start()
    assert ended.wait(10)
