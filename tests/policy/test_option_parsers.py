"""How single values are read, from text and from typed keywords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.endpoint import WantedRole
from aurora_router.policy import option_parsers
from aurora_router.policy.hosts import HostPort, parse_instance_hosts
from aurora_router.policy.options import Balance

role = option_parsers.choice(WantedRole)


@pytest.mark.parametrize("given", ["prefer-reader", "PREFER-READER", " prefer_reader ", WantedRole.PREFER_READER])
def test_a_choice(given):
    assert role(given) is WantedRole.PREFER_READER


def test_a_choice_with_underscores_takes_dashes_too():
    assert option_parsers.choice(Balance)("least-connections") is Balance.LEAST_CONNECTIONS


@pytest.mark.parametrize("word", ["on", "TRUE", "yes", "1", True, 1])
def test_true(word):
    assert option_parsers.truth(word) is True


@pytest.mark.parametrize("word", ["off", "False", "no", " 0 ", False, 0])
def test_false(word):
    assert option_parsers.truth(word) is False


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_seconds(number):
    assert option_parsers.seconds(number) == option_parsers.seconds(repr(number)) == number


def test_positive_seconds():
    assert option_parsers.positive_seconds("1e-3") == 0.001


def test_weights():
    expected = (("a", 3), ("b", 0))
    assert option_parsers.weights("b=0, A=3") == expected
    assert option_parsers.weights({"b": 0, "a": 3}) == expected
    assert option_parsers.weights(expected) == expected


def test_zone_table():
    expected = (("a", "eu-1a"), ("b", "eu-1b"))
    assert (
        option_parsers.zone_table("b = eu-1b,A=eu-1a")
        == option_parsers.zone_table({"b": "eu-1b", "a": "eu-1a"})
        == expected
    )


def test_zone_tiers():
    expected = (frozenset({"a", "b"}), frozenset({"c"}))
    assert option_parsers.zone_tiers("a+b,c") == expected
    assert option_parsers.zone_tiers(["a + b", "c"]) == expected
    assert option_parsers.zone_tiers([{"a", "b"}, ["c"]]) == expected
    assert option_parsers.zone_tiers(expected) == expected


def test_instance_hosts():
    expected = parse_instance_hosts("a=127.0.0.1:1,b=127.0.0.1:2")
    assert option_parsers.instance_hosts({"a": "127.0.0.1:1", "b": "127.0.0.1:2"}) == expected
    assert option_parsers.instance_hosts(expected) is expected
    assert option_parsers.instance_hosts("{id}.x") == parse_instance_hosts("{id}.x")


def test_a_name_server():
    assert option_parsers.name_server("127.0.0.1:5300") == ("127.0.0.1", 5300)
    assert option_parsers.name_server("127.0.0.1") == ("127.0.0.1", 53)
    assert (
        option_parsers.name_server("[::1]:5300") == option_parsers.name_server(HostPort("::1", 5300)) == ("::1", 5300)
    )


@pytest.mark.parametrize(
    ("read", "given", "message"),
    [
        (role, "slave", "not one of the accepted words"),
        (role, 3, "of the type int"),
        (option_parsers.text, "", "is empty"),
        (option_parsers.text, " ", "is empty"),
        (option_parsers.text, b"x", "of the type bytes"),
        (option_parsers.truth, "maybe", "no truth value"),
        (option_parsers.truth, 2, "of the type int"),
        (option_parsers.seconds, "-1", "is negative"),
        (option_parsers.seconds, -0.1, "is negative"),
        (option_parsers.seconds, "inf", "not finite"),
        (option_parsers.seconds, float("nan"), "not finite"),
        (option_parsers.seconds, "100ms", "no number"),
        (option_parsers.seconds, True, "of the type bool"),
        (option_parsers.positive_seconds, "0", "is zero"),
        (option_parsers.weights, "a=1.5", "'1.5' of 'a' is no whole number"),
        (option_parsers.weights, {"a": -1}, "-1 of 'a'"),
        (option_parsers.weights, {"a": True}, "True of 'a'"),
        (option_parsers.weights, "a=1000000", "0..999999"),
        (option_parsers.weights, "a=0,b=0", "every instance the weight 0"),
        (option_parsers.weights, "a=1,A=2", "names an instance twice"),
        (option_parsers.weights, "a", "entry 'a' is not id=value"),
        (option_parsers.weights, "a=1,,b=2", "entry '' is not"),
        (option_parsers.weights, {}, "is empty"),
        (option_parsers.weights, (), "is empty"),
        (option_parsers.weights, 3, "of the type int"),
        (option_parsers.zone_table, {"a": 1}, "of the type int"),
        (option_parsers.zone_tiers, "a,,b", "empty zone"),
        (option_parsers.zone_tiers, "a+", "empty zone"),
        (option_parsers.zone_tiers, [], "empty zone"),
        (option_parsers.zone_tiers, "a,b,a", "names a zone twice"),
        (option_parsers.zone_tiers, "a+a", "names a zone twice"),
        (option_parsers.zone_tiers, 3, "of the type int"),
        (option_parsers.instance_hosts, {}, "is empty"),
        (option_parsers.name_server, "ns.example.com:53", "give its IP address"),
        (option_parsers.name_server, "127.0.0.1:99999", "port '99999'"),
        (option_parsers.name_server, "::1", "belongs in brackets"),
    ],
)
def test_malformed_values(read, given, message):
    with pytest.raises(ValueError, match=message):
        read(given)


@pytest.mark.parametrize(("given", "read"), [("1", 1), (7, 7), (" 42 ", 42), ("999999", 999999)])
def test_a_count(given, read):
    assert option_parsers.count(given) == read


@pytest.mark.parametrize("given", ["", "0", 0, "-1", "1.5", 1.5, True, None, "many", "1000000", "²"])
def test_what_is_no_count(given):
    with pytest.raises(ValueError, match="no whole number"):
        option_parsers.count(given)
