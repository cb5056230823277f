"""Ids into hosts and ports: templates, maps, and what is neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.hosts import HostPort, parse_host_port, parse_instance_hosts


@pytest.mark.parametrize(
    ("template", "host", "port"),
    [
        ("{id}.c9ak.us-east-1.rds.amazonaws.com", "demo-1.c9ak.us-east-1.rds.amazonaws.com", None),
        ("{id}.c9ak.us-east-1.rds.amazonaws.com:6432", "demo-1.c9ak.us-east-1.rds.amazonaws.com", 6432),
        ("db-{id}-x.internal:1", "db-demo-1-x.internal", 1),
        ("{id}", "demo-1", None),
        (" PG.{id}.Internal. ", "pg.demo-1.internal", None),
        ("/run/{id}", "/run/demo-1", None),
        ("/run/{id}:65535", "/run/demo-1", 65535),
    ],
)
def test_a_template(template, host, port):
    assert parse_instance_hosts(template).locate("demo-1") == (host, port)


def test_the_case_of_an_id_does_not_matter():
    assert parse_instance_hosts("{id}.internal").locate("Demo-1") == ("demo-1.internal", None)
    assert parse_instance_hosts("Demo-1=a").locate("dEMO-1") == ("a", None)


@pytest.mark.parametrize("id_", ["", "evil.example", "10.0.0.1:5432", "a b", "a/b", "a" * 64])
def test_an_id_that_is_no_label_has_no_place_in_a_template(id_):
    assert parse_instance_hosts("{id}.internal").locate(id_) is None


def test_an_id_that_makes_the_name_too_long():
    assert parse_instance_hosts("{id}" + "x" * 40 + ".internal").locate("a" * 30) is None


def test_a_map():
    hosts = parse_instance_hosts(
        "demo-1=127.0.0.1:15432, demo-2 = [::1]:15433,demo-3=DB3.internal,10.0.0.1:1=10.0.0.1:1"
    )
    assert hosts.locate("demo-1") == ("127.0.0.1", 15432)
    assert hosts.locate("demo-2") == ("::1", 15433)
    assert hosts.locate("demo-3") == ("db3.internal", None)
    assert hosts.locate("10.0.0.1:1") == ("10.0.0.1", 1)
    assert hosts.locate("demo-4") is None


def test_identity_tells_apart_what_locates_differently():
    one = parse_instance_hosts("demo-1=127.0.0.1:1,demo-2=127.0.0.1:2")
    again = parse_instance_hosts("DEMO-2=127.0.0.1:2,demo-1=127.0.0.1:1")
    other = parse_instance_hosts("demo-1=127.0.0.1:3,demo-2=127.0.0.1:4")
    assert one.identity == again.identity == "demo-1=127.0.0.1:1,demo-2=127.0.0.1:2"
    assert one == again
    assert hash(one) == hash(again)
    assert one.identity != other.identity
    assert parse_instance_hosts("{id}.X.").identity == "{id}.x"
    assert parse_instance_hosts("{id}.x:1").identity == "{id}.x:1"
    assert parse_instance_hosts("d=[::1]:5").identity == "d=[::1]:5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("db.internal", r"has no \{id\}"),
        ("", r"has no \{id\}"),
        ("{ID}.internal", r"has no \{id\}"),
        ("{id}.{zone}.internal", "contains '{'"),
        ("{id}..internal", "empty label"),
        ("{id}.internal:0", "port '0' is no number of 1..65535"),
        ("{id}.internal:65536", "port '65536'"),
        ("{id}.internal:123456789012345678901234567890", "port '1234567890"),
        ("{id}.internal:", "port ''"),
        ("{id}.internal:x", "port 'x'"),
        ("{id}.internal:٣", "port '٣'"),
        ("{id}::1", "belongs in brackets"),
        ("[{id}]:1", "no IPv6"),
        ("demo-1=", "entry 'demo-1=' of the map"),
        ("=a", "entry '=a'"),
        ("demo-1=a,", "entry ''"),
        ("demo-1=a,demo-2", "entry 'demo-2'"),
        ("demo-1={id}.a", "mixes a map with a template"),
        ("demo-1=a,Demo-1=b", "'Demo-1' is in the map twice"),
        ("demo-1=a:1,demo-2=A:1", "a:1 is given for both 'demo-1' and 'demo-2'"),
        ("demo-1=::1", "belongs in brackets"),
        ("demo-1=:5432", "host is missing"),
        ("demo-1=256.1.1.1", "four numbers"),
    ],
)
def test_what_is_neither_is_refused_with_a_reason(text, message):
    with pytest.raises(ValueError, match=message):
        parse_instance_hosts(text)


@given(st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str), st.none() | st.integers(1, 65535))
def test_written_addresses_are_read_again(host, port):
    place = HostPort(host, port)
    again = parse_host_port(str(place))
    assert again.port == port
    assert parse_host_port(str(again)) == again
