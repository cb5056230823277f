"""Connections of PyMySQL's own class on a cluster of real MariaDB servers."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import pymysql
import pytest

import aurora_router_mysql
from aurora_router.model.event import ConnectionsCut, HangRefuted, HangSuspected
from aurora_router.model.instance import Role
from aurora_router_mysql.errors import NameNotResolved, NoInstanceAvailable

pytestmark = pytest.mark.cluster


def ask(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def sockets():
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += str(each.readlink()).startswith("socket:")
        except OSError:
            continue
    return found


def test_the_class_and_the_session_are_pymysqls(make, whole):
    connection = make()
    assert isinstance(connection, pymysql.connections.Connection)
    assert connection.placement.instance == whole.writer
    assert connection.placement.role is Role.WRITER
    assert connection.placement.current is True
    assert ask(connection, "select 1, 'é', null, now() > '2000-01-01'") == ((1, "é", None, 1),)  # its converters
    assert connection.get_autocommit() is True
    assert connection.open
    connection.close()
    assert not connection.open
    with pytest.raises(pymysql.err.Error, match="Already closed"):
        connection.close()


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_roles_by_option(make, whole, role):
    connection = make(aurora_role=role)
    (found,) = ask(connection, "select @@innodb_read_only, @@aurora_server_id")
    assert found == (int(role == "reader"), connection.placement.instance)
    assert (connection.placement.instance == whole.writer) is (role == "writer")


def test_the_reader_endpoint_spreads(make, whole):
    made = [make("reader") for _ in range(6)]
    counts = {name: sum(each.placement.instance == name for each in made) for name in whole.readers}
    assert sorted(counts.values()) == [3, 3]


def test_an_instance_endpoint_and_an_option_lead_to_that_instance(make, whole):
    for each in whole.instances:
        assert make(f"instance:{each.name}").placement.instance == each.name
        assert make(aurora_instance=each.name).placement.instance == each.name


def test_options_of_pymysql_work(make):
    connection = make(
        "writer", cursorclass=pymysql.cursors.DictCursor, init_command="set @x = 5", sql_mode="ANSI_QUOTES",
        charset="latin1", autocommit=False, read_timeout=20, local_infile=False, program_name="tests",
    )  # fmt: skip
    assert ask(connection, "select @x as x, @@sql_mode as mode, @@character_set_client as c") == [
        {"x": 5, "mode": "ANSI_QUOTES", "c": "latin1"}
    ]
    assert connection.get_autocommit() is False
    assert connection._read_timeout == 20


def test_errors_stay_pymysqls(make, whole):
    with pytest.raises(pymysql.err.OperationalError) as denied:
        make(password="wrong")
    assert (type(denied.value), denied.value.args[0]) == (pymysql.err.OperationalError, 1045)
    with pytest.raises(pymysql.err.OperationalError) as unknown:
        make(database="nowhere")
    assert unknown.value.args[0] in {1049, 1044}
    with pytest.raises(pymysql.err.ProgrammingError) as missing:
        ask(make(), "select * from nowhere")
    assert not hasattr(missing.value, "incident")
    with pytest.raises(NameNotResolved) as name:
        make(host="nowhere.cluster-c9akciq32.eu-west-1.rds.aurora.test")
    assert name.value.args[0] == 2003


def test_a_refused_write_says_where_it_was(make):
    reader = make("reader")
    with pytest.raises(pymysql.err.OperationalError) as refused:
        ask(reader, "create table nowhere (i int)")
    assert refused.value.args[0] == 1290
    assert refused.value.incident.instance == reader.placement.instance
    assert "refused to write" in refused.value.incident.text


def test_nothing_listens(mariadb):
    with pytest.raises(NoInstanceAvailable, match="Connection refused"):
        aurora_router_mysql.connect(host="127.0.0.1", port=1, user="app", aurora_failover_timeout=0, ssl_disabled=True)


def test_a_server_that_says_nothing_costs_the_time_of_a_dial(mariadb):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(NoInstanceAvailable, match=r"timed out after 0\.5 s"):
            aurora_router_mysql.connect(
                host="127.0.0.1", port=silent.getsockname()[1], user="app", ssl_disabled=True,
                aurora_connect_timeout=0.5, aurora_failover_timeout=0,
            )  # fmt: skip
        assert 0.4 < time.monotonic() - began < 3.0


def test_a_connect_leaves_no_other_socket_open(make, whole):
    make().close()
    before = sockets()
    for role in ("writer", "reader", "any", "prefer-reader"):
        connection = make(aurora_role=role)
        assert sockets() <= before + 2  # itself, and at most one of the monitor's
        connection.close()
    del connection
    gc.collect()


def test_ping_reconnects_to_the_right_instance(make, whole):
    connection = make("reader", cursorclass=pymysql.cursors.DictCursor)
    connection.autocommit(False)
    connection._force_close()
    with pytest.warns(DeprecationWarning, match="reconnect"):
        connection.ping(reconnect=True)
    assert connection.placement.instance in whole.readers
    assert ask(connection, "select @@autocommit as a") == [{"a": 0}]  # as it was changed, as stock does
    assert (
        len([each for each in connection.placement._cluster.tracked_connections().values() if connection in each]) == 1
    )


def test_a_connection_that_is_connected_later(whole):
    connection = aurora_router_mysql.Connection(**whole.mysql_keywords(), defer_connect=True, ssl_disabled=True)
    assert (connection.open, connection.placement) == (False, None)
    connection.connect()
    assert connection.placement.instance == whole.writer
    connection.close()
    assert connection not in connection.placement._cluster.tracked_connections().get(whole.writer, [])


def test_a_socket_of_ones_own_is_used_as_it_is(whole):
    import socket

    at = whole.instance(whole.readers[0])
    connection = aurora_router_mysql.Connection(**whole.mysql_keywords(), defer_connect=True, ssl_disabled=True)
    connection.connect(socket.create_connection((at.host, at.port)))
    assert ask(connection, "select @@aurora_server_id") == ((at.name,),)
    assert connection.placement is None
    connection.close()


def test_prepared_statements_large_packets_and_change_user_pass_the_front(make):
    connection = make()
    ask(connection, "prepare s from 'select ? + 1'")
    ask(connection, "set @a = 41")
    assert ask(connection, "execute s using @a") == ((42,),)
    ask(connection, "set session max_statement_time = 60")
    (limit,) = ask(connection, "select @@global.max_allowed_packet")[0]
    assert limit == 16777216  # the largest statement that the server takes
    text = "x" * (limit - 4096)
    assert ask(connection, f"select length('{text}')") == ((len(text),),)
    assert ask(connection, "select @@aurora_server_id") == ((connection.placement.instance,),)


def test_the_child_of_a_fork_leaves_the_session_to_its_parent(whole):
    code = f"""
