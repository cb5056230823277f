"""Calls of ``connect``, read: hosts, options, environment, what is left for libpq."""

from __future__ import annotations

import psycopg
import pytest

from aurora_router.errors import InvalidOption, MalformedHost
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.route import Address, route
from aurora_router.runtime.call import read_call
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL
from aurora_router.runtime.sources.postgresql import POSTGRESQL


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for variable in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSSLMODE", "PGTARGETSESSIONATTRS", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)


def given(conninfo, **keywords):
    return read_call(conninfo, keywords).request.given


@pytest.mark.parametrize(
    "conninfo",
    [
        "host=h port=6000 user=app aurora_role=reader",
        "postgresql://app@h:6000/?aurora_role=reader",
        "postgresql+aurora://app@h:6000/?aurora_role=reader",
        "postgresql+aurora_async://app@h:6000/?aurora_role=reader",
    ],
)
def test_every_way_of_saying_it(conninfo):
    call = read_call(conninfo, {})
    assert call.request.given == (Address("h", 6000),)
    assert call.request.options.role is WantedRole.READER
    assert dict(call.params) == {"user": "app"}


def test_keywords_win_over_the_conninfo():
    call = read_call("host=h aurora_role=reader user=app", {"host": "i", "aurora_role": "any", "user": "other"})
    assert call.request.given[0].host == "i"
    assert call.request.options.role is WantedRole.ANY
    assert call.params["user"] == "other"


@pytest.mark.parametrize(
    ("conninfo", "expected"),
    [
        ("", (Address(None, None),)),
        ("host=a,b port=1,2", (Address("a", 1), Address("b", 2))),
        ("host=a,b port=1", (Address("a", 1), Address("b", 1))),
        ("host=a hostaddr=10.0.0.1", (Address("a", None, "10.0.0.1"),)),
        ("hostaddr=10.0.0.1,10.0.0.2", (Address(None, None, "10.0.0.1"), Address(None, None, "10.0.0.2"))),
        ("host=a,,c", (Address("a", None), Address(None, None), Address("c", None))),
    ],
)
def test_lists_as_libpq_reads_them(conninfo, expected):
    assert given(conninfo) == expected


@pytest.mark.parametrize(
    ("conninfo", "text"),
    [
        ("host=a,b hostaddr=10.0.0.1", "could not match 2 host names with 1 hostaddr values"),
        ("host=a,b port=1,2,3", "could not match 3 port numbers to 2 hosts"),
        ("host=a port=0", "invalid port number"),
        ("host=a port=x", "invalid port number"),
        ("host=a port=70000", "invalid port number"),
    ],
)
def test_lists_that_do_not_fit(conninfo, text):
    with pytest.raises(psycopg.OperationalError, match=text):
        read_call(conninfo, {})


def test_the_environment_is_asked_where_nothing_is_given(monkeypatch):
    monkeypatch.setenv("PGHOST", "e")
    monkeypatch.setenv("PGPORT", "7000")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert given("") == (Address("e", 7000),)
    assert given("host=h") == (Address("h", 7000),)
    assert read_call("", {}).request.verifies_name
    monkeypatch.setenv("PGHOST", "f")
    assert given("") == (Address("f", 7000),)
    assert given("service=mine") == (Address(None, None),)


@pytest.mark.parametrize(
    ("attributes", "role"),
    [
        ("read-write", WantedRole.WRITER),
        ("primary", WantedRole.WRITER),
        ("standby", WantedRole.READER),
        ("read-only", WantedRole.READER),
        ("prefer-standby", WantedRole.PREFER_READER),
        ("any", WantedRole.ANY),
    ],
)
def test_target_session_attrs_asks_for_a_role(attributes, role):
    call = read_call(f"host=h target_session_attrs={attributes}", {})
    assert call.request.options.role is role
    assert "target_session_attrs" not in call.params
    assert read_call(f"host=h target_session_attrs={attributes} aurora_role=any", {}).request.options.role is (
        WantedRole.ANY
    )


@pytest.mark.parametrize(
    ("conninfo", "keywords", "error", "text"),
    [
        ("host=h aurora_rol=reader", {}, InvalidOption, "did you mean aurora_role"),
        ("host=h", {"aurora_rol": "reader"}, InvalidOption, "did you mean aurora_role"),
        ("host=h target_session_attrs=maybe", {}, InvalidOption, "accepted are read-write"),
        ("host=h nonsense=1", {}, psycopg.ProgrammingError, "nonsense"),
        ("host=h aurora_max_lag=-1", {}, InvalidOption, "negative"),
    ],
)
def test_what_is_refused(conninfo, keywords, error, text):
    with pytest.raises(error, match=text):
        read_call(conninfo, keywords)


def test_a_malformed_host_is_refused_before_anything_is_dialled():
    with pytest.raises(MalformedHost):
        route(read_call("host=a..b", {}).request)


def test_values_that_can_not_be_hashed_are_read_all_the_same():
    call = read_call("host=h", {"aurora_instance_host": {"demo-1": "h:1"}})
    assert call.request.options.instance_host is not None


def test_a_call_is_read_once():
    assert read_call("host=h", {"user": "a"}) is read_call("host=h", {"user": "a"})


@pytest.mark.parametrize(
    ("choice", "sources"),
    [
        ("auto", (AURORA_POSTGRESQL, POSTGRESQL)),
        ("aurora", (AURORA_POSTGRESQL,)),
        ("postgresql", (POSTGRESQL,)),
    ],
)
def test_sources(choice, sources):
    assert read_call(f"host=h aurora_source={choice}", {}).sources == sources


def test_name_servers():
    assert read_call("host=h aurora_dns=127.0.0.1", {}).names._server == ("127.0.0.1", 53)
    assert read_call("host=h aurora_dns=127.0.0.1:5300", {}).names._server == ("127.0.0.1", 5300)
    assert read_call("host=h", {}).names._server is None
