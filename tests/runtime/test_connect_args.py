"""Calls of ``connect``, read: hosts, options, environment, what is left for libpq."""

from __future__ import annotations

import decimal
import enum
import traceback
from dataclasses import fields

import psycopg
import pytest
import sqlalchemy
from hypothesis import given as given_any
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from aurora_router.connection import connect
from aurora_router.errors import AuroraRouterError, InvalidOption, MalformedHost
from aurora_router.flow.runtime import Target
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.options import BALANCE_GROUP, Balance, CustomBalance, Options, ReaderFallback
from aurora_router.policy.route import Address, route
from aurora_router.router import AsyncRouter, Router
from aurora_router.runtime import connect_args
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.libpq import dial_params
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL
from aurora_router.runtime.sources.postgresql import POSTGRESQL
from aurora_router.runtime.sources.rds_multi_az import RDS_MULTI_AZ


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for variable in (
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGSSLMODE",
        "PGTARGETSESSIONATTRS",
        "PGSERVICE",
        "PGCONNECT_TIMEOUT",
    ):
        monkeypatch.delenv(variable, raising=False)


def given(conninfo, **keywords):
    return read_connect_args(conninfo, keywords).request.given


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
    call = read_connect_args(conninfo, {})
    assert call.request.given == (Address("h", 6000),)
    assert call.request.options.role is WantedRole.READER
    assert dict(call.params) == {"user": "app"}


def test_keywords_win_over_the_conninfo():
    call = read_connect_args("host=h aurora_role=reader user=app", {"host": "i", "aurora_role": "any", "user": "other"})
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
        read_connect_args(conninfo, {})


def test_the_environment_is_asked_where_nothing_is_given(monkeypatch):
    monkeypatch.setenv("PGHOST", "e")
    monkeypatch.setenv("PGPORT", "7000")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert given("") == (Address("e", 7000),)
    assert given("host=h") == (Address("h", 7000),)
    assert read_connect_args("", {}).request.verifies_name
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
    call = read_connect_args(f"host=h target_session_attrs={attributes}", {})
    assert call.request.options.role is role
    assert call.params["target_session_attrs"] == "any"
    assert read_connect_args(f"host=h target_session_attrs={attributes} aurora_role=any", {}).request.options.role is (
        WantedRole.ANY
    )


@pytest.mark.parametrize(
    ("hosts", "role"),
    [
        ("apps.cluster-abc123.eu-west-1.rds.amazonaws.com", None),
        ("apps.cluster-ro-abc123.eu-west-1.rds.amazonaws.com", None),
        ("apps-1.abc123.eu-west-1.rds.amazonaws.com", WantedRole.ANY),
        ("10.0.0.1", WantedRole.ANY),
        ("a,b", WantedRole.ANY),
    ],
)
def test_any_permits_what_the_endpoint_leads_to(hosts, role):
    assert read_connect_args(f"host={hosts} target_session_attrs=any", {}).request.options.role is role


def test_a_password_that_becomes_the_host_and_the_database():
    with pytest.raises(psycopg.ProgrammingError, match="database name has an @ in it") as caught:
        read_connect_args("postgresql://app:a@SECRET/b@127.0.0.1:5/app", {})
    assert "SECRET" not in str(caught.value)
    assert read_connect_args("postgresql://app:a@h/b%40c?user=c@d", {}).params["dbname"] == "b@c"
    assert read_connect_args("postgresql://app@h/b@c", {}).params["dbname"] == "b@c"


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
        read_connect_args(conninfo, keywords)


def test_a_malformed_host_is_refused_before_anything_is_dialled():
    with pytest.raises(MalformedHost):
        route(read_connect_args("host=a..b", {}).request)


def test_values_that_can_not_be_hashed_are_read_all_the_same():
    call = read_connect_args("host=h", {"aurora_instance_host": {"demo-1": "h:1"}})
    assert call.request.options.instance_host is not None


def test_a_call_is_read_once():
    assert read_connect_args("host=h", {"user": "a"}) is read_connect_args("host=h", {"user": "a"})


