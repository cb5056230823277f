"""Notes of drains: what is read of a text that others may have written, and what an answer changes of a view."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.drain import MAX_REASON, MAX_TEXT, Drain, DrainNote, read_notes, read_report, write_notes
from aurora_router.model.event import DrainEnded, DrainStarted
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import Row, Topology
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["instance", "since", "until", "reason"]), inner),
    max_leaves=12,
)
SECONDS = st.floats(0.0, 1e11)
NOTES = st.lists(
    st.builds(
        DrainNote, st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True), SECONDS, SECONDS, st.text(max_size=MAX_REASON)
    ),
    max_size=15,
)


@given(NOTES)
def test_what_is_written_is_read(notes):
    assert read_notes(write_notes(notes)) == tuple(notes)


@given(st.text() | JSON.map(json.dumps) | st.lists(JSON).map(json.dumps))
def test_no_text_raises(text):
    for each in read_notes(text):
        assert each.instance
        assert each.since - each.since == each.until - each.until == 0.0, "finite"
    assert isinstance(read_report(text), tuple)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        "[" * 100_000,
        "{}",
        "null",
        '[{"instance": "a", "since": 1, "until": 1e999}]',
        "[]" + " " * MAX_TEXT,
    ],
)
def test_what_is_no_list_of_notes_is_none(text):
    assert read_notes(text) == ()


def test_a_report_has_what_goes_on_by_the_servers_clock():
    over, on = DrainNote("demo-2", 10.0, 100.0), DrainNote("demo-3", 10.0, 130.0, "patch")
    text = write_notes([over, on])
    assert read_report(f"100.0 {text}") == ((on, 30.0),)
    assert read_report("100.0 ") == read_report(None) == read_report("") == ()


VIEW = View(
    {"demo-1": Instance("demo-1", Role.WRITER), "demo-2": Instance("demo-2", Role.READER)},
    writer="demo-1",
    token=5,
    refreshed_at=0.0,
)
ROWS = (Row("demo-1", writer=True, token=5), Row("demo-2"))
NOTE = DrainNote("demo-2", 0.0, 100.0, "patch")


def answer(drains, observer="demo-1", asked_at=10.0):
    return Topology(ROWS, observer, observer == "demo-1", asked_at=asked_at, drains=drains)


def test_a_drain_begins_and_ends():
    view, events = reduce(VIEW, answer(((NOTE, 60.0),)), 11.0)
    assert view.drains == {"demo-2": Drain(70.0, "patch")}
    assert events == (DrainStarted("demo-2", 60.0, "patch"),)
    assert reduce(view, answer(((NOTE, 50.0),), asked_at=20.0), 20.0)[1] == (), "it goes on"
    assert pickle.loads(pickle.dumps(view)).drains == view.drains
    view, events = reduce(view, answer((), asked_at=30.0), 31.0)
    assert (dict(view.drains), events) == ({}, (DrainEnded("demo-2"),))


def test_the_same_answer_twice_changes_nothing():
    seen = answer(((NOTE, 60.0),))
    view, _ = reduce(VIEW, seen, 11.0)
    assert reduce(view, seen, 11.0) == (view, ())


def test_a_source_that_does_not_read_drains_changes_none():
    view, _ = reduce(VIEW, answer(((NOTE, 60.0),)), 11.0)
    assert reduce(view, answer(None, asked_at=12.0), 12.0)[0].drains == view.drains


def test_what_the_writer_reports_counts_more_than_what_a_reader_does():
    view, _ = reduce(VIEW, answer(((NOTE, 60.0),), observer="demo-2"), 11.0)
    assert set(view.drains) == {"demo-2"}, "the writer was not asked yet"
    view, _ = reduce(view, answer((), asked_at=12.0), 12.0)
    assert not view.drains
    view, _ = reduce(view, answer(((NOTE, 58.0),), observer="demo-2", asked_at=13.0), 13.0)
    assert not view.drains, "the reader may lag"


def test_a_drain_is_over_by_itself_and_is_of_readers_alone():
    view, reader = replace(VIEW, drains={"demo-2": Drain(70.0)}), VIEW.instances["demo-2"]
    assert view.find_drain(reader, 69.0) is not None
    assert view.find_drain(replace(reader, id="DEMO-2"), 69.0) is not None
    assert view.find_drain(reader, 70.0) is None
    assert view.find_drain(replace(reader, role=Role.WRITER), 69.0) is None
    assert view.find_drain(VIEW.instances["demo-1"], 69.0) is None
