"""How requests are routed, from names and options alone."""

from __future__ import annotations

import pytest

from aurora_router.model.endpoint import EndpointKind, WantedRole
from aurora_router.model.instance import Instance
from aurora_router.policy.options import split
from aurora_router.policy.route import Address, Mode, Request, identity, leads_elsewhere, locate, route

DOMAIN = "abc123.eu-west-1.rds.amazonaws.com"
CLUSTER = f"demo.cluster-{DOMAIN}"


def request(*hosts, port=5432, hostaddr=None, verifies=False, **options):
    given = tuple(Address(host, port, hostaddr) for host in hosts or (CLUSTER,))
    return Request(
        given, split({f"aurora_{name}": value for name, value in options.items()})[0], verifies_name=verifies
    )


@pytest.mark.parametrize(
    ("host", "mode", "role"),
    [
        (CLUSTER, Mode.INSTANCES, WantedRole.WRITER),
        (f"demo.cluster-ro-{DOMAIN}", Mode.INSTANCES, WantedRole.READER),
        (f"some.cluster-custom-{DOMAIN}", Mode.NAME, WantedRole.ANY),
        (f"demo-2.{DOMAIN}", Mode.PINNED, WantedRole.ANY),
        (f"p.proxy-{DOMAIN}", Mode.THROUGH, WantedRole.WRITER),
        (f"ro.endpoint.proxy-{DOMAIN}", Mode.THROUGH, WantedRole.ANY),
        (f"s.shardgrp-{DOMAIN}", Mode.THROUGH, WantedRole.WRITER),
        ("db.example.com", Mode.NAME, WantedRole.WRITER),
        ("10.0.0.1", Mode.NAME, WantedRole.WRITER),
        ("/var/run/postgresql", Mode.NAME, WantedRole.WRITER),
        (None, Mode.NAME, WantedRole.WRITER),
    ],
)
def test_the_kind_of_name_decides(host, mode, role):
    chosen = route(request(host))
    assert (chosen.mode, chosen.role) == (mode, role)
    assert str(Address(host, 5432)) in chosen.reason


@pytest.mark.parametrize("role", ["writer", "reader", "prefer-reader", "any"])
def test_the_role_given_wins(role):
    chosen = route(request(CLUSTER, role=role))
    assert chosen.role.value == role
    assert f"aurora_role={role} is given" in chosen.reasons


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Address("db.internal", 5432), Address("DB.Internal.", 5432)),
        (Address("::1", 5432), Address("0:0:0:0:0:0:0:1", 5432)),
        (Address("db", None, "10.0.0.1"), Address("DB", None, "10.0.0.1")),
        (Address(None, 5432, "::1"), Address(None, 5432, "0::1")),
    ],
)
def test_a_host_names_one_instance_however_it_is_spelled(one, other):
    assert str(one) == str(other)
    first, second = (Request((each,), split({})[0]) for each in (one, other))
    assert identity(first, route(first)) == identity(second, route(second))


def test_what_cannot_be_read_as_a_host_is_named_as_it_is():
    assert [str(Address(each, None)) for each in ("/run/PG", "@Abstract", "a b", None)] == [
        "/run/PG", "@Abstract", "a b", "local socket",
    ]  # fmt: skip


def test_an_instance_endpoint_with_a_role_is_one_way_into_the_cluster():
    chosen = route(request(f"demo-2.{DOMAIN}", role="reader"))
    assert (chosen.mode, chosen.domain) == (Mode.INSTANCES, DOMAIN)


def test_one_instance_by_option():
    chosen = route(request(CLUSTER, instance="demo-3"))
    assert (chosen.mode, chosen.role, chosen.domain) == (Mode.PINNED, WantedRole.ANY, DOMAIN)


def test_a_template_opens_an_address():
    chosen = route(request("10.0.0.1", instance_host="{id}.db.internal"))
    assert (chosen.mode, chosen.domain) == (Mode.INSTANCES, None)


def test_a_hostaddr_is_the_only_address():
    chosen = route(request(CLUSTER, hostaddr="10.0.0.1"))
    assert chosen.mode is Mode.NAME


@pytest.mark.parametrize(
    ("given", "mode", "name"),
    [
        ({"attributes": "rds"}, Mode.INSTANCES, "olap"),
        ({"attributes": "rds", "instance_host": "{id}.db.internal"}, Mode.INSTANCES, "olap"),
        ({"attributes": "rds", "hostaddr": "10.0.0.1"}, Mode.NAME, None),
        ({}, Mode.NAME, None),
    ],
)
def test_the_members_of_a_custom_endpoint_are_chosen_by_a_source_of_attributes(given, mode, name):
    chosen = route(request(f"olap.cluster-custom-{DOMAIN}", **given))
    assert (chosen.mode, chosen.custom_endpoint, chosen.role) == (mode, name, WantedRole.ANY)