@pytest.mark.parametrize(
    ("choice", "sources"),
    [
        ("auto", (AURORA_POSTGRESQL, RDS_MULTI_AZ, POSTGRESQL)),
        ("multi-az", (RDS_MULTI_AZ,)),
        ("aurora", (AURORA_POSTGRESQL,)),
        ("postgresql", (POSTGRESQL,)),
        ("PostgreSQL,Aurora", (POSTGRESQL, AURORA_POSTGRESQL)),
        ("postgresql,auto", (POSTGRESQL, AURORA_POSTGRESQL, RDS_MULTI_AZ)),
    ],
)
def test_sources(choice, sources):
    assert read_connect_args(f"host=h aurora_source={choice}", {}).sources == sources


def nearest(candidates):
    return candidates[0]


async def asks_first(candidates):
    return candidates[0]


def balance_of(conninfo="host=h", **keywords):
    return read_connect_args(conninfo, keywords).request.options.balance


def test_balance_takes_a_function_or_a_name():
    assert balance_of(balance=nearest) == balance_of(aurora_balance=nearest) == CustomBalance("nearest", nearest)
    assert balance_of(balance="random") is Balance.RANDOM
    assert balance_of("host=h aurora_balance=random", balance=nearest).function is nearest
    assert balance_of(balance=None) is Balance.LEAST_CONNECTIONS


def test_weights_stay_for_a_function():
    weighted = "host=h aurora_balance=weighted aurora_weights=demo-1=2"
    assert read_connect_args(weighted, {"balance": nearest}).request.options.weights == (("demo-1", 2),)
    assert read_connect_args(weighted, {"balance": "random"}).request.options.weights == ()


def test_a_router_hands_its_function_on_until_a_connect_gives_another():
    router = Router("host=h", balance=nearest)
    assert router._with({})["aurora_balance"] is nearest
    assert router._with({"balance": "random"})["aurora_balance"] == "random"
    assert router._args.request.options.balance.function is nearest


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"balance": nearest, "aurora_balance": "random"}, "balance= and aurora_balance are both given"),
        ({"balance": asks_first}, "aurora_balance=asks_first: it is a coroutine function, and has to be a function"),
        ({"balance": "fair"}, "aurora_balance='fair': no balance function of that name .accepted: random, round_robin"),
        ({"balance": 3}, "aurora_balance=3: is of the type int"),
        ({"balance": "postgresql://app:secret@h/"}, "this belongs in the conninfo"),
    ],
)
def test_what_is_no_balance_is_refused(keywords, told):
    with pytest.raises(InvalidOption, match=told):
        balance_of(**keywords)


def test_an_entry_point_that_gives_no_function_is_refused(install):
    install("fair", "fair = 3", BALANCE_GROUP, {"fair": "fair:fair"})
    with pytest.raises(InvalidOption, match="aurora_balance=fair: it is a int, and has to be a function"):
        balance_of("host=h aurora_balance=fair")


def test_a_source_that_reports_whole_clusters_is_refused_for_a_list():
    told = r"aurora_source=aurora has no effect with several hosts \(a, b\)"
    with pytest.raises(InvalidOption, match=told):
        read_connect_args("host=a,b aurora_source=aurora", {})
    assert read_connect_args("host=a,b aurora_source=aurora,postgresql", {}).sources == (AURORA_POSTGRESQL, POSTGRESQL)


def test_name_servers():
    assert read_connect_args("host=h aurora_dns=127.0.0.1", {}).names._server == ("127.0.0.1", 53)
    assert read_connect_args("host=h aurora_dns=127.0.0.1:5300", {}).names._server == ("127.0.0.1", 5300)
    assert read_connect_args("host=h", {}).names._server is None


# ---------------------------------------------------------------- time-outs


@pytest.mark.parametrize(
    ("conninfo", "environment", "seconds"),
    [
        ("host=h", None, 5.0),
        ("host=h connect_timeout=30", None, 30.0),
        ("postgresql://h/?connect_timeout=30", None, 30.0),
        ("host=h", "30", 30.0),
        ("host=h connect_timeout=7", "30", 7.0),
        ("host=h connect_timeout=1", None, 2.0),
        ("host=h connect_timeout=2.9", None, 2.0),
        ("host=h connect_timeout=0", None, 130.0),
        ("host=h connect_timeout=-1", None, 130.0),
        ("host=h connect_timeout=30 aurora_connect_timeout=0.5", None, 0.5),
        ("host=h aurora_connect_timeout=0.5", "30", 0.5),
        ("host=h connect_timeout=30 aurora_profile=aggressive", None, 30.0),
    ],
)
@pytest.mark.case
def test_connect_timeout_is_the_limit_of_a_dial_by_the_rules_of_psycopg(conninfo, environment, seconds, monkeypatch):
    if environment is not None:
        monkeypatch.setenv("PGCONNECT_TIMEOUT", environment)
    assert read_connect_args(conninfo, {}).request.options.connect_timeout == seconds


