"""How a call is read; nothing is dialled."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aurora_router_mysql
from aurora_router.errors import InvalidOption, MalformedHost
from aurora_router_mysql.arguments import NOT_SERVED, Parameters

HOST = "mydb.cluster-c9akciq32.eu-west-1.rds.amazonaws.com"


def read(**keywords):
    return aurora_router_mysql.Connection(**{"host": HOST, "ssl_disabled": True, **keywords}, defer_connect=True)._args


def test_our_options_never_reach_pymysql():
    args = read(user="app", aurora_role="reader", aurora_connect_timeout=2)
    assert args.params.given == {"user": "app", "ssl_disabled": True}
    assert (args.request.options.role.value, args.request.options.connect_timeout) == ("reader", 2.0)
    assert [(str(each)) for each in args.request.given] == [f"{HOST}:3306"]
    assert [each.name for each in args.sources] == ["aurora", "mariadb", "mysql"]


def test_equal_calls_are_one_request():
    """Or each connect of a pool would be news for the monitor."""
    one, other = read(user="app", aurora_role="reader"), read(user="app", aurora_role="reader")
    assert one.request is other.request
    assert one.params == other.params
    assert read(user="app", aurora_role="writer").request is not one.request
    assert read(user="else", aurora_role="reader").params != one.params


def test_a_password_is_in_no_representation():
    assert "hunter2" not in repr(read(user="app", password="hunter2"))
    assert "hunter2" not in repr(Parameters({"password": "hunter2"}, read().params.template))


def test_a_list_of_hosts_may_have_a_port_each():
    args = read(host="a.internal,b.internal:3307,[::1]:3308", port=3310)
    assert [(each.host, each.port) for each in args.request.given] == [
        ("a.internal", 3310),
        ("b.internal", 3307),
        ("::1", 3308),
    ]


def test_a_socket_is_dialled_as_it_is():
    args = read(host=None, unix_socket="/run/mysqld/mysqld.sock")
    assert [(each.host, each.port) for each in args.request.given] == [("/run/mysqld/mysqld.sock", None)]


def test_the_time_limit_of_a_dial():
    assert read().request.options.connect_timeout == 5.0
    assert read(connect_timeout=3).request.options.connect_timeout == 3.0
    assert read(connect_timeout=3, aurora_connect_timeout=1).request.options.connect_timeout == 1.0


@pytest.mark.parametrize(
    ("keywords", "kind", "said"),
    [
        ({"aurora_rolle": "reader"}, InvalidOption, "did you mean aurora_role"),
        ({"aurora_source": "postgresql"}, InvalidOption, "accepted: auto, aurora, mariadb, mysql"),
        ({"host": "a,b:x"}, InvalidOption, "'x' is not a port number"),
        (
            {"host": "mysql://app:secret@a/b"},
            MalformedHost,
            "not shown.*: give what is in a URL by keywords: host, port",
        ),
        ({"host": "a,mysql://app:secret@a/b"}, MalformedHost, "by keywords"),
        ({"connect_timeout": "x"}, InvalidOption, "connect_timeout='x': is of the type str .*: seconds, a number"),
        ({"connect_timeout": None}, InvalidOption, "connect_timeout=None: is of the type NoneType"),
        ({"balance": len, "aurora_balance": "random"}, InvalidOption, "give one of them"),
        ({"host": "a,b", "aurora_source": "aurora"}, InvalidOption, "has no effect with several hosts"),
    ],
)
def test_bad_input_is_refused(keywords, kind, said):
    with pytest.raises(kind, match=said):
        read(**keywords)


@pytest.mark.parametrize("name", sorted(NOT_SERVED))
def test_what_has_no_effect_yet_is_refused(name):
    with pytest.raises(InvalidOption, match=f"aurora_{name} has no effect with MySQL yet"):
        read(**{f"aurora_{name}": "on"})


def test_a_balance_function():
    assert read(balance=lambda candidates: candidates[0]).request.options.balance.name.endswith("<lambda>")
    assert read(aurora_balance="random").request.options.balance.value == "random"


def test_psycopg_is_not_imported(tmp_path):
    """Not by the import, nor by a connect that fails, nor by the monitor's modules."""
    code = """
import sys, aurora_router_mysql
try:
    aurora_router_mysql.connect(host="127.0.0.1", port=1, user="app", ssl_disabled=True, aurora_failover_timeout=0)
except aurora_router_mysql.NoInstanceAvailable as error:
    print(error.args[0])
import aurora_router_mysql.monitoring as monitoring, aurora_router.runtime.monitor as monitor
monitor._prepare(monitoring.MySqlMonitorRuntime.needed_by_failures)
print([name for name in sys.modules if name.partition(".")[0].startswith("psycopg")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split("\n")[:2], done.stderr) == (["2003", "[]"], "")