def test_other_names_are_no_custom_endpoints():
    assert route(request(CLUSTER, attributes="rds")).custom_endpoint is None


def test_several_hosts_are_the_instances():
    chosen = route(request("a.example.com", "b.example.com"))
    assert chosen.mode is Mode.LIST
    assert "several hosts are given" in chosen.reason


# ---------------------------------------------------------------- aliases


@pytest.mark.parametrize(
    ("made", "follows"),
    [
        (request("db.example.com"), True),
        (request("world.global-abc123.global.rds.amazonaws.com"), True),
        (request("db.example.com", verifies=True), False),
        (request("db.example.com", verifies=True, trust_cname="on"), True),
        (request("db.example.com", hostaddr="10.0.0.1"), False),
        (request("a.example.com", "b.example.com"), False),
        (request(CLUSTER), False),
        (request("10.0.0.1"), False),
    ],
)
def test_which_names_are_followed(made, follows):
    assert leads_elsewhere(made) is follows


def test_an_alias_of_a_cluster_is_routed_as_the_cluster():
    chosen = route(request("db.example.com"), f"demo.cluster-ro-{DOMAIN}")
    assert (chosen.mode, chosen.role, chosen.domain) == (Mode.INSTANCES, WantedRole.READER, DOMAIN)
    assert chosen.endpoint.kind is EndpointKind.CLUSTER_READER
    assert chosen.endpoint.given == "db.example.com"
    assert "an alias of demo.cluster-ro-" in chosen.reason


def test_a_name_that_is_no_alias_stays_what_it_is():
    assert route(request("db.example.com"), "db.example.com").mode is Mode.NAME


# ---------------------------------------------------------------- where instances are


def located(instance, made):
    return locate(instance, route(made), made.options)


def test_an_instance_is_in_the_domain():
    assert located(Instance("Demo-2"), request(CLUSTER)) == Address(f"demo-2.{DOMAIN}", 5432)


def test_what_the_source_told_counts_before_the_domain():
    assert located(Instance("demo-2", host="h", port=6000), request(CLUSTER)) == Address("h", 6000)
    assert located(Instance("demo-2", host="h"), request(CLUSTER)) == Address("h", 5432)


def test_the_users_template_counts_before_all():
    made = request("10.0.0.1", instance_host="{id}.db.internal:6432")
    assert located(Instance("demo-2", host="h"), made) == Address("demo-2.db.internal", 6432)


def test_an_instance_that_the_users_map_lacks_is_nowhere():
    made = request("10.0.0.1", instance_host="demo-1=10.0.0.1:6001")
    assert located(Instance("demo-1"), made) == Address("10.0.0.1", 6001)
    assert located(Instance("demo-2"), made) is None


def test_nothing_tells():
    assert located(Instance("demo-2"), request("10.0.0.1")) is None


# ---------------------------------------------------------------- which cluster


def same(*requests):
    return len({identity(each, route(each)) for each in requests}) == 1


def test_the_two_endpoints_of_a_cluster_are_one():
    assert same(request(CLUSTER), request(f"demo.cluster-ro-{DOMAIN}"), request(CLUSTER.upper()))


@pytest.mark.parametrize(
    "other",
    [
        request(f"other.cluster-{DOMAIN}"),
        request(f"demo.cluster-{DOMAIN}", port=5433),
        request("demo.cluster-abc123.eu-west-2.rds.amazonaws.com"),
        request(CLUSTER, cluster="mine"),
        request(CLUSTER, hostaddr="10.0.0.1"),
        request("10.0.0.1"),
    ],
)
def test_other_clusters_are_others(other):
    assert not same(request(CLUSTER), other)


def test_tunnels_with_the_same_instance_ids_are_apart():
    one = request("127.0.0.1", instance_host="demo-1=127.0.0.1:6001,demo-2=127.0.0.1:6002")
    two = request("127.0.0.1", instance_host="demo-1=127.0.0.1:7001,demo-2=127.0.0.1:7002")
    again = request("127.0.0.1", instance_host="demo-2=127.0.0.1:6002, demo-1=127.0.0.1:6001")
    assert not same(one, two)
    assert same(one, again)


def test_a_list_is_the_same_in_any_order():
    assert same(request("a.example.com", "b.example.com"), request("b.example.com", "a.example.com"))


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("h", 5432), "h:5432"),
        (Address("h", None), "h"),
        (Address(None, 5432, "10.0.0.1"), "10.0.0.1:5432"),
        (Address(None, None), "local socket"),
    ],
)
def test_addresses_in_words(address, text):
    assert str(address) == text
