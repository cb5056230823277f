"""``aurora-router drain`` against a real cluster, and what it refuses."""

from __future__ import annotations

import json

import psycopg
import pytest

import aurora_router
from aurora_router.cli.main import main
from aurora_router.flow import drain_sql

pytestmark = pytest.mark.cluster


@pytest.fixture
def url(aurora_cluster):
    yield aurora_cluster.conninfo()
    assert main(["drain", "--undo", aurora_cluster.conninfo()]) == 0


def facts(capsys, *arguments, status=0):
    capsys.readouterr()
    assert main(["drain", *arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def has_role(cluster):
    with psycopg.connect(cluster.plain_conninfo()) as connection:
        return connection.execute(drain_sql.EXISTS).fetchone()[0]


def test_drain_list_undo(aurora_cluster, url, capsys):
    first, second = aurora_cluster.readers[:2]
    made = facts(capsys, url, first, "--reason", r"it's the \ patch")
    assert made == {"drained": first, "seconds": 3600.0, "reason": r"it's the \ patch"}
    facts(capsys, url, second.upper(), "--for", "60")
    listed = facts(capsys, "--list", url)["drains"]
    assert [(each["instance"], each["reason"]) for each in listed] == [(first, r"it's the \ patch"), (second, "")]
    assert 3590 < listed[0]["seconds_left"] <= 3600
    assert 50 < listed[1]["seconds_left"] <= 60
    assert main(["topology", url]) == 0
    assert rf"{first} is drained: it's the \ patch" in capsys.readouterr().out
    facts(capsys, url, first, "--for", "10")
    assert facts(capsys, "--list", url)["drains"][0]["seconds_left"] <= 10, "the later one counts"
    assert facts(capsys, url, first, "--undo") == {"ended": [first]}
    assert facts(capsys, url, "--undo") == {"ended": [second]}
    assert facts(capsys, url, "--undo") == {"ended": []}
    assert not has_role(aurora_cluster), "nothing is left"


def test_each_database_and_each_user_sees_it(aurora_cluster, url, capsys):
    """A note is read where the user has no right but CONNECT, and in a database of which the drain knows nothing."""
    reader = aurora_cluster.readers[0]
    with aurora_router.connect(url, autocommit=True) as connection:
        connection.execute("create role plain login password 'plain'")
    try:
        facts(capsys, url, reader)
        other = {"user": "plain", "password": "plain", "dbname": "postgres"}
        view = aurora_router.Router(aurora_cluster.conninfo("writer", **other)).topology()
        assert set(view.drains) == {reader}
    finally:
        with aurora_router.connect(url, autocommit=True) as connection:
            connection.execute("drop role plain")


def test_waiting_for_the_sessions_to_end(aurora_cluster, url, capsys):
    reader = aurora_cluster.readers[0]
    pinned = aurora_cluster.plain_conninfo(f"instance:{reader}", application_name="orders")
    with psycopg.connect(pinned):
        assert facts(capsys, url, reader, "--wait", "0.6", status=3)["sessions"] == {"orders": 1}
    assert facts(capsys, url, reader, "--wait", "30")["sessions"] == {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "name the reader to drain"),
        (["nix"], "has no instance 'nix'; it has"),
        (["WRITER"], "fail over to a reader first"),
        (["READER", "--for", "0"], "--for 0: want 1 to 604800 s"),
        (["READER", "--for", "nan"], "--for nan: want 1 to 604800 s"),
        (["READER", "--reason", "x" * 201], "--reason has 201 characters"),
        (["READER", "--wait", "-1"], "--wait -1: want 0 to"),
        (["READER", "--undo", "--wait", "1"], "--wait goes with the drain"),
        (["READER", "--list"], "--list goes with neither"),
    ],
)
def test_refused(aurora_cluster, url, capsys, arguments, text):
    names = {"WRITER": aurora_cluster.writer, "READER": aurora_cluster.readers[0]}
    assert main(["drain", url, *(names.get(each, each) for each in arguments)]) == 1
    assert text in capsys.readouterr().err
    assert not has_role(aurora_cluster)


def test_a_user_without_the_right_is_told_what_to_grant(aurora_cluster, url, capsys):
    with aurora_router.connect(url, autocommit=True) as connection:
        connection.execute("create role plain login password 'plain'")
    try:
        plain = aurora_cluster.conninfo(user="plain", password="plain")
        assert main(["drain", plain, aurora_cluster.readers[0]]) == 1
        assert "CREATEROLE" in capsys.readouterr().err
    finally:
        with aurora_router.connect(url, autocommit=True) as connection:
            connection.execute("drop role plain")