@pytest.mark.parametrize("value", ["abc", "", "nan", "inf", "2s"])
@pytest.mark.parametrize("more", ["", " aurora_connect_timeout=3"])
def test_a_connect_timeout_that_is_no_number_is_an_error_as_in_psycopg(value, more):
    with pytest.raises(psycopg.ProgrammingError, match="bad value for connect_timeout"):
        read_connect_args(f"host=h connect_timeout='{value}'{more}", {})


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("PGPORT", "abc", 'invalid port number: "abc" (from PGPORT)'),
        ("PGPORT", "70000", 'invalid port number: "70000" (from PGPORT)'),
        ("PGCONNECT_TIMEOUT", "abc", "bad value for connect_timeout: 'abc' (from PGCONNECT_TIMEOUT)"),
        ("PGTARGETSESSIONATTRS", "master", "target_session_attrs='master' (from PGTARGETSESSIONATTRS): accepted are"),
    ],
)
def test_an_error_says_which_variable_of_the_environment_is_wrong(variable, value, text, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises((psycopg.Error, InvalidOption)) as error:
        read_connect_args("host=h", {})
    assert text in str(error.value)


# ---------------------------------------------------------------- roles by libpq's words, and options of several layers


@pytest.mark.parametrize("attributes", ["standby", "read-only"])
@pytest.mark.case
def test_a_standby_as_libpq_wants_it_is_never_a_primary(attributes):
    request = read_connect_args(f"host=h target_session_attrs={attributes}", {}).request
    assert (request.options.role, request.options.reader_fallback) == (WantedRole.READER, ReaderFallback.ERROR)
    assert request.refuses_primary
    own = read_connect_args(f"host=h target_session_attrs={attributes} aurora_reader_fallback=writer", {}).request
    assert own.options.reader_fallback is ReaderFallback.WRITER
    assert not own.refuses_primary


@pytest.mark.parametrize("attributes", ["primary", "read-write", "prefer-standby", "any"])
def test_other_words_of_libpq_keep_the_fallback(attributes):
    request = read_connect_args(f"host=h target_session_attrs={attributes}", {}).request
    assert request.options.reader_fallback is ReaderFallback.WRITER
    assert not request.refuses_primary


@pytest.mark.parametrize(
    ("conninfo", "keywords", "role"),
    [
        ("host=h aurora_reader_fallback=error", {"aurora_role": "writer"}, WantedRole.WRITER),
        ("host=h aurora_role=reader aurora_reader_fallback=error", {"aurora_role": "any"}, WantedRole.ANY),
        ("host=h aurora_role=reader", {"aurora_instance": "demo-1"}, None),
        ("host=h aurora_balance=weighted aurora_weights=demo-1=2", {"aurora_balance": "random"}, None),
    ],
)
@pytest.mark.case
def test_what_is_given_closer_to_the_connect_overrides_and_does_not_contradict(conninfo, keywords, role):
    assert read_connect_args(conninfo, keywords).request.options.role is role


@pytest.mark.parametrize(
    ("conninfo", "keywords"),
    [
        ("host=h aurora_role=writer aurora_reader_fallback=error", {}),
        ("host=h", {"aurora_role": "writer", "aurora_reader_fallback": "error"}),
        ("host=h aurora_role=reader aurora_instance=demo-1", {}),
    ],
)
def test_what_contradicts_in_one_place_is_refused(conninfo, keywords):
    with pytest.raises(InvalidOption):
        read_connect_args(conninfo, keywords)


# ---------------------------------------------------------------- no message repeats a password

SECRET = "s3cr3tPASS"
PASTED = [
    "postgresql://app:{}@db.example.com:5432/app",
    "postgresql+psycopg://app:{}@db.example.com/app",
    "mysql://app:{}@db/app",
    "host=db password={}",
    "app:{}@db.example.com",
    "//app:{}@db.example.com/app",
]
MALFORMED = [
    "postgresql://app:p@{}@db.example.com:5432/app",
    "postgresql://app:@{},@db:5432/app",
    "postgresql://app:p/{}@db.example.com/app",
    "postgresql://app:{}/x@db.example.com/app",
    "postgresql://app:{}%zz@db.example.com/app",
    "postgresql://app:{}%80@db.example.com/app",
    "postgresql://app:{}@[db/app",
    "postgresql://app:{}@db:port/app",
    "postgresql://app:{}@db/app?nonsense=1",
    "postgresql://app:x {}@db/app",
    "postgresql://app:{}@db/app?aurora_rol=reader",
    "postgresql+aurora://app:p@{}@db/app",
    "postgresql+aurora://app:{}/x@db/app",
    "postgresql+aurora://app:x@db/app?host=a:1&host=b&port={}",
    "mysql://app:{}@db/app",
    "host=db password='{}",
    "host=db password=x {}",
    "host=db password=x {}=1",
    "host=db password={} nonsense=1",
    "host=db password={} aurora_rol=reader",
    "host=db passwd={}",
]


def everything_said(conninfo, keywords):
    """All texts that come of a call: the error with what it came from, or what was read."""
    said = []
    try:
        call = read_connect_args(conninfo, keywords)
        chosen = route(call.request)
        said += [repr(call), repr(call.request), repr(chosen), *map(str, call.request.given)]
    except (psycopg.Error, AuroraRouterError) as error:
        said += traceback.format_exception(error)
        said.append(repr(error))
    return "\n".join(said)


@pytest.mark.parametrize("form", MALFORMED)
def test_a_malformed_conninfo_is_not_repeated(form):
    assert SECRET not in everything_said(form.format(SECRET), {})


@pytest.mark.parametrize("form", PASTED)
@pytest.mark.parametrize("name", ["host", "hostaddr", "port", "dbname", "connect_timeout", "target_session_attrs"])
@pytest.mark.case
def test_what_was_pasted_into_the_wrong_place_is_not_repeated(form, name):
    if name == "dbname" and "://" not in form:
        pytest.skip("a name that a database may have")
    assert SECRET not in everything_said("", {name: form.format(SECRET)})
    assert SECRET not in everything_said("", {"host": "a,b", name: "x," + form.format(SECRET)})


@pytest.mark.parametrize("form", PASTED)
@pytest.mark.parametrize("name", sorted({"aurora_profile", *(f"aurora_{each.name}" for each in fields(Options))}))
def test_what_was_pasted_into_an_option_is_not_repeated(form, name):
    if name in {"aurora_cluster", "aurora_instance"} and "://" not in form:
        pytest.skip("any text is taken")
    assert SECRET not in everything_said("host=h", {name: form.format(SECRET)})


@given_any(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=0, max_size=6),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=0, max_size=6),
    st.sampled_from(["postgresql://app:{}@db:5432/app", "postgresql+aurora://app:{}@db:5432/app?aurora_role=reader"]),
)
def test_no_special_character_in_a_password_makes_a_message_repeat_it(before, after, form):
    password = before + SECRET + after
    said = everything_said(form.format(password), {})
    is_host = "@" in before and {"/", "?"} & {
        *after
    }  # app:@HOST/… or app:@HOST?…: nothing shows that it was meant for a password
    assert SECRET not in said or "/" in before or is_host