import os, aurora_router_mysql
connection = aurora_router_mysql.connect(**{whole.mysql_keywords(ssl_disabled=True)!r})
child = os.fork()
if child == 0:
    connection.close()
    other = aurora_router_mysql.connect(**{whole.mysql_keywords(ssl_disabled=True)!r})
    other.cursor().execute("select 1"); other.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
cursor = connection.cursor(); cursor.execute("select 7"); print(cursor.fetchone()[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("7\n", "")


def await_lags(connection, whole):
    """Wait until the readers' lag is known: at first a reader has not heard of its writer's heartbeat."""
    deadline = time.monotonic() + 30
    while not all(connection.placement.view.instances[name].lag is not None for name in whole.readers):
        assert time.monotonic() < deadline, "the readers' lag is known"
        time.sleep(0.05)


def test_events_and_views_are_those_of_the_core(make, whole, events):
    connection = make(aurora_refresh=1)
    view = connection.placement.view
    assert view.writer == whole.writer
    assert set(view.instances) == {each.name for each in whole.instances}
    await_lags(connection, whole)


def test_a_bound_of_the_lag_is_asked_of_the_reader(make, whole):
    await_lags(make(aurora_refresh=1), whole)
    assert make("reader", aurora_max_lag=1).placement.instance in whole.readers


# ---------------------------------------------------------------- hangs


@pytest.mark.parametrize(("profile", "within"), [("default", 4.0), ("aggressive", 2.0)])
def test_a_hung_reader_is_noticed_and_its_connections_are_cut(make, whole, events, eventually, profile, within):
    connection = make("reader", aurora_profile=profile)
    name = connection.placement.instance
    whole.freeze(name)
    began = time.monotonic()
    with pytest.raises(pymysql.err.OperationalError) as lost:
        ask(connection, "select 1")
    assert time.monotonic() - began < within
    assert lost.value.incident.cut is not None
    assert name in lost.value.incident.text
    other = make("reader", aurora_profile=profile)
    assert other.placement.instance != name
    eventually(lambda: any(isinstance(each, ConnectionsCut) and each.id == name for each in events), 5.0)


def test_a_long_statement_on_a_healthy_instance_is_not_cut(make, whole, events):
    connection = make("reader", aurora_profile="aggressive")
    assert ask(connection, "select sleep(2.5)") == ((0,),)
    assert any(isinstance(each, HangSuspected) for each in events)
    assert any(isinstance(each, HangRefuted) for each in events)
    assert not any(isinstance(each, ConnectionsCut) for each in events)


def test_what_a_connection_does_is_read_off_it(make, eventually):
    from aurora_router.flow.runtime import Activity
    from aurora_router_mysql.monitoring import MySqlMonitorRuntime

    connection = make(autocommit=False)
    activity = MySqlMonitorRuntime.activity
    assert activity(None, connection) is Activity.IDLE
    for statement in ("commit", "rollback", "ping"):  # their answers leave no result
        getattr(connection, statement)()
        assert activity(None, connection) is Activity.IDLE
    connection.begin()
    assert activity(None, connection) is Activity.OPEN
    ask(connection, "create table if not exists app.activity (i int)")
    ask(connection, "insert into app.activity values (1)")
    assert activity(None, connection) is Activity.OPEN
    connection.rollback()
    assert activity(None, connection) is Activity.IDLE
    thread = threading.Thread(target=ask, args=(connection, "select sleep(1)"))
    thread.start()
    eventually(lambda: activity(None, connection) is Activity.WAITING, 5.0)
    thread.join()
    assert activity(None, connection) is Activity.IDLE
    connection._force_close()
    assert activity(None, connection) is Activity.BROKEN
    connection.close()
    assert activity(None, connection) is Activity.CLOSED
