"""The reference cluster of MariaDB: what it promises of commits, its commands, its end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pymysql
import pytest

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.errors import (
    FailoverImpossibleError,
    RequestError,
    UnknownInstanceError,
    WriterRequiredError,
)
from aurora_router_cluster.mysql import server as server_module

pytestmark = pytest.mark.cluster


@contextlib.contextmanager
def session(cluster, name=None, **more):
    """A stock connection to an instance; None: the writer."""
    at = cluster.instance(name or cluster.writer)
    login = {"user": "app", "password": "app", "database": "app", "autocommit": True, "ssl_disabled": True}
    connection = pymysql.connect(host=at.host, port=at.port, **{**login, **more})
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        if connection.open:
            connection.close()


def rows(cluster, sql, name=None):
    with session(cluster, name) as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.fixture(scope="module")
def still(mariadb):
    """A cluster whose control plane does nothing by itself."""
    with LocalCluster.start(engine="mysql", readers=1, auto=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster(mariadb):
    with LocalCluster.start(engine="mysql") as started:
        yield started


def test_a_commit_that_only_the_relay_log_of_a_killed_reader_has_is_kept(mariadb):
    """The reader has acknowledged it and not applied it; then both processes are killed."""
    with LocalCluster.start(engine="mysql", readers=1, auto=False) as cluster:
        former, reader = cluster.writer, cluster.readers[0]
        with session(cluster) as cursor:
            cursor.execute("create table t (i int)")
            cursor.execute("insert into t values (0)")
            wait(lambda: rows(cluster, "select count(*) from t", reader) == ((1,),))
            with session(cluster, reader) as locking:
                locking.execute("lock tables t read")  # what comes is received, and not applied
                for number in range(1, 21):
                    cursor.execute("insert into t values (%s)", (number,))
                assert rows(cluster, "select count(*) from t", reader) == ((1,),)
                cluster.kill(reader, hold=True)
                cluster.kill(former, hold=True)
        done = cluster.failover()
        assert (done.former, done.writer, done.planned) == (former, reader, False)
        assert rows(cluster, "select count(*) from t") == ((21,),)


def wait(condition, seconds=45.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        time.sleep(0.01)


def test_what_was_never_acknowledged_is_discarded_with_the_former_writers_data(cluster):
    """A writer that is cut off from its readers writes to its log, and then waits for an acknowledgement."""
    former = cluster.writer
    with session(cluster) as cursor:
        cursor.execute("create or replace table u (i int)")
    for each in cluster.readers:
        wait(lambda each=each: rows(cluster, "show tables like 'u'", each) != ())
        cluster.freeze(each)
    with session(cluster, read_timeout=1) as cursor, pytest.raises(pymysql.err.OperationalError, match="timed out"):
        cursor.execute("insert into u values (1)")  # no reader has it
    cluster.kill(former)
    for each in cluster.readers:
        cluster.thaw(each)
    wait(lambda: cluster.writer != former and cluster.instance(former).state == "available")
    assert rows(cluster, "select count(*) from u") == ((0,),)
    assert rows(cluster, "select count(*) from u", former) == ((0,),)
    wait(lambda: all(each.state == "available" for each in cluster.instances))


def test_readers_refuse_writes_and_show_the_topology(cluster):
    for each in cluster.readers:
        with session(cluster, each) as cursor, pytest.raises(pymysql.err.OperationalError, match="read-only"):
            cursor.execute("create table nowhere (i int)")
    for each in cluster.instances:
        found = rows(
            cluster,
            "select server_id, session_id, replica_lag_in_milliseconds, last_update_timestamp <= now(6) "
            "from information_schema.replica_host_status order by server_id",
            each.name,
        )
        assert [row[0] for row in found] == sorted(one.name for one in cluster.instances)
        assert [row[0] for row in found if row[1] == "MASTER_SESSION_ID"] == [cluster.writer]
        assert all(row[3] == 1 for row in found)
        assert rows(cluster, "select @@aurora_server_id", each.name) == ((each.name,),)


def test_root_and_the_control_plane_are_out_of_reach(cluster):
    for user in ("root", server_module.ADMIN, server_module.REPLICATION):
        with pytest.raises(pymysql.err.OperationalError, match=r"Access denied|locked"), session(cluster, user=user):
            pass


def test_readers_join_and_leave(cluster):
    added = cluster.add_reader()
    try:
        assert added.role == "reader"
        with session(cluster) as cursor:
            cursor.execute("create or replace table v (i int)")
            cursor.execute("insert into v values (1)")
        wait(lambda: rows(cluster, "show tables like 'v'", added.name) != ())
        wait(lambda: rows(cluster, "select i from v", added.name) == ((1,),))
    finally:
        cluster.remove(added.name)
    assert added.name not in [each.name for each in cluster.instances]
    with session(cluster) as cursor:
        cursor.execute("insert into v values (2)")
    assert not Path(added.socket_directory).exists()


def test_a_former_writer_follows_after_a_planned_failover_and_loses_nothing(cluster):
    with session(cluster) as cursor:
        cursor.execute("create or replace table w (i int)")
        cursor.execute("insert into w values (1)")
    former, done = cluster.writer, cluster.failover()
    assert (done.planned, done.former, set(done.phases)) == (True, former, {"stop", "replay", "promote"})
    wait(lambda: cluster.instance(former).state == "available")
    with session(cluster) as cursor:
        cursor.execute("insert into w values (2)")
    wait(lambda: rows(cluster, "select count(*) from w", former) == ((2,),))


def test_requests_that_cannot_be_met(cluster):
    with pytest.raises(FailoverImpossibleError, match="is the writer already"):
        cluster.failover(cluster.writer)
    with pytest.raises(UnknownInstanceError, match="it has demo-1"):
        cluster.failover("nowhere")
    with pytest.raises(WriterRequiredError, match="fail over to another"):
        cluster.remove(cluster.writer)
    with pytest.raises(RequestError, match="drain"):
        cluster.remove(cluster.readers[0], drain=5)
    with pytest.raises(RequestError, match="commands are"):
        cluster.faults.hang(cluster.readers[0])


def test_without_a_reader_the_writer_commits_alone_and_comes_back_with_its_data(mariadb):
    with LocalCluster.start(engine="mysql", readers=0) as cluster:
        with session(cluster) as cursor:
            cursor.execute("create table t (i int)")
            cursor.execute("insert into t values (1)")
        with pytest.raises(FailoverImpossibleError):
            cluster.failover()
        pid = cluster.instances[0].pid
        cluster.kill(cluster.writer)
        wait(lambda: cluster.instances[0].pid not in {None, pid} and cluster.instances[0].state == "available")
        assert rows(cluster, "select i from t") == ((1,),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tls": True}, "tls: the engine mysql has none of that"),
        ({"data": "/tmp/nowhere", "flavour": "direct"}, "flavour, data"),
        ({"settings": {"a": "b"}}, "settings: the engine mysql"),
        ({"engine": "oracle"}, "unknown engine 'oracle'"),
        ({"engine": "postgresql", "mysql": "/usr"}, "goes with engine 'mysql'"),
    ],
)
def test_options_that_it_has_not(options, said):
    with pytest.raises(RequestError, match=said):
        LocalCluster.start(**{"engine": "mysql", **options})


def run(*arguments):
    command = [sys.executable, "-m", "aurora_router", "cluster", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_the_command_line(mariadb, tmp_path):
    name = f"my-{os.getpid()}"
    up = run("up", "--engine", "mysql", "--readers", "1", "--name", name, "--detach")
    try:
        assert up.returncode == 0, up.stderr
        assert "there is no quorum storage under this engine" in run("status", "--name", name).stdout
        assert "aurora_router_mysql.connect(host=" in up.stdout
        assert "--data" not in up.stdout
        status = json.loads(run("status", "--name", name, "--json").stdout)
        assert status["engine"] == "mysql"
        assert "MariaDB" in status["version"]
        refused = run("url", "--name", name)
        assert refused.returncode == 1
        assert "PyMySQL takes no URL" in refused.stderr
        assert run("failover", "--name", name).returncode == 0
        pids = [each["pid"] for each in status["instances"]]
    finally:
        assert run("down", "--name", name).returncode == 0
    wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert not Path(status["directory"]).exists()


def test_a_killed_supervisor_leaves_nothing(mariadb):
    cluster = LocalCluster.start(engine="mysql", readers=1, detach=True)
    status = cluster.status()
    os.kill(status.supervisor, 9)
    wait(lambda: not any(Path(f"/proc/{each.pid}").exists() for each in status.instances))
    wait(lambda: not Path(status.directory).exists())
