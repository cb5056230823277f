"""Failover after failover nothing grows: threads, descriptors, memory; forks and exits included."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import aurora_router
from aurora_router_cluster import LocalCluster
from aurora_router_cluster.errors import FailoverImpossibleError

pytestmark = pytest.mark.cluster

PATIENCE = 90.0
WARM = 2
"""Rounds before the first look: what is imported late is imported, what is pooled is pooled."""
GROWN_KB = 4096
"""Memory moves by that much without a leak: arenas of threads, the trail of events, the commit log's own buffers."""


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2) as started:
        with aurora_router.connect(started.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE ledger (n int)")
        yield started


def until(condition, what: str):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)
    return found


def fail_over(cluster, number: int) -> None:
    """A planned one, or the writer is killed."""
    old = cluster.writer
    if number % 3 == 2:
        cluster.kill(old)
        until(lambda: cluster.writer not in {None, old}, "another writer")
    else:
        until(lambda: _switches_over(cluster), "a reader that can be promoted")


def _switches_over(cluster) -> bool:
    """False: both readers are still starting after what happened before."""
    try:
        cluster.failover()
    except FailoverImpossibleError:
        return False
    return True


class Client:
    """A process that runs `leaking.py`."""

    def __init__(self, kind: str, conninfo: str, workers: int) -> None:
        command = [sys.executable, str(Path(__file__).with_name("leaking.py")), kind, conninfo, str(workers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command: str) -> dict:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}"
        return json.loads(line)


@contextmanager
def client(*arguments):
    started = Client(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


def stays_flat(cluster, kind: str, workers: int, rounds: int) -> None:
    with client(kind, cluster.conninfo(), workers) as held:
        for number in range(WARM):
            fail_over(cluster, number)
            held.ask("round")
        before = held.ask("rest")
        for number in range(rounds):
            fail_over(cluster, number)
            held.ask("round")
        after = held.ask("rest")
        print(f"{kind}, {workers} workers, {rounds} failovers: {before} -> {after}")
        assert after["threads"] <= before["threads"]
        assert after["files"] <= before["files"]
        assert after["kb"] - before["kb"] <= GROWN_KB
        held.ask("exit")
        assert held.process.wait(PATIENCE) == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "workers"), [("threads", 50), ("tasks", 500)])
def test_fifty_failovers_leave_nothing_behind(cluster, kind, workers):
    stays_flat(cluster, kind, workers, 50)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "workers"), [("threads", 50), ("tasks", 500)])
def test_a_few_failovers_leave_nothing_behind(cluster, kind, workers):
    stays_flat(cluster, kind, workers, 4)


# ---------------------------------------------------------------- pre-fork servers

APPLICATION = '''
import json, os, threading
import psycopg
import aurora_router

router = aurora_router.Router(os.environ["CONNINFO"])
with router.connect(autocommit=True) as first:
    assert first.execute("SELECT 1").fetchone() == (1,)
kept = router.connect(autocommit=True)
KEPT = kept.info.backend_pid


def application(environ, start_response):
    """Write, and report where; a failure is reported, too, and the client asks again."""
    try:
        with router.connect(autocommit=True) as connection:
            connection.execute("INSERT INTO ledger VALUES (1)")
            count = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [KEPT]).fetchone()[0]
            report = {"instance": connection.placement.instance, "kept": count}
    except psycopg.Error as error:
        report = {"error": str(error)}
    watches = sum(thread.name == "aurora-router-monitor" for thread in threading.enumerate())
    body = json.dumps({"pid": os.getpid(), "parent": os.getppid(), "watches": watches, **report}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''


class OverSocket(http.client.HTTPConnection):
    """HTTP over a socket in the file system: no port that another process may take."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


def fetched(path: str) -> dict:
    connection = OverSocket(path)
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.fixture
def gunicorn(cluster, tmp_path):
    """A server with three workers, forked from a parent that used the router."""
    (tmp_path / "application.py").write_text(APPLICATION)
    path = str(tmp_path / "server")
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--bind", f"unix:{path}"]
    environment = {**os.environ, "CONNINFO": cluster.conninfo()}
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [*command, "--no-control-socket", "application:application"]
        if "--no-control-socket" in helped()
        else [*command, "application:application"],
        cwd=tmp_path,
        env=environment,
        stderr=log,
    )
    try:
        until(lambda: process.poll() is not None or Path(path).exists(), "the server listens")
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield process, path
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            log.close()


def helped() -> str:
    command = [sys.executable, "-m", "gunicorn", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def told_by_all(path: str, instance: str, workers: int = 3) -> dict[int, dict]:
    """What each worker reports, once all of them write to `instance`."""
    told: dict[int, dict] = {}

    def asked() -> bool:
        answer = fetched(path)
        if answer.get("instance") == instance:
            told[answer["pid"]] = answer
        return len(told) >= workers

    until(asked, f"{workers} workers write to {instance}")
    return told


def test_each_worker_of_a_pre_fork_server_fails_over_by_itself(cluster, gunicorn):
    process, path = gunicorn
    told = told_by_all(path, cluster.writer)
    assert process.pid not in told
    assert {each["kept"] for each in told.values()} == {1}, "the parent's connection lives"
    os.kill(next(iter(told)), signal.SIGTERM)
    until(lambda: set(told_by_all(path, cluster.writer)) != set(told), "a worker was replaced")
    answers = told_by_all(path, cluster.writer)
    assert {each["kept"] for each in answers.values()} == {1}, "a worker that ended took nothing of the parent's along"
    for number in range(2):
        fail_over(cluster, number)
        told = told_by_all(path, cluster.writer)
    assert all(each["watches"] <= 1 for each in told.values())


# ---------------------------------------------------------------- multiprocessing

MULTIPROCESSING = """
import multiprocessing, os, sys, threading, warnings
import aurora_router

def work(conninfo, queue):
    with aurora_router.connect(conninfo, autocommit=True) as connection:
        connection.execute("INSERT INTO ledger VALUES (1)")
        queue.put((connection.placement.instance, threading.active_count() <= 3))

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
    how, conninfo = sys.argv[1:]
    context = multiprocessing.get_context(how)
    with aurora_router.connect(conninfo, autocommit=True) as connection:
        mine = connection.placement.instance
        queue = context.Queue()
        children = [context.Process(target=work, args=(conninfo, queue)) for _ in range(4)]
        for child in children:
            child.start()
        assert [queue.get(timeout=60) for _ in children] == [(mine, True)] * 4
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * 4
        connection.execute("INSERT INTO ledger VALUES (2)")
    print("fine")
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_children_of_multiprocessing_connect_and_leave_the_parent_alone(cluster, tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(MULTIPROCESSING))
    done = subprocess.run(
        [sys.executable, str(script), how, cluster.conninfo()], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_connections_of_a_client_that_was_killed_are_gone(cluster):
    with client("threads", cluster.conninfo(), 4) as held:
        held.ask("round")
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
            count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            assert connection.execute(count).fetchone()[0] > 1
            held.process.kill()
            until(lambda: connection.execute(count).fetchone()[0] <= 2, "its sessions have ended")
