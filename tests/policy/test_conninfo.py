"""Our options out of a conninfo string; libpq itself is the oracle for what is left."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from aurora_router.errors import InvalidOption
from aurora_router.policy.conninfo import split_conninfo


@pytest.mark.parametrize(
    ("conninfo", "options", "rest"),
    [
        ("", {}, ""),
        ("host=a dbname=b", {}, "host=a dbname=b"),
        ("host=a aurora_role=reader dbname=b", {"aurora_role": "reader"}, "host=a  dbname=b"),
        ("aurora_role=reader", {"aurora_role": "reader"}, ""),
        ("aurora_role = 'prefer-reader'", {"aurora_role": "prefer-reader"}, ""),
        ("aurora_cluster='it''s'", {"aurora_cluster": "it"}, "'s'"),  # what follows is libpq's to refuse
        (r"aurora_cluster='it\'s \\ one'", {"aurora_cluster": r"it's \ one"}, ""),
        (r"aurora_cluster=a\ b host=c", {"aurora_cluster": "a b"}, " host=c"),
        ("aurora_cluster=a\\\nb", {"aurora_cluster": "a\nb"}, ""),
        ("aurora_cluster=a\\", {"aurora_cluster": "a"}, ""),
        ("aurora_cluster= host=c", {"aurora_cluster": "host=c"}, ""),  # libpq skips blanks before a value
        ("aurora_cluster=", {"aurora_cluster": ""}, ""),
        ("password='aurora_role=reader' port=1", {}, "password='aurora_role=reader' port=1"),
        ("host='a'aurora_role=any port=1", {"aurora_role": "any"}, "host='a' port=1"),
        ("aurora_role=any aurora_role=reader", {"aurora_role": "reader"}, ""),
        ("Aurora_Role=any", {"Aurora_Role": "any"}, ""),
        ("host aurora_role=any", {}, "host aurora_role=any"),  # malformed rest: reading stops
        ("host='a aurora_role=any", {}, "host='a aurora_role=any"),
        ("aurora_role=any host='a", {"aurora_role": "any"}, " host='a"),
        ("application_name=aurora_x", {}, "application_name=aurora_x"),
    ],
)
def test_keywords_and_values(conninfo, options, rest):
    assert split_conninfo(conninfo) == (options, rest)


@pytest.mark.parametrize(
    ("uri", "options", "rest"),
    [
        ("postgresql://h/d", {}, "postgresql://h/d"),
        ("postgresql://h/d?", {}, "postgresql://h/d?"),
        ("postgres://h/d?aurora_role=reader", {"aurora_role": "reader"}, "postgres://h/d"),
        ("postgresql://h?a=1&aurora_role=any&b=2", {"aurora_role": "any"}, "postgresql://h?a=1&b=2"),
        (
            "postgresql://u:p?w@h,[::1]:2/d?aurora_zones=a%2Cb",
            {"aurora_zones": "a,b"},
            "postgresql://u:p?w@h,[::1]:2/d",
        ),
        ("postgresql://h/d?aurora%5Fcluster=a%20b+c", {"aurora_cluster": "a b+c"}, "postgresql://h/d"),
        ("postgresql://h/d?aurora_cluster=b%C3%BCcher", {"aurora_cluster": "bücher"}, "postgresql://h/d"),
        ("postgresql://h/d?x=%zz&aurora_role=any", {"aurora_role": "any"}, "postgresql://h/d?x=%zz"),
        ("postgresql://h/d?%zz=1&aurora_role=any", {"aurora_role": "any"}, "postgresql://h/d?%zz=1"),
        ("postgresql://h/d?aurora_cluster=a=b", {"aurora_cluster": "a=b"}, "postgresql://h/d"),
        ("postgresql://u@h/d@x?aurora_role=any", {"aurora_role": "any"}, "postgresql://u@h/d@x"),
    ],
)
def test_uris(uri, options, rest):
    assert split_conninfo(uri) == (options, rest)


@pytest.mark.parametrize(
    ("conninfo", "message"),
    [
        ("host=a aurora_role", "aurora_role: a value is missing"),
        ("aurora_role host=a", "aurora_role: a value is missing"),
        ("host=a aurora_cluster='open", "aurora_cluster: its quoted value does not end"),
        ("aurora_cluster='open\\'", "aurora_cluster: its quoted value does not end"),
        ("aurora_cluster='open\\", "aurora_cluster: its quoted value does not end"),
        ("postgresql://h/d?aurora_role", "aurora_role: a value is missing"),
        ("postgresql://h/d?aurora_role=%zz", "aurora_role='%zz': bad percent-encoding"),
        ("postgresql://h/d?aurora_role=%00", "bad percent-encoding"),
        ("postgresql://h/d?aurora_role=%C3", "bad percent-encoding"),
    ],
)
def test_a_malformed_item_of_our_own_is_refused_by_name(conninfo, message):
    with pytest.raises(InvalidOption, match=message):
        split_conninfo(conninfo)


# ---------------------------------------------------------------- properties

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
theirs = st.sampled_from(["host", "dbname", "user", "password", "application_name", "options"])
ours = st.sampled_from(["aurora_role", "aurora_cluster", "aurora_x"])
blanks = st.text(" \t\n\r\f\v", max_size=3)


@st.composite
def quoted(draw, value):
    """A value as libpq reads it: in quotes, or with each special character escaped."""
    if draw(st.booleans()):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    escaped = "".join("\\" + char if char in " \t\n\r\f\v'\\" else char for char in value)
    return escaped or "''"


@st.composite
def written(draw):
    """A well-formed conninfo, with the items that it was made of."""
    items = draw(st.lists(st.tuples(theirs | ours, texts), max_size=6))
    parts = [
        f"{draw(blanks)}{key}{draw(blanks)}={draw(blanks)}{draw(quoted(value))}{draw(blanks)}" for key, value in items
    ]
    return " ".join(parts), items


@given(written())
def test_libpq_reads_the_rest_as_the_items_other_than_ours(case):
    conninfo, items = case
    options, rest = split_conninfo(conninfo)
    assert options == {key: value for key, value in items if key.startswith("aurora_")}
    assert conninfo_to_dict(rest) == {key: value for key, value in items if not key.startswith("aurora_")}


def percent(text):
    return "".join(char if char.isascii() and char.isalnum() else _encoded(char) for char in text)


def _encoded(char):
    return "".join(f"%{byte:02X}" for byte in char.encode())


@given(st.lists(st.tuples(theirs | ours, texts), max_size=6), st.sampled_from(["", "h", "u:p@h", "u:p?q@h:1/d"]))
@example(items=[("aurora_role", "a b"), ("host", "a&b")], authority="u:p?q@h:1/d")
def test_libpq_reads_the_rest_of_a_uri_as_the_parameters_other_than_ours(items, authority):
    query = "&".join(f"{key}={percent(value)}" for key, value in items)
    others = "&".join(f"{key}={percent(value)}" for key, value in items if not key.startswith("aurora_"))
    options, rest = split_conninfo(f"postgresql://{authority}?{query}")
    assert options == {key: value for key, value in items if key.startswith("aurora_")}
    if others:
        assert conninfo_to_dict(rest) == conninfo_to_dict(f"postgresql://{authority}?{others}")
    else:
        assert conninfo_to_dict(rest) == conninfo_to_dict(f"postgresql://{authority}")


@given(st.text("ahost=' \\&?%/:@_\n1", max_size=30) | texts)
@example("=aurora_role=any")
def test_what_is_not_ours_is_never_touched(text):
    if "aurora_" not in text.lower():
        assert split_conninfo(text) == ({}, text)


@given(st.text("host=' \\", max_size=12), st.sampled_from([" ", "\n"]))
def test_libpq_agrees_on_where_our_item_ends(text, blank):
    """Whatever stands before: where libpq can read it, our item behind it is found."""
    try:
        before = conninfo_to_dict(text + blank)
    except psycopg.ProgrammingError:
        return
    conninfo = f"{text}{blank}port=1 aurora_role=any"
    try:
        expected = conninfo_to_dict(f"{text}{blank}port=1")
    except psycopg.ProgrammingError:
        return
    if expected == before | {"port": "1"}:
        options, rest = split_conninfo(conninfo)
        assert options == {"aurora_role": "any"}
        assert conninfo_to_dict(rest) == expected
