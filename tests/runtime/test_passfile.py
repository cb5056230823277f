"""Passwords filed under the endpoint that a person knows, for instances dialled by their own names."""

from __future__ import annotations

import psycopg
import pytest

from aurora_router import connect
from aurora_router.flow.runtime import Target
from aurora_router.runtime import dns
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.libpq import dial_params
from aurora_router.runtime.passfile import Entry, find, parse, read
from aurora_router.runtime.registry import REGISTRY

ENDPOINT = "demo.cluster-abc123.eu-test-1.rds.aurora.test"
INSTANCE = Target("demo-2", "demo-2.abc123.eu-test-1.rds.aurora.test", 5432, ("127.0.0.9",))


@pytest.fixture
def passfile(tmp_path, monkeypatch):
    for variable in ("PGPASSWORD", "PGSERVICE", "PGUSER", "PGDATABASE", "PGPORT", "PGPASSFILE"):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "passwords"

    def write(text, mode=0o600):
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def password(conninfo, target=INSTANCE, **keywords):
    return dial_params(read_connect_args(conninfo, keywords).params, target, 5.0).get("password")


def filed(path, **more):
    keys = {"host": ENDPOINT, "port": 5432, "user": "app", "dbname": "orders", "passfile": path, **more}
    return " ".join(f"{key}={value}" for key, value in keys.items())


def test_lines_are_read_as_libpq_reads_them():
    text = "# comment\nh:1:d:u:p\n*:*:*:u\\:v:a\\\\b\\:c:ignored\nh:1:d:u\n\nh:1:d:u:\r\nx:1:d:u:q\r\n"
    assert list(parse(text)) == [
        Entry("h", "1", "d", "u", "p"),
        Entry("*", "*", "*", "u:v", "a\\b:c"),
        Entry("x", "1", "d", "u", "q"),
    ]


def test_the_first_entry_that_fits_counts():
    entries = list(parse("h:1:d:u:first\n*:*:*:*:any\nh:1:d:u:late"))
    assert find(entries, "h", "1", "d", "u").password == "first"
    assert find(entries, "other", "1", "d", "u").password == "any"
    assert find(entries[:1], "other", "1", "d", "u") is None


def test_an_entry_for_the_endpoint_counts_for_its_instances(passfile):
    path = passfile(f"{ENDPOINT}:5432:orders:app:secret\n")
    assert password(filed(path)) == "secret"
    assert password(filed(path, user="other")) is None
    assert password(filed(path, dbname="other")) is None


def test_an_entry_for_the_instance_itself_is_left_to_libpq(passfile):
    path = passfile(f"{INSTANCE.host}:*:*:*:own\n{ENDPOINT}:*:*:*:endpoint\n")
    assert password(filed(path)) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["{endpoint}:*:*:*:secret", "*:*:*:*:other"], "secret"),
        (["{instance}:*:*:*:own", "{endpoint}:*:*:*:secret", "*:*:*:*:other"], None),
        (["{endpoint}:*:*:*:secret", "{instance}:*:*:*:own", "*:*:*:*:other"], None),
        (["*:*:*:*:other", "{endpoint}:*:*:*:secret"], None),  # libpq takes the first line for the endpoint as well
        (["*:*:*:*:other"], None),
        (["*:5433:*:*:other"], None),
        (["{endpoint}:*:*:someone:secret", "*:*:*:*:other"], None),
    ],
)
def test_a_line_for_any_host_does_not_hide_the_line_for_the_endpoint(passfile, lines, expected):
    """Each connect gets the password that libpq gives to the one that dials the endpoint itself."""
    path = passfile("".join(line.format(endpoint=ENDPOINT, instance=INSTANCE.host) + "\n" for line in lines))
    assert password(filed(path)) == expected


def test_a_line_for_any_host_at_the_port_that_was_given(passfile):
    path = passfile("*:6432:*:*:secret\n")
    assert password(filed(path, port=6432)) == "secret"


def test_the_given_host_itself_is_left_to_libpq(passfile):
    path = passfile(f"{ENDPOINT}:*:*:*:secret\n")
    assert password(filed(path), Target("endpoint", ENDPOINT, 5432, ("127.0.0.9",))) is None


def test_a_password_given_otherwise_wins(passfile, monkeypatch):
    path = passfile(f"{ENDPOINT}:*:*:*:filed\n")
    assert password(filed(path, password="given")) == "given"
    monkeypatch.setenv("PGPASSWORD", "environment")
    assert password(filed(path)) is None


def test_the_environment_names_file_user_and_database(passfile, monkeypatch):
    path = passfile(f"{ENDPOINT}:5432:stock:clerk:secret\n")
    monkeypatch.setenv("PGPASSFILE", str(path))
    monkeypatch.setenv("PGUSER", "clerk")
    monkeypatch.setenv("PGDATABASE", "stock")
    assert password(f"host={ENDPOINT} port=5432") == "secret"


def test_the_default_file_is_in_the_home_directory(passfile, monkeypatch):
    path = passfile(f"{ENDPOINT}:*:*:*:secret\n")
    path.rename(path.parent / ".pgpass")
    monkeypatch.setenv("HOME", str(path.parent))
    assert password(f"host={ENDPOINT} user=app") == "secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_ignored(passfile, mode):
    path = passfile(f"{ENDPOINT}:*:*:*:secret\n", mode)
    assert password(filed(path)) is None


def test_no_file_and_no_plain_file(tmp_path):
    assert read(tmp_path / "none") == []
    assert read(tmp_path) == []


def test_what_is_changed_in_the_file_counts_at_once(passfile):
    path = passfile(f"{ENDPOINT}:*:*:*:before\n")
    assert password(filed(path)) == "before"
    passfile(f"{ENDPOINT}:*:*:*:after\n")
    assert password(filed(path)) == "after"


@pytest.mark.cluster
def test_a_real_instance_is_reached_with_the_endpoints_password(aurora_cluster, passfile):
    REGISTRY.reset()
    dns.forget()
    path = passfile(f"{aurora_cluster.endpoint('writer')}:*:*:*:{aurora_cluster.password}\n")
    conninfo = aurora_cluster.conninfo("writer", password=None, passfile=path)
    with connect(conninfo, aurora_role="reader") as connection:
        assert connection.placement.instance in aurora_cluster.readers
    wrong = passfile(f"{aurora_cluster.endpoint('writer')}:*:*:*:wrong\n")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(aurora_cluster.conninfo("writer", password=None, passfile=wrong), aurora_role="reader")


def test_a_password_that_is_not_utf8_is_left_to_libpq(passfile):
    """psycopg cannot hand it on; the error is libpq's, that none was given."""
    path = passfile("")
    path.write_bytes(f"{ENDPOINT}:5432:orders:app:".encode() + b"\xe9\xff\n")
    assert password(filed(path)) is None
