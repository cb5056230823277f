from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.dns import names
from aurora_router_cluster.errors import NameTakenError


def test_the_grammar_is_aurora_s():
    own = names.Names("demo", "c9akciq32.us-east-1.rds.amazonaws.com")
    assert own.writer == "demo.cluster-c9akciq32.us-east-1.rds.amazonaws.com"
    assert own.reader == "demo.cluster-ro-c9akciq32.us-east-1.rds.amazonaws.com"
    assert own.instance("demo-1") == "demo-1.c9akciq32.us-east-1.rds.amazonaws.com"
    assert own.custom("olap") == "olap.cluster-custom-c9akciq32.us-east-1.rds.amazonaws.com"
    assert own.zone == "us-east-1.rds.amazonaws.com"


@pytest.mark.parametrize(
    ("domain", "region"),
    [
        ("c9akciq32.us-east-1.rds.amazonaws.com", "us-east-1"),
        ("c9akciq32.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("c9akciq32.eu-test-1.rds.aurora.test", "eu-test-1"),
        ("a.b.c", "b"),
    ],
)
def test_the_region_is_that_of_the_domain(domain, region):
    assert names.Names("demo", domain).region == region


def test_random_domains_are_valid_and_differ():
    domains = {names.random_domain() for _ in range(100)}
    assert len(domains) == 100
    assert all(names.check_domain(domain) == domain for domain in domains)


def test_a_domain_is_normalised():
    assert names.check_domain("C9AK.us-east-1.RDS.amazonaws.com.") == "c9ak.us-east-1.rds.amazonaws.com"


@pytest.mark.parametrize("domain", ["", "a", "a.b", "a..b.c", "-a.b.c", "a_b.c.d", "x" * 60 + ".b.c", "a b.c.d"])
def test_a_bad_domain_is_refused(domain):
    with pytest.raises(NameTakenError, match="cannot be a cluster's domain"):
        names.check_domain(domain)


@pytest.mark.parametrize("label", ["", "1a", "a-", "a--b", "A", "a.b", "ä", "a" * 64, "a\n"])
def test_a_bad_label_is_refused(label):
    with pytest.raises(NameTakenError, match="cannot name an instance"):
        names.check_label(label, "an instance")


@given(st.from_regex(r"[a-z](-?[a-z0-9]){0,25}", fullmatch=True))
def test_good_labels_pass(label):
    assert names.check_label(label, "an instance") == label
