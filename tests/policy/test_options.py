"""Options: every one is parsed, documented, refused when wrong."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.errors import InvalidOption
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.hosts import HostPort, parse_instance_hosts
from aurora_router.policy.options import (
    PROFILES,
    Balance,
    Options,
    ReaderFallback,
    TlsDirect,
    describe,
    is_option,
    read_value,
    split,
)

ALL = {
    "aurora_role": ("reader", WantedRole.READER),
    "aurora_balance": ("weighted", Balance.WEIGHTED),
    "aurora_weights": ("demo-2=3,demo-3=1", (("demo-2", 3), ("demo-3", 1))),
    "aurora_max_lag": ("0.1", 0.1),
    "aurora_zones": ("a+b,c", (frozenset("ab"), frozenset("c"))),
    "aurora_zone_map": ("demo-1=a", (("demo-1", "a"),)),
    "aurora_rebalance": ("off", False),
    "aurora_tls_direct": ("auto", TlsDirect.AUTO),
    "aurora_reader_fallback": ("error", ReaderFallback.ERROR),
    "aurora_instance_host": ("{id}.db.internal:6432", parse_instance_hosts("{id}.db.internal:6432")),
    "aurora_dns": ("[::1]:5300", HostPort("::1", 5300)),
    "aurora_trust_cname": ("on", True),
    "aurora_source": ("postgresql", ("postgresql",)),
    "aurora_cluster": ("orders", "orders"),
    "aurora_connect_timeout": ("2", 2.0),
    "aurora_failover_timeout": ("0", 0.0),
    "aurora_dns_timeout": ("0.25", 0.25),
    "aurora_quarantine": ("0", 0.0),
    "aurora_refresh": ("10", 10.0),
    "aurora_monitor": ("off", False),
    "aurora_hang_grace": ("0.5", 0.5),
    "aurora_ping_timeout": ("2", 2.0),
}
NAMES = ["aurora_" + each.name for each in dataclasses.fields(Options)]


def test_options_from_text():
    options, rest = split({key: text for key, (text, _) in ALL.items()})
    assert rest == {}
    assert options == Options(**{key.removeprefix("aurora_"): value for key, (_, value) in ALL.items()})
    assert split({"aurora_instance": "demo-2"})[0] == Options(instance="demo-2")


def test_options_typed():
    typed = {key: value for key, (_, value) in ALL.items()}
    assert split(typed) == split({key: text for key, (text, _) in ALL.items()})


def test_options_can_be_hashed():
    assert len({Options(), PROFILES["default"], split({key: text for key, (text, _) in ALL.items()})[0]}) == 2


def test_the_rest_is_left_as_it_is():
    params = {"host": "h", "aurora_role": "any", "port": 5432, "connect_timeout": "3", "options": None}
    assert split(params)[1] == {"host": "h", "port": 5432, "connect_timeout": "3", "options": None}


def test_nothing_given_means_the_defaults():
    assert split({}) == (Options(), {})
    assert split({"aurora_role": None, "aurora_profile": None}) == (Options(), {})


def test_an_explicit_option_wins_over_the_profile():
    options, _ = split({"aurora_profile": "patient", "aurora_refresh": "5"})
    assert options == dataclasses.replace(PROFILES["patient"], refresh=5.0)


def test_profiles_are_ordered_by_patience():
    for name in ("connect_timeout", "failover_timeout", "dns_timeout", "quarantine", "refresh"):
        aggressive, default, patient = (getattr(PROFILES[p], name) for p in ("aggressive", "default", "patient"))
        assert aggressive < default < patient


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"aurora_rol": "reader"}, "unknown option aurora_rol: did you mean aurora_role?"),
        ({"aurora_max_lags": 1}, "did you mean aurora_max_lag?"),
        ({"AURORA_ROLE": "reader"}, "unknown option AURORA_ROLE: did you mean aurora_role?"),
        ({"aurora_profil": "x"}, "did you mean aurora_profile?"),
        ({"aurora_": "x"}, "unknown option aurora_: "),
        ({"aurora_xyzzy": "x"}, "unknown option aurora_xyzzy: the options are aurora_profile, "),
        ({"aurora_qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq": "x"}, "the options are aurora_profile, aurora_role, "),
        (
            {"aurora_max_lag": "-1"},
            "aurora_max_lag='-1': is negative (accepted: seconds, 0 or more; for example aurora_max_lag=5)",
        ),
        ({"aurora_max_lag": -1}, "aurora_max_lag=-1: is negative"),
        ({"aurora_role": "master"}, "accepted: writer, reader, prefer-reader, any"),
        ({"aurora_role": ("reader", "any")}, "aurora_role=('reader', 'any'): is of the type tuple"),
        ({"aurora_instance_host": "db"}, "aurora_instance_host='db': 'db' has no {id} in it"),
        ({"aurora_instance_host": "{id}.a b"}, "remove blanks"),
        ({"aurora_dns": "ns1.example.com"}, "give its IP address"),
        ({"aurora_connect_timeout": 0}, "is zero"),
        (
            {"aurora_profile": "fast"},
            "aurora_profile='fast': no such profile (accepted: default, aggressive, web, patient)",
        ),
        ({"aurora_profile": 3}, "aurora_profile=3: no such profile"),
        (
            {"aurora_weights": "demo-2=1"},
            "no effect with aurora_balance=least_connections: remove it, or set aurora_balance=weighted",
        ),
        ({"aurora_weights": "demo-2=1", "aurora_balance": "random"}, "no effect with aurora_balance=random"),
        (
            {"aurora_reader_fallback": "writer", "aurora_role": "writer"},
            "aurora_reader_fallback has no effect with aurora_role=writer: remove it, or set aurora_role=reader",
        ),
        ({"aurora_reader_fallback": "error", "aurora_role": "prefer-reader"}, "no effect with aurora_role=prefer"),
        ({"aurora_instance": "demo-2", "aurora_role": "any"}, "aurora_instance names the one instance: aurora_role"),
    ],
)
def test_wrong_options_are_refused_by_name(params, message):
    with pytest.raises(InvalidOption) as caught:
        split(params)
    assert message in str(caught.value)


def test_the_fall_back_may_be_given_where_the_endpoint_gives_the_role():
    assert split({"aurora_reader_fallback": "error"})[0].reader_fallback is ReaderFallback.ERROR


def test_every_option_is_documented_from_the_place_where_it_is_parsed():
    docs = {doc.name: doc for doc in describe()}
    assert list(docs) == ["aurora_profile", *NAMES]
    for doc in docs.values():
        assert doc.description.endswith(".")
        assert doc.accepts
        if doc.name != "aurora_profile":
            assert read_value(doc.name, doc.example) != getattr(Options(), doc.name.removeprefix("aurora_"))
        if doc.default:
            assert split({doc.name: doc.default})[0] == Options()


def test_documented_profile_values_are_the_profiles():
    for name, options in PROFILES.items():
        written = {doc.name: doc.profiles[name] for doc in describe() if name in doc.profiles}
        assert split(written)[0] == options
    documented = {doc.name: doc for doc in describe()}["aurora_trust_cname"]
    assert documented.default == "off"


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from([*NAMES, "aurora_profile"]), st.text(max_size=8)))
def test_split_loses_nothing_and_passes_nothing_of_ours(params):
    try:
        _, rest = split(params)
    except InvalidOption as error:
        assert any(key in str(error) for key in params if is_option(key))  # noqa: PT017 - totality is the property
        return
    assert rest == {key: value for key, value in params.items() if not key.lower().startswith("aurora_")}


def test_what_only_an_error_needs_is_not_imported():
    code = "import sys; import aurora_router.policy.options; print('difflib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
