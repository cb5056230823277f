"""The keywords that type checkers know are those that are parsed."""

from __future__ import annotations

import inspect
from dataclasses import fields

import psycopg
import pytest
from psycopg import pq

import aurora_router
from aurora_router.params import ConnectParams, LibpqParams
from aurora_router.policy.options import PREFIX, PROFILE, Options
from aurora_router.router import _level


def test_our_options_are_the_ones_that_are_parsed():
    ours = set(ConnectParams.__annotations__) - set(LibpqParams.__annotations__)
    assert ours == {"credentials", "balance", PROFILE, *(PREFIX + each.name for each in fields(Options))}


def test_libpqs_parameters_are_all_there():
    known = {each.keyword.decode() for each in pq.Conninfo.get_defaults()}
    assert known - {"authtype", "tty"} <= set(LibpqParams.__annotations__)  # obsolete: libpq ignores them


def test_named_parameters_are_psycopgs():
    import psycopg

    for ours, stock in (
        (aurora_router.Connection, psycopg.Connection),
        (aurora_router.AsyncConnection, psycopg.AsyncConnection),
    ):
        named = list(inspect.signature(ours.connect).parameters)
        assert named == list(inspect.signature(stock.connect).parameters)


@pytest.mark.parametrize("kind", [aurora_router.Router, aurora_router.AsyncRouter, aurora_router.connect])
@pytest.mark.parametrize("conninfo", [None, b"host=h", {"host": "h"}])
def test_what_is_no_conninfo_is_refused_in_words(kind, conninfo):
    with pytest.raises(TypeError, match="the conninfo is a string, and this is"):
        kind(conninfo)


@pytest.mark.parametrize("level", psycopg.IsolationLevel)
def test_an_isolation_level_is_a_name_or_a_value_of_psycopg(level):
    assert _level(level) == _level(level.name) == _level(level.name.lower().replace("_", " "))
    with pytest.raises(TypeError, match="IsolationLevel"):
        _level(int(level))
