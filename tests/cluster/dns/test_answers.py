from __future__ import annotations

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.dns.answers import answer
from aurora_router_cluster.dns.zone import Zone

APEX = "eu-test-1.rds.aurora.test"
READER = f"demo.cluster-ro-cx.{APEX}"
ZONE = Zone(
    APEX,
    {
        f"demo.cluster-cx.{APEX}": ("127.0.0.11",),
        READER: ("127.0.0.12", "127.0.0.13", "127.0.0.14"),
        f"empty.cluster-custom-cx.{APEX}": (),
        f"demo-1.cx.{APEX}": ("127.0.0.11",),
    },
    {"db.example.com": f"demo.cluster-cx.{APEX}", "old.example.com": "db.example.com", "out.example.com": "x.test"},
    ttl=5,
    serial=3,
)


def ask(name, kind="A", turn=0, zone=ZONE):
    return answer(zone, dns.message.make_query(name, kind), turn)


def addresses(response):
    return [item.to_text() for rrset in response.answer for item in rrset if rrset.rdtype == 1]


@pytest.mark.parametrize("name", [f"demo.cluster-cx.{APEX}", f"DEMO.Cluster-CX.{APEX}.", f"demo-1.cx.{APEX}"])
def test_a_name_leads_to_its_address_whatever_its_case(name):
    response = ask(name)
    assert addresses(response) == ["127.0.0.11"]
    assert response.flags & dns.flags.AA
    assert response.answer[0].ttl == 5
    assert response.answer[0].name.to_text() == name.rstrip(".") + "."


@given(st.integers(min_value=0, max_value=10**9))
def test_the_reader_name_gives_one_address_per_answer_in_turn(turn):
    seen = [addresses(ask(READER, turn=turn + step)) for step in range(3)]
    assert all(len(one) == 1 for one in seen)
    assert {one[0] for one in seen} == set(ZONE.hosts[READER])


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT"])
def test_other_kinds_are_empty_with_the_soa(kind):
    response = ask(READER, kind)
    assert response.rcode() == dns.rcode.NOERROR
    assert not response.answer
    assert response.authority[0].to_text().split()[3] == "SOA"


def test_an_endpoint_without_members_is_empty_and_exists():
    response = ask(f"empty.cluster-custom-cx.{APEX}")
    assert response.rcode() == dns.rcode.NOERROR
    assert not response.answer


def test_what_lies_between_exists_and_is_empty():
    assert ask(f"cx.{APEX}").rcode() == dns.rcode.NOERROR


def test_a_name_that_does_not_exist():
    response = ask(f"demo-9.cx.{APEX}")
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert response.authority[0].to_text().split()[0] == f"{APEX}."


def test_other_people_s_names_are_refused():
    response = ask("www.example.com")
    assert response.rcode() == dns.rcode.REFUSED
    assert not response.flags & dns.flags.AA


def test_aliases_are_followed_to_the_address():
    response = ask("old.example.com")
    assert [rrset.rdtype for rrset in response.answer] == [5, 5, 1]
    assert addresses(response) == ["127.0.0.11"]


def test_an_alias_to_elsewhere_is_left_to_whoever_asks():
    response = ask("out.example.com")
    assert [rrset.to_text() for rrset in response.answer] == ["out.example.com. 5 IN CNAME x.test."]


def test_asking_for_the_alias_itself():
    assert [rrset.rdtype for rrset in ask("old.example.com", "CNAME").answer] == [5]


def test_a_circle_of_aliases_ends():
    zone = Zone(APEX, {}, {"a.test": "b.test", "b.test": "a.test"})
    assert len(ask("a.test", zone=zone).answer) == 8


def test_the_apex_has_soa_and_ns():
    assert ask(APEX, "SOA").answer[0].to_text().split()[6] == "3"
    assert ask(APEX, "NS").answer


def test_other_operations_are_not_implemented():
    query = dns.message.make_query(APEX, "SOA")
    query.set_opcode(dns.opcode.STATUS)
    assert answer(ZONE, query, 0).rcode() == dns.rcode.NOTIMP