@given_any(
    st.sampled_from(["postgresql://", "postgres:/", "postgresql:", "gresql://", "jdbc:postgresql://", "://", "//", ""]),
    st.sampled_from(["app:", "app%20one:", "app one:", ":"]),
    st.sampled_from(["{}", "a@{}", "{}@b", "a b{}", "{} b", "a:{}", "{}=b", "a={}", 'a"{}', "a\n{}", "{}%zz"]),
    st.sampled_from(["@db.example.com:5432", "@db", "@[::1", "@[::1]:5432", "@:5432", "@", ""]),
    st.sampled_from(["/app", "/app?sslmode=require", "/app?nonsense=1", "?x", " x", ""]),
)
def test_no_url_whose_parts_were_cut_off_is_repeated(scheme, user, password, host, rest):
    said = everything_said(scheme + user + password.format(SECRET) + host + rest, {})
    # postgresql://app:a@SECRET/app: nothing shows that this is not the host
    is_host = host == "" and "@{}" in password
    assert SECRET not in said or is_host


@pytest.mark.parametrize("url", ["{}@db:5432/app", "//{}@db/app", "//app:{}@db/app", ":{}@db", "app:{}", "//app:{}"])
def test_a_url_that_lost_its_scheme_is_not_repeated(url):
    said = everything_said(url.format(SECRET), {})
    assert SECRET not in said
    assert "(the rest is not shown" in said


