"""Forks at the worst moments: no child hangs, whatever another thread of the parent was doing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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


def test_a_fork_waits_for_a_late_import_of_another_thread():
    code = """
        import os, sys, threading, time
        from aurora_router.late import IMPORTING
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
        from aurora_router import late
        held, done = threading.Event(), threading.Event()
        def late_import():
            with late.IMPORTING:
                held.set()
                done.wait()
        thread = threading.Thread(target=late_import, daemon=True)
        thread.start()
        held.wait()
        late._in_child()
        assert late.IMPORTING.acquire(blocking=False)
        print("fine")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
