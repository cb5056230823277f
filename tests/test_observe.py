"""Subscribers hear what happens, and can't break it; the log has it too."""

from __future__ import annotations

import logging

import pytest

from aurora_router import observe, subscribe
from aurora_router.model.event import ConfigurationAdvice, InstanceAdded, InstanceFailed, WriterChanged, WriterLost
from aurora_router.model.instance import Role
from aurora_router.observe import publish

CHANGED = WriterChanged("demo-1", "demo-2", 2)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(observe, "_journals", {})


@pytest.fixture
def heard():
    events = []
    end = subscribe(lambda cluster, event: events.append((cluster, event)))
    yield events
    end()


def test_subscribers_hear_until_they_end_it(heard):
    others = []
    end = subscribe(lambda cluster, event: others.append(event))
    publish("demo", CHANGED)
    end()
    end()
    publish("demo", CHANGED)
    assert heard == [("demo", CHANGED)] * 2
    assert others == [CHANGED]


def test_a_subscriber_that_fails_breaks_nothing(heard, caplog):
    def fails(cluster, event):
        raise ValueError("mine")

    end = subscribe(fails)
    second = []
    end_second = subscribe(lambda cluster, event: second.append(event))
    publish("demo", CHANGED)
    end()
    end_second()
    assert second == [CHANGED]
    assert "a subscriber failed" in caplog.text
    assert "mine" in caplog.text


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (CHANGED, logging.WARNING),
        (WriterLost("demo-1"), logging.WARNING),
        (InstanceFailed("demo-1", 1, gone=True, reason="refused"), logging.WARNING),
        (ConfigurationAdvice("set aurora_instance_host"), logging.WARNING),
        (WriterChanged(None, "demo-1", 1), logging.DEBUG),
        (InstanceAdded("demo-1", Role.READER), logging.DEBUG),
    ],
)
def test_what_went_wrong_is_a_warning(event, level, caplog):
    caplog.set_level(logging.DEBUG, "aurora_router")
    publish("demo", event)
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith("demo: ")
    assert (record.aurora_cluster, record.aurora_event) == ("demo", event)


def test_an_advice_is_told_in_its_own_words(caplog):
    publish("demo", ConfigurationAdvice("set aurora_instance_host"))
    assert caplog.messages == ["demo: set aurora_instance_host"]


def test_what_was_said_is_remembered_for_so_many_clusters(caplog):
    for number in range(3 * observe.MOST_CLUSTERS):
        publish(f"demo-{number}", WriterLost("demo-1"))
    assert len(observe._journals) == observe.MOST_CLUSTERS


def test_two_clusters_of_one_name_do_not_silence_each_other(caplog):
    for scope in ("eu", "us", "eu"):
        publish("demo", WriterLost("demo-1"), (scope, "demo"))
    assert [record.levelno for record in caplog.records if record.levelno == logging.WARNING] == [logging.WARNING] * 2