# ---------------------------------------------------------------- URLs of SQLAlchemy


@pytest.mark.parametrize("scheme", ["postgresql+aurora", "postgresql+aurora_async", "postgresql+psycopg"])
@given_any(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.text(st.characters(exclude_characters="\0?", exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.sampled_from(["h", "db.example.com", "::1"]),
)
def test_every_url_that_sqlalchemy_renders_is_read_as_sqlalchemy_means_it(scheme, user, password, name, options, host):
    url = sqlalchemy.URL.create(
        scheme, user, password, host, 6000, name, {"options": options, "aurora_role": "reader", "sslmode": "require"}
    )
    call = read_connect_args(url.render_as_string(hide_password=False), {})
    assert call.request.given == (Address(host, 6000),)
    assert call.request.options.role is WantedRole.READER
    assert dict(call.params) == {
        "user": user,
        "password": password,
        "dbname": name,
        "options": options,
        "sslmode": "require",
    }


def test_a_hidden_password_counts_as_not_given():
    url = sqlalchemy.make_url("postgresql+aurora://app:secret@h/app")
    assert "password" not in read_connect_args(str(url), {}).params
    assert read_connect_args(str(url), {"password": "given"}).params["password"] == "given"


@pytest.mark.parametrize("scheme", ["postgresql+aurora", "postgresql+psycopg", "postgresql"])
@pytest.mark.parametrize(
    "query",
    [
        "host=a:1&host=b:2",
        "host=a:1&host=b:2&host=c",
        "host=a&host=b",
        "host=a:1",
        "host=a,b&port=1,2",
        "host=a,b",
    ],
)
@pytest.mark.case
def test_lists_of_hosts_as_sqlalchemy_writes_them(scheme, query):
    url = sqlalchemy.make_url(f"{scheme}://app:x@/app?{query}")
    _, expected = PGDialect_psycopg().create_connect_args(url)
    stock = read_connect_args("", {name: str(value) for name, value in expected.items()})
    for rendered in (url.render_as_string(hide_password=False), f"{scheme}://app:x@/app?{query}"):
        call = read_connect_args(rendered, {})
        assert call.request.given == stock.request.given
        assert dict(call.params) == dict(stock.params)


def test_both_ways_of_writing_a_list_at_once_are_refused():
    with pytest.raises(psycopg.ProgrammingError, match="not a mixture"):
        read_connect_args("postgresql+aurora://app@/app?host=a:1&host=b:2&port=3", {})


@pytest.mark.parametrize(
    ("conninfo", "keywords", "text"),
    [
        ("host=h password=x hots=db", {}, 'invalid connection option "hots"'),
        ("postgresql://app@[::1/app", {"password": "x"}, '"]"'),
        ("postgresql://db:5432/app?nonsense=1", {}, 'invalid URI query parameter: "nonsense"'),
        ("host=::1 nonsense", {}, 'missing "=" after "nonsense"'),
        ("host=h nonsense", {}, 'missing "=" after "nonsense"'),
    ],
)
def test_what_cannot_be_a_part_of_a_password_is_said(conninfo, keywords, text):
    with pytest.raises(psycopg.ProgrammingError) as caught:
        read_connect_args(conninfo, keywords)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("conninfo", "keywords", "advice"),
    [
        ("host=h max_lag=3", {}, "did you mean aurora_max_lag?"),
        ("host=h password=x max_lag=3", {}, "did you mean aurora_max_lag?"),
        ("host=h", {"role": "reader"}, "did you mean aurora_role?"),
        ("host=h", {"connect_timeout": 3, "profile": "web"}, "did you mean aurora_profile?"),
        ("postgress://app@db/app", {}, "a URL begins with postgresql://"),
        ("postgress://app:secret@db/app", {}, "a URL begins with postgresql://"),
        ("secret://p:word@db/app", {}, "a URL begins with postgresql://"),
        ("aurora://app@db/app", {}, "in create_engine with postgresql+aurora://"),
    ],
)
def test_what_was_meant_is_said(conninfo, keywords, advice):
    with pytest.raises(psycopg.ProgrammingError) as caught:
        read_connect_args(conninfo, keywords)
    assert advice in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["password", "application_name", "host", "dbname", "options", "sslrootcert"])
