"""Service files are read as libpq reads them; what they say of hosts is routed like what is given."""

from __future__ import annotations

import psycopg
import pytest

from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.route import identity, route
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.servicefile import find_service, parse

DOMAIN = "abc123.eu-west-1.rds.amazonaws.com"
TEXT = f"""
# two clusters
[one]
host=one.cluster-{DOMAIN}
port=6543
dbname=app
  user=me
port=1
[two]
host=two.cluster-ro-{DOMAIN}
password=a=b
[ldap]
ldap://directory/dc=x?uniqueMember?one?(cn=db)
[three]
hostaddr=10.0.0.1
target_session_attrs=read-only
"""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    path = tmp_path / "services"
    path.write_text(TEXT)
    for variable in ("PGSERVICE", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path / "system"))
    return path


def where(call):
    first = call.request.first
    return first.host, first.port, first.hostaddr


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_what_is_read_is_what_libpq_reads(name, monkeypatch):
    monkeypatch.setenv("PGSERVICE", name)
    told = {each.keyword.decode(): (each.val or b"").decode() for each in psycopg.pq.Conninfo.get_defaults()}
    values = find_service(name)
    assert values
    assert {key: told[key] for key in values} == values


@pytest.mark.case
@pytest.mark.parametrize("way", ["conninfo", "keyword", "environment", "url"])
def test_a_host_in_a_service_is_routed_like_a_given_one(way, monkeypatch):
    if way == "environment":
        monkeypatch.setenv("PGSERVICE", "one")
    conninfo = {"conninfo": "service=one", "url": "postgresql://?service=one"}.get(way, "")
    call = read_connect_args(conninfo, {"service": "one"} if way == "keyword" else {})
    given = read_connect_args(f"host=one.cluster-{DOMAIN} port=6543 dbname=app", {})
    assert where(call) == where(given)
    one, other = call.request, given.request
    assert identity(one, route(one)) == identity(other, route(other))
    assert route(read_connect_args("service=two", {}).request).role is WantedRole.READER


@pytest.mark.case
def test_two_services_are_two_clusters():
    one, two = (read_connect_args(f"service={name}", {}).request for name in ("one", "two"))
    assert identity(one, route(one)) != identity(two, route(two))


def test_what_is_given_counts_more_and_the_environment_less(monkeypatch):
    monkeypatch.setenv("PGPORT", "1111")
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert where(read_connect_args("service=one port=2222", {})) == (f"one.cluster-{DOMAIN}", 2222, None)
    assert where(read_connect_args("service=two", {})) == (f"two.cluster-ro-{DOMAIN}", 1111, None)


def test_a_role_in_a_service_is_routings_affair_alone():
    call = read_connect_args("service=three", {})
    assert call.request.options.role is WantedRole.READER
    assert call.params["target_session_attrs"] == "any"


def test_a_file_that_changes_is_read_again(files):
    before = where(read_connect_args("service=one", {}))
    files.write_text(TEXT.replace("one.cluster-", "moved.cluster-"))
    assert where(read_connect_args("service=one", {})) != before


def test_what_only_libpq_can_read_is_left_to_it():
    assert parse(TEXT, "ldap") == (True, None)
    call = read_connect_args("service=ldap", {})
    assert where(call) == (None, None, None)
    assert call.params["service"] == "ldap"
    assert where(read_connect_args("service=none", {})) == (None, None, None)
