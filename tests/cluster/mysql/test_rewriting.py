"""Aurora's names in statements; nothing else is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.mysql.rewriting import Member, rewrite

MEMBERS = [Member("demo-1", True, "s1", 0.0, 0.1), Member("demo-2", False, "s2", 0.025, 0.2)]
TABLE = rewrite(b"information_schema.replica_host_status AS t", "demo-1", lambda: MEMBERS).removesuffix(b" AS t")


def rewritten(text):
    return rewrite(text.encode(), "demo-1", lambda: MEMBERS).replace(TABLE, b"TABLE").decode()


@pytest.mark.parametrize(
    ("statement", "becomes"),
    [
        ("select @@aurora_server_id", "select 'demo-1'"),
        ("SELECT @@GLOBAL.Aurora_Server_Id, 1", "SELECT 'demo-1', 1"),
        ("select @@innodb_read_only", "select @@global.read_only"),
        ("select @@global.innodb_read_only = 1", "select @@global.read_only = 1"),
        ("select aurora_version(), @@aurora_version", "select '3.10.0', '3.10.0'"),
        (
            "select * from information_schema.replica_host_status where 1",
            "select * from TABLE AS replica_host_status where 1",
        ),
        (
            "select x.cpu from `information_schema` . `REPLICA_HOST_STATUS` x",
            "select x.cpu from TABLE x",
        ),
        (
            "select 1 from t left join information_schema.replica_host_status as s on s.cpu > 1",
            "select 1 from t left join TABLE as s on s.cpu > 1",
        ),
        (
            "select count(*) from information_schema.replica_host_status",
            "select count(*) from TABLE AS replica_host_status",
        ),
        (
            "select (select 1 from information_schema.replica_host_status limit 1)",
            "select (select 1 from TABLE AS replica_host_status limit 1)",
        ),
    ],
)
def test_names_are_replaced(statement, becomes):
    assert rewritten(statement) == becomes


@pytest.mark.parametrize(
    "statement",
    [
        "select 1",
        "select '@@aurora_server_id'",
        'select "information_schema.replica_host_status"',
        r"select 'it\'s @@aurora_server_id'",
        "select 'it''s @@aurora_server_id'",
        "select 1 /* @@aurora_server_id */",
        "select 1 -- @@innodb_read_only\n",
        "select 1 # aurora_version()\n",
        "select `@@aurora_server_id` from t",
        "select @@aurora_server_idx",
        "select replica_host_status.cpu from t",
        "insert into t values ('aurora_version()')",
    ],
)
def test_everything_else_stays(statement):
    assert rewritten(statement) == statement


def test_show_variables():
    assert rewritten("SHOW VARIABLES LIKE 'aurora_version'") == (
        "SELECT 'aurora_version' AS Variable_name, '3.10.0' AS Value"
    )
    assert "IF(@@global.read_only" in rewritten("show global variables like 'innodb_read_only';")


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_without_these_names_stay(text):
    if not any(each in text.lower() for each in (b"aurora", b"innodb_read_only", b"replica_host_status")):
        assert rewrite(text, "demo-1", lambda: MEMBERS) == text


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_no_statement_raises(before, after):
    rewrite(before + b" @@aurora_server_id " + after, "demo-1", lambda: MEMBERS)
