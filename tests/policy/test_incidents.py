"""What an incident says, and that it crosses processes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from aurora_router.model.event import HangSuspected, WriterLost
from aurora_router.model.incident import Incident
from aurora_router.model.instance import Role
from aurora_router.policy.incidents import note

LOST = Incident(
    "apps", "apps-1", Role.WRITER, Role.READER, "apps-2", "hung: no answer to a ping within 1 s", lost=True,
    events=tuple((9.0 - number, HangSuspected("apps-1", number)) for number in range(8)),
)  # fmt: skip
REFUSED = Incident("apps", None, None, None, None, None, lost=False)


def test_a_lost_connection():
    first, roles, writer, *events = note(replace(LOST, cut=None)).splitlines()
    assert first == "aurora-router: the connection to apps-1 (cluster apps) was lost"
    assert roles == "role when the connection was made: writer; as last known: reader"
    assert writer == "writer as last known: apps-2"
    assert len(events) == 5
    assert events[-1] == "- 2.0 s before: apps-1 is pinged: 7 connections wait for it"


def test_a_refused_write_and_nothing_known():
    assert note(REFUSED).splitlines() == [
        "aurora-router: an unknown instance (cluster apps) refused to write",
        "role when the connection was made: unknown; as last known: unknown",
        "writer as last known: none",
    ]


def test_a_writer_that_was_just_lost_is_not_called_the_writer_of_now():
    text = note(replace(LOST, role_now=Role.WRITER, writer_now="apps-1"))
    assert "writer as last known: apps-1, where this connection was lost; no other one is known yet" in text


def test_the_summary_is_the_first_line_and_says_who_cut_the_connection():
    """What psycopg says, that the server closed it, is not so then."""
    cut = "this library cut the connection to apps-1 (cluster apps): hung: no answer to a ping within 1 s"
    assert replace(LOST, text=note(LOST)).summary == f"aurora-router: {cut}"


@pytest.mark.parametrize(
    "incident", [LOST, REFUSED, Incident("a", "b", None, None, None, None, True, ((1.0, WriterLost("b")),))]
)
def test_it_pickles(incident):
    assert pickle.loads(pickle.dumps(incident)) == incident
