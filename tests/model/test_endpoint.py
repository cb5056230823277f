"""The grammar of host names: every partition and kind, and what no resolver could take."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.errors import MalformedHost
from aurora_router.model.endpoint import (
    Endpoint,
    EndpointKind,
    WantedRole,
    default_role,
    instance_host,
    parse_endpoint,
)

COMMERCIAL = "c9akciq32.us-east-1.rds.amazonaws.com"

DOMAINS = [
    ("aws", "us-east-1", "c9akciq32.us-east-1.rds.amazonaws.com"),
    ("aws", "mx-central-1", "c9akciq32.mx-central-1.rds.amazonaws.com"),
    ("aws", "ap-southeast-5", "c9akciq32.ap-southeast-5.rds-fips.amazonaws.com"),
    ("aws-us-gov", "us-gov-west-1", "c9.us-gov-west-1.rds.amazonaws.com"),
    ("aws-us-gov", "us-gov-east-1", "c9.rds.us-gov-east-1.amazonaws.com"),
    ("aws-us-gov", "us-gov-east-1", "c9.rds-fips.us-gov-east-1.amazonaws.com"),
    ("aws-cn", "cn-north-1", "c9.rds.cn-north-1.amazonaws.com.cn"),
    ("aws-cn", "cn-northwest-1", "c9.cn-northwest-1.rds.amazonaws.com.cn"),
    ("aws-eusc", "eusc-de-east-1", "c9.eusc-de-east-1.rds.amazonaws.eu"),
    ("aws-iso", "us-iso-east-1", "c9.rds.us-iso-east-1.c2s.ic.gov"),
    ("aws-iso-b", "us-isob-east-1", "c9.rds.us-isob-east-1.sc2s.sgov.gov"),
    ("aws-iso-e", "eu-isoe-west-1", "c9.rds.eu-isoe-west-1.cloud.adc-e.uk"),
    ("aws-iso-f", "us-isof-south-1", "c9.rds.us-isof-south-1.csp.hci.ic.gov"),
    ("test", "eu-test-1", "k3xw9q2.eu-test-1.rds.aurora.test"),
    ("test", "cn-test-1", "k3xw9q2.rds.cn-test-1.aurora.test"),
]

PREFIXES = {
    EndpointKind.CLUSTER: "cluster-",
    EndpointKind.CLUSTER_READER: "cluster-ro-",
    EndpointKind.CLUSTER_CUSTOM: "cluster-custom-",
    EndpointKind.INSTANCE: "",
    EndpointKind.SHARD_GROUP: "shardgrp-",
    EndpointKind.PROXY: "proxy-",
    EndpointKind.PROXY_ENDPOINT: "endpoint.proxy-",
}


@pytest.mark.parametrize(("partition", "region", "domain"), DOMAINS)
@pytest.mark.parametrize("kind", PREFIXES)
def test_every_kind_in_every_partition(kind, partition, region, domain):
    host = f"my-db.{PREFIXES[kind]}{domain}"

    assert parse_endpoint(host) == Endpoint(
        given=host,
        host=host,
        kind=kind,
        label="my-db",
        domain=domain,
        region=region,
        partition=partition,
        xyz=domain.partition(".")[0],
    )


@pytest.mark.parametrize(
    ("suffix", "partition"), [("amazonaws.com", "aws"), ("amazonaws.com.cn", "aws-cn"), ("aurora.test", "test")]
)
def test_a_global_endpoint_has_no_region_and_names_no_instance(suffix, partition):
    host = f"world.global-abc123.global.rds.{suffix}"
    endpoint = parse_endpoint(host)
    assert (endpoint.kind, endpoint.label, endpoint.xyz) == (EndpointKind.GLOBAL, "world", "abc123")
    assert (endpoint.partition, endpoint.region, endpoint.domain) == (partition, None, None)


@pytest.mark.parametrize("given", [f"MyDb.Cluster-{COMMERCIAL.upper()}", f"mydb.cluster-{COMMERCIAL}."])
def test_case_and_a_trailing_dot_make_no_difference(given):
    endpoint = parse_endpoint(given)
    assert endpoint.given == given
    assert dataclasses.replace(endpoint, given=endpoint.host) == parse_endpoint(f"mydb.cluster-{COMMERCIAL}")


@pytest.mark.parametrize(
    ("label", "side"),
    [
        ("mydb-green-a1b2c3", "green"),
        ("mydb-old1", "old"),
        ("mydb-old12", "old"),
        ("mydb-green-a1b2c", None),
        ("mydb-green", None),
        ("old1", None),
        ("bold1", None),
        ("mydb", None),
    ],
)
@pytest.mark.parametrize("prefix", ["cluster-", "cluster-ro-", ""])
def test_blue_green(label, side, prefix):
    endpoint = parse_endpoint(f"{label}.{prefix}{COMMERCIAL}")
    assert (endpoint.label, endpoint.blue_green) == (label, side)


def test_blue_green_of_a_global_endpoint():
    assert parse_endpoint("w-old1.global-abc123.global.rds.amazonaws.com").blue_green == "old"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "db.example.com",
        "10.0.0.1.example.com",
        "1234",
        "my_db.internal",
        "bücher.example",
        "xn--bcher-kva.example",
        f"cluster-{COMMERCIAL}",  # no label
        COMMERCIAL,  # no label: xyz would be one, but then the region is not in its place
        f"a.b.cluster-{COMMERCIAL}",
        f"mydb.cluster-extra-{COMMERCIAL}",
        f"mydb.cluster-{COMMERCIAL}.evil.example",
        "mydb.cluster-c9.us-east-1.rds.evilamazonaws.com",
        "mydb.cluster-c9.us-east.rds.amazonaws.com",
        "mydb.cluster-c9.cn-north-1.rds.amazonaws.com",
        "mydb.cluster-c9.rds.us-east-1.amazonaws.com",  # service first is not in use there
        "mydb.cluster-c9.us-east-1.ec2.amazonaws.com",
        "a.b.global-abc123.global.rds.amazonaws.com",
        "amazonaws.com",
        "aurora.test",
        "",
    ],
)
def test_anything_else_is_legal_and_tells_nothing(host):
    kind = EndpointKind.OTHER if host else EndpointKind.SOCKET
    assert parse_endpoint(host) == Endpoint(host, host, kind)


def test_a_name_in_other_letters_is_kept_as_it_is():
    assert parse_endpoint("DB.BÜCHER.example.").host == "db.bÜcher.example"


@pytest.mark.parametrize("host", ["", "/var/run/postgresql", "/tmp/with blank", "@abstract"])
def test_sockets(host):
    assert parse_endpoint(host) == Endpoint(host, host, EndpointKind.SOCKET)


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[FE80::1%Eth0]", "fe80::1%Eth0"),
        ("::", "::"),
    ],
)
def test_addresses(given, host):
    assert parse_endpoint(given) == Endpoint(given, host, EndpointKind.IP)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (".", "empty label"),
        (".example.com", "empty label"),
        ("a..b", "empty label"),
        ("db.example.com..", "empty label"),
        ("a" * 64 + ".example.com", "longer than 63"),
        (".".join(["a" * 63] * 4), "253 at most"),
        ("db example.com", "' '"),
        ("db.example.com\n", r"'\\n'"),
        ("db\u200b.example.com", "remove blanks and control"),
        ("db.example.com\u00a0", "remove blanks and control"),
        ("a.example.com,b.example.com", "is a list"),
        ("db.example.com:5432", "port glued on: pass 'db.example.com' as host"),
        ("10.0.0.1:5432", "port glued on: pass '10.0.0.1'"),
        ("[::1]:5432", r"port glued on: pass '\[::1\]'"),
        ("db.example.com:", "port glued on"),
        ("postgresql://db.example.com/app", "whole URL"),
        ("db.example.com/app", "contains '/'"),
        ("user@db.example.com", "no host name: .* whole URL"),
        ("db$.example.com", r"contains '\$'"),
        ("a:b:c", "no IPv6 address"),
        ("[::1", "no IPv6 address"),
        ("[db.example.com]", "no IPv6 address"),
        ("fe80::1%", "no IPv6 address"),
        ("256.1.1.1", "four numbers"),
        ("10.0.0", "four numbers"),
        ("010.0.0.1", "without leading zeros"),
        ("/tmp/\0", "NUL"),
    ],
)
def test_malformed_hosts_are_refused_with_a_reason(host, reason):
    with pytest.raises(MalformedHost, match=reason) as caught:
        parse_endpoint(host)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_default_roles():
    expected = dict.fromkeys(EndpointKind, WantedRole.WRITER) | {
        EndpointKind.CLUSTER_READER: WantedRole.READER,
        EndpointKind.CLUSTER_CUSTOM: WantedRole.ANY,
        EndpointKind.INSTANCE: WantedRole.ANY,
        EndpointKind.PROXY_ENDPOINT: WantedRole.ANY,
    }
    assert {kind: default_role(kind) for kind in EndpointKind} == expected


def test_kinds_in_a_sentence():
    described = {kind.described for kind in EndpointKind}
    assert {"a cluster endpoint", "an instance endpoint", "an IP address", "a name of one's own"} < described


def test_the_name_of_an_instance():
    assert instance_host(COMMERCIAL, "Inst-1") == f"inst-1.{COMMERCIAL}"


@pytest.mark.parametrize("id_", ["", "evil.example", "a b/", "a" * 64, "x:1"])
def test_an_instance_id_can_not_leave_its_domain(id_):
    with pytest.raises(MalformedHost):
        instance_host(COMMERCIAL, id_)


# ---------------------------------------------------------------- properties

names = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,3}", fullmatch=True)
tokens = st.from_regex(r"[0-9a-z]{1,12}", fullmatch=True)


@st.composite
def hosts(draw):
    """A host of the grammar, in any case, perhaps with a trailing dot."""
    label, xyz = draw(names), draw(tokens)
    domain = xyz + "." + draw(st.sampled_from(DOMAINS))[2].partition(".")[2]
    host = draw(
        st.sampled_from(
            [f"{label}.{prefix}{domain}" for prefix in PREFIXES.values()]
            + [f"{label}.global-{xyz}.global.rds.amazonaws.{end}" for end in ("com", "com.cn", "eu")]
        )
    )
    return draw(st.sampled_from([host, host.upper(), host.title(), host + "."]))


@given(hosts())
def test_only_the_two_endpoints_of_a_cluster_have_a_sibling(host):
    endpoint = parse_endpoint(host)
    sibling = None if endpoint.sibling is None else parse_endpoint(endpoint.sibling)
    pair = {EndpointKind.CLUSTER, EndpointKind.CLUSTER_READER}
    assert (sibling is not None) is (endpoint.kind in pair)
    if sibling is not None:
        assert {endpoint.kind, sibling.kind} == pair
        assert (sibling.label, sibling.domain, sibling.sibling) == (endpoint.label, endpoint.domain, endpoint.host)


@given(hosts())
def test_rendering_a_parsed_host_gives_the_canonical_host(host):
    endpoint = parse_endpoint(host)
    assert endpoint.render() == endpoint.host == host.lower().removesuffix(".")
    assert endpoint.partition is not None


@given(hosts())
def test_an_instance_of_the_domain_is_an_instance_endpoint_of_it(host):
    domain = parse_endpoint(host).domain
    if domain is not None:
        instance = parse_endpoint(instance_host(domain, "demo-1"))
        assert (instance.kind, instance.domain, instance.label) == (EndpointKind.INSTANCE, domain, "demo-1")


@given(st.text() | st.from_regex(r"[\[\]:%.0-9a-fA-F\-]{0,20}") | st.ip_addresses().map(str))
def test_parsing_is_total_and_idempotent(text):
    try:
        endpoint = parse_endpoint(text)
    except MalformedHost:
        return
    again = parse_endpoint(endpoint.host)
    assert dataclasses.replace(again, given=text) == endpoint
    assert again.render() == endpoint.host