def test_a_nul_is_refused_since_libpqs_text_would_end_there(name):
    for value in ("a\0b", b"x\0"):
        with pytest.raises(psycopg.ProgrammingError, match=f"{name} has a NUL character in it"):
            read_connect_args("host=a port=5432", {name: value})
    with pytest.raises(psycopg.ProgrammingError, match="the conninfo has a NUL character in it"):
        read_connect_args(f"host=a {name}='x\0y'", {})


ELSEWHERE = {
    "host": "elsewhere.example.com",
    "hostaddr": "192.0.2.9",
    "port": "6999",
    "dbname": "other",
    "user": "other",
    "sslmode": "disable",
    "target_session_attrs": "standby",
    "connect_timeout": "77",
}
GIVEN = {
    "host": "h",
    "hostaddr": "192.0.2.1",
    "port": "5432",
    "dbname": "app",
    "user": "app",
    "sslmode": "require",
    "target_session_attrs": "read-write",
    "connect_timeout": "7",
}
if psycopg.pq.version() >= 170000:
    ELSEWHERE["sslnegotiation"], GIVEN["sslnegotiation"] = "direct", "postgres"


def dialled_with(keywords, target):
    """What libpq takes for each parameter, if a dial leaves the rest to the environment or the service."""
    params = dial_params(read_connect_args("", keywords).params, target, 5.0)
    return {name: str(params.get(name, value)) for name, value in ELSEWHERE.items()}


@pytest.mark.parametrize("source", ["environment", "service"])
@pytest.mark.parametrize(
    "target", [Target("t", "t.example.com", 5432, ("192.0.2.2",)), Target("t", "/run/postgresql", 5432)]
)
def test_nothing_that_routing_takes_out_comes_back_from_elsewhere(source, target, monkeypatch, tmp_path):
    """Whatever is given explicitly, and the place that is dialled, hold against the environment and a service."""
    keywords = dict(GIVEN)
    if source == "environment":
        for name, value in ELSEWHERE.items():
            monkeypatch.setenv(connect_args._ENVIRONMENT[name], value)
    else:
        path = tmp_path / "services"
        path.write_text("[elsewhere]\n" + "".join(f"{name}={value}\n" for name, value in ELSEWHERE.items()))
        monkeypatch.setenv("PGSERVICEFILE", str(path))
        keywords["service"] = "elsewhere"
    assert set(ELSEWHERE) == set(connect_args._ENVIRONMENT), "every parameter that routing takes from there"
    expected = {**GIVEN, "host": target.host, "hostaddr": "".join(target.addresses), "target_session_attrs": "any"}
    assert dialled_with(keywords, target) == expected


def test_what_a_read_comes_after_is_a_token():
    with pytest.raises(TypeError, match=r"after=3 is no causal token: give one that connection\.causal_token"):
        connect("host=127.0.0.1 port=1", after=3)


async def test_explaining_is_awaited_on_an_event_loop():
    name = "host=demo.cluster-ro-abc123.eu-west-1.rds.amazonaws.com"
    explained = await AsyncRouter(name).explain()
    assert explained == Router(name).explain()
    assert explained.role.value == "reader"


def test_values_that_are_equal_and_spelled_otherwise_are_told_apart():
    """libpq takes texts: ``keepalives=True`` is an error, and must not be one for ``keepalives=1``."""

    class Database(str, enum.Enum):
        MAIN = "app"

    for values in ([True, 1, 1.0], [Database.MAIN, "app"], [decimal.Decimal("1.0"), decimal.Decimal("1.00")]):
        for value in values:
            read = read_connect_args("", {"host": "db", "application_name": value})
            assert str(read.params["application_name"]) == str(value)
