"""``aurora-router outcome`` against a real server."""

from __future__ import annotations

import json

import psycopg
import pytest

import aurora_router
from aurora_router.cli.main import main

pytestmark = pytest.mark.cluster


@pytest.fixture
def url(aurora_cluster):
    return aurora_cluster.conninfo()


def witnesses(url):
    with aurora_router.connect(url) as connection:
        return connection.execute("select count(*) from aurora_router.witness where not void").fetchone()[0]


def test_install_use_ask_prune_uninstall(url, capsys):
    assert main(["outcome", "install", url]) == 0
    try:
        assert main(["outcome", "install", url]) == 0, "again"
        assert "aurora_router.witness is in the database app" in capsys.readouterr().out
        tokens = []
        router = aurora_router.Router(url, aurora_outcome="witness")
        assert router.run_transaction(lambda c: c.execute("select 7").fetchone(), on_token=tokens.append) == (7,)
        assert main(["outcome", "ask", url, str(tokens[0])]) == 0
        assert capsys.readouterr().out == "committed\n"
        assert main(["outcome", "prune", url]) == 0
        assert capsys.readouterr().out == "0 rows pruned\n"
        assert witnesses(url) == 1
        with aurora_router.connect(url, autocommit=True) as connection:
            connection.execute("update aurora_router.witness set at = at - interval '25 h'")
        assert main(["outcome", "prune", url]) == 0
        assert witnesses(url) == 0
    finally:
        assert main(["outcome", "uninstall", url]) == 0
    with pytest.raises(psycopg.errors.UndefinedTable):
        witnesses(url)


def test_json(url, capsys):
    def facts(*arguments):
        assert main(["outcome", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    where = {"table": "aurora_router.witness", "database": "app"}
    assert facts("install", url) == {**where, "installed": True}
    try:
        tokens = []
        router = aurora_router.Router(url, aurora_outcome="witness")
        router.run_transaction(lambda c: None, on_token=tokens.append)
        assert facts("ask", url, str(tokens[0])) == {"outcome": "committed"}
        assert facts("prune", url) == {**where, "pruned": 0}
    finally:
        assert facts("uninstall", url) == {**where, "installed": False}


def test_another_user_may_use_it_and_not_delete(url):
    assert main(["outcome", "install", url]) == 0
    try:
        with aurora_router.connect(url) as connection:
            acl = connection.execute(
                "select privilege_type from information_schema.table_privileges"
                " where table_schema = 'aurora_router' and grantee = 'PUBLIC' order by 1"
            ).fetchall()
        assert acl == [("INSERT",), ("SELECT",)]
    finally:
        assert main(["outcome", "uninstall", url]) == 0


def test_young_rows_are_not_pruned(url, capsys):
    assert main(["outcome", "prune", url, "--hours", "23"]) == 1
    assert "kept for 24 h" in capsys.readouterr().err


def test_what_is_no_token(url, capsys):
    assert main(["outcome", "ask", url, "nonsense"]) == 2
    assert "not a commit token" in capsys.readouterr().err


def test_the_witness_way_without_the_table_says_what_to_do(url):
    router = aurora_router.Router(url, aurora_outcome="witness")
    with pytest.raises(aurora_router.InvalidOption, match="aurora-router outcome install URL"):
        router.run_transaction(lambda c: None)
