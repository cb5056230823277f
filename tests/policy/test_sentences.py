"""What the log says: each event in a sentence, and the same thing once."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model import event as events
from aurora_router.model.event import (
    AnswerRefused,
    ClaimRefused,
    ConfigurationAdvice,
    ConnectionsCut,
    DrainEnded,
    DrainStarted,
    HangRefuted,
    HangSuspected,
    InstanceAdded,
    InstanceFailed,
    InstanceRecovered,
    InstanceRemoved,
    MonitorLockedOut,
    ProcessStalled,
    RoleChanged,
    WriterChanged,
    WriterConfirmed,
    WriteRefused,
    WriterLost,
    WriterSuspected,
)
from aurora_router.model.instance import Role
from aurora_router.policy.sentences import MOST, QUIET_SECONDS, Journal, Level, describe, report

FAILED = InstanceFailed("apps-1", 1, gone=True, reason="refused")
DRAINED = DrainStarted("apps-2", 600.0, "patch")
BACK = InstanceRecovered("apps-1", 12.3)

TABLE = [
    (WriterChanged("apps-1", "apps-3", 2), "WARNING", "writer is now apps-3 (was apps-1) after 36 ms"),
    (WriterChanged(None, "apps-1", 1), "DEBUG", "writer is apps-1"),
    (WriterLost("apps-1"), "WARNING", "apps-1 is no longer the writer, and no other is known yet"),
    (InstanceAdded("apps-2", Role.READER), "DEBUG", "apps-2 is known now, as a reader"),
    (InstanceRemoved("apps-2"), "DEBUG", "apps-2 left the cluster"),
    (RoleChanged("apps-2", Role.READER, Role.WRITER, 2), "DEBUG", "apps-2 is now a writer (was reader)"),
    (FAILED, "WARNING", "apps-1 failed: refused"),
    (BACK, "WARNING", "apps-1 is back after 12.3 s"),
    (DRAINED, "INFO", "apps-2 is drained for 600.0 s (patch): connections avoid it"),
    (DrainEnded("apps-2"), "INFO", "apps-2 is not drained any more, and is used again"),
    (
        ClaimRefused("apps-1", "apps-1", "apps-3", "an older timeline"),
        "DEBUG",
        "apps-1, named as the writer by itself, is not accepted: an older timeline",
    ),
    (
        ClaimRefused("apps-1", "apps-2", "apps-3", "an older timeline"),
        "DEBUG",
        "apps-1, named as the writer by apps-2, is not accepted: an older timeline",
    ),
    (
        AnswerRefused("apps-2", "users-1", "it lists none of the known instances"),
        "WARNING",
        "apps-2 seems to be of another cluster, and is not believed: it lists none of the known instances",
    ),
    (WriteRefused("apps-1"), "DEBUG", "apps-1 refused a write of a connection to the writer"),
    (WriterSuspected("a dial failed"), "INFO", "looking for the writer: a dial failed"),
    (WriterConfirmed("apps-3", 0.5), "INFO", "apps-3 confirmed that it is the writer, after 500 ms"),
    (HangSuspected("apps-1", 3), "DEBUG", "apps-1 is pinged: 3 connections wait for it"),
    (HangRefuted("apps-1", 0.002), "DEBUG", "apps-1 answered a ping after 2 ms: it is busy, not hung"),
    (
        MonitorLockedOut("a wrong password"),
        "WARNING",
        "the monitor cannot ask the instances, so each connect looks by itself: a wrong password",
    ),
    (ProcessStalled(2.0), "DEBUG", "this process did not run for 2.0 s: silence meanwhile counts for nothing"),
    (ConnectionsCut("apps-1", 1, "hung"), "WARNING", "1 connection to apps-1 cut: hung"),
    (ConnectionsCut("apps-1", 5, "hung"), "WARNING", "5 connections to apps-1 cut: hung"),
    (ConfigurationAdvice("set aurora_instance_host"), "WARNING", "set aurora_instance_host"),
]


@pytest.mark.parametrize(("event", "level", "sentence"), TABLE, ids=lambda each: type(each).__name__)
def test_an_event_in_words(event, level, sentence):
    line = describe(event, 0.036)
    assert (line.level.name, line.sentence) == (level, sentence)


def test_every_event_has_its_words():
    assert {type(event) for event, _, _ in TABLE} == set(get_args(events.Event))


def levels(*happened):
    """How loud each event is, given as (seconds, event)."""
    journal, found = Journal(), []
    for now, event in happened:
        journal, level, _ = report(journal, event, now)
        found.append(level.name)
    return found


def test_an_outage_is_two_lines_however_long_it_lasts():
    outage = [(second / 10, FAILED) for second in range(3000)]
    found = levels(*outage, (300.0, BACK), (300.1, BACK))
    assert [found.index("WARNING"), found.count("WARNING")] == [0, 2]
    assert found[-2:] == ["WARNING", "DEBUG"]


def test_an_instance_that_fails_and_returns_again_and_again_is_loud_once_in_a_while():
    flapping = [(each / 2, FAILED if each % 2 == 0 else BACK) for each in range(600)]
    assert levels(*flapping).count("WARNING") <= 2 * (300 / QUIET_SECONDS + 1)


def test_a_second_outage_with_another_reason_is_loud_at_once():
    hung = InstanceFailed("apps-1", 1, gone=True, reason="hung: no answer to a ping within 1.5 s")
    assert FAILED.reason != hung.reason
    assert levels((0, FAILED), (1, BACK), (2, hung), (3, hung), (4, BACK), (5, FAILED)) == [
        *("WARNING", "WARNING"), *("WARNING", "DEBUG", "WARNING"), "DEBUG",
    ]  # fmt: skip


def test_one_instance_does_not_silence_another():
    other = InstanceFailed("apps-2", 1, gone=True, reason="refused")
    assert levels((0, FAILED), (0, other)) == ["WARNING", "WARNING"]


def said(*happened):
    """What is said of each event, given as (seconds, event), with its level."""
    journal, found = Journal(), []
    for now, event in happened:
        journal, level, sentence = report(journal, event, now)
        found.append(f"{level.name} {sentence}")
    return found


FIRST = WriterChanged(None, "apps-1", 1)
LOST = WriterLost("apps-1")
SUSPECTED = WriterSuspected("a dial failed")


def test_the_new_writer_is_named_also_where_the_old_one_was_lost_before():
    assert said((0.0, FIRST), (9.0, SUSPECTED), (9.5, LOST), (10.0, WriterChanged(None, "apps-3", 2)))[-2:] == [
        "WARNING apps-1 is no longer the writer, and no other is known yet",
        "WARNING writer is now apps-3 (was apps-1) after 1.0 s",
    ]
    assert said((0.0, LOST), (1.0, WriterChanged(None, "apps-3", 2)))[-1] == "WARNING writer is now apps-3 (was apps-1)"


def test_a_writer_that_was_lost_and_is_found_again_is_said_to_be():
    again = WriterChanged(None, "apps-1", 2)
    found = said((0.0, FIRST), (9.0, LOST), (9.0, SUSPECTED), (10.0, again), (11.0, LOST), (12.0, again))
    assert found[3] == "WARNING apps-1 is the writer again after 1.0 s"
    assert [each.split()[0] for each in found[4:]] == ["DEBUG", "DEBUG"], "once in a while"


def test_a_cluster_that_was_forgotten_and_is_seen_again_has_news_only_if_its_writer_changed():
    assert said((0.0, FIRST), (900.0, FIRST)) == ["DEBUG writer is apps-1"] * 2
    found = said((0.0, FIRST), (900.0, WriterChanged(None, "apps-2", 1)), (901.0, WriterChanged("apps-2", "apps-3", 2)))
    assert found[1:] == ["WARNING writer is now apps-2 (was apps-1)", "WARNING writer is now apps-3 (was apps-2)"]


def test_a_long_search_says_once_who_is_not_believed_and_why():
    refused = ClaimRefused("apps-3", "apps-3", "apps-1", "older")
    claims = [(1.0 + each / 10, refused) for each in range(300)]
    found = [each for each in said((1.0, SUSPECTED), *claims) if not each.startswith("DEBUG")]
    assert found == [
        "INFO looking for the writer: a dial failed",
        "INFO still looking for the writer after 2.0 s: apps-3, named as the writer by itself, is not accepted: older",
    ]
    short = said((1.0, SUSPECTED), (1.1, refused), (1.2, WriterConfirmed("apps-1", 0.2)), (9.0, refused))
    assert [each.split()[0] for each in short] == ["INFO", "DEBUG", "INFO", "DEBUG"], "nothing is looked for at the end"


def test_the_time_since_the_doubt_is_in_the_sentence():
    journal, _, _ = report(Journal(), WriterSuspected("a dial failed"), 1.0)
    assert report(journal, TABLE[0][0], 1.036)[2].endswith("after 36 ms")
    journal, _, _ = report(journal, WriterConfirmed("apps-3", 0.04), 1.04)
    assert report(journal, TABLE[0][0], 9.0)[2].endswith("(was apps-1)")


@given(st.lists(st.integers(0, 2000), max_size=MOST + 100))
def test_a_journal_is_bounded_and_the_loud_lines_of_a_subject_are_apart(ids):
    journal, loud = Journal(), {}
    for now, number in enumerate(ids):
        event = ConnectionsCut(f"i-{number % 300}", 1, "hung")
        journal, level, _ = report(journal, event, float(now) / 10)
        if level is Level.WARNING:
            loud.setdefault(event.id, []).append(now / 10)
    assert len(journal.said) <= MOST
    if len(loud) <= MOST:
        assert all(b - a >= QUIET_SECONDS for each in loud.values() for a, b in pairwise(each))
