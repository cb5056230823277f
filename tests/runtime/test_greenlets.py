"""Processes that gevent or eventlet has patched: the monitor's thread is one of the system, all else are greenlets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aurora_router_cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.case]

PROGRAM = Path(__file__).with_name("greenlets.py")


@pytest.fixture
def cluster(tmp_path):
    with LocalCluster.start(f"green-{os.getpid()}", readers=1) as running:
        yield running


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_connects_queries_and_a_failover_in_a_patched_process(cluster, library):
    """psycopg itself waits as greenlets do under gevent; for eventlet its users set PSYCOPG_WAIT_FUNC."""
    command = [sys.executable, str(PROGRAM), library, cluster.name]
    environment = {**os.environ, "PSYCOPG_WAIT_FUNC": "wait_select"} if library == "eventlet" else None
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_coroutine_function_gives_credentials_in_a_patched_process(library):
    """The other greenlets run while a greenlet waits for it."""
    code = f"""
        import warnings
        warnings.simplefilter("ignore")
        if {library!r} == "gevent":
            from gevent import monkey, sleep, spawn
            monkey.patch_all()
        else:
            import eventlet
            from eventlet import sleep, spawn
            eventlet.monkey_patch()
        import asyncio
        from aurora_router.credentials import Credential, Login
        from aurora_router.runtime.credentials import CredentialCache
        ticks = []
        def tick():
            while True:
                ticks.append(1)
                sleep(0.01)
        async def provider(login):
            await asyncio.sleep(0.3)
            return Credential("of " + login.user)
        spawn(tick)
        found = CredentialCache(provider).get(Login("a", 1, "app", "app"))
        assert len(ticks) > 3, ticks
        print(found.credential.password)
    """
    code = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "of app\n"), done.stderr


def test_a_thread_of_the_system_without_the_library():
    """`native` gives the interpreter's own things, whether they are patched or not."""
    code = """
        import sys
        if sys.argv[1] == "gevent":
            from gevent import monkey
            monkey.patch_all()
        elif sys.argv[1] == "eventlet":
            import warnings
            warnings.simplefilter("ignore")
            import eventlet
            eventlet.monkey_patch()
        import _thread
        from aurora_router import native
        assert native.is_patched() is (sys.argv[1] != "neither")
        lock, seen = native.new_lock(), []
        lock.acquire()
        native.start_thread(lambda: (seen.append(_thread.get_native_id()), lock.release()), "aurora-router-test")
        assert lock.acquire(timeout=20)  # a greenlet would never run
        assert seen != [_thread.get_native_id()]
        print(type(native.original("select", "poll")()).__module__)
    """
    code = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    for library in ("neither", "gevent", "eventlet"):
        done = subprocess.run([sys.executable, "-c", code, library], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "select\n"), (library, done.stderr)
