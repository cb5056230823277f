"""Subscribers hear what happens, and can't break it; the log has it too."""

from __future__ import annotations

import logging

import pytest

from aurora_router import subscribe
from aurora_router.model.event import Advice, InstanceAdded, InstanceFailed, WriterChanged, WriterLost
from aurora_router.model.instance import Role
from aurora_router.observe import publish

CHANGED = WriterChanged("demo-1", "demo-2", 2)


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
        (Advice("set aurora_instance_host"), logging.WARNING),
        (WriterChanged(None, "demo-1", 1), logging.DEBUG),
        (InstanceAdded("demo-1", Role.READER), logging.DEBUG),
    ],
)
def test_what_went_wrong_is_a_warning(event, level, caplog):
    caplog.set_level(logging.DEBUG, "aurora_router")
    publish("demo", event)
    (record,) = caplog.records
    assert record.levelno == level
    assert "cluster demo" in record.getMessage()


def test_an_advice_is_told_in_its_own_words(caplog):
    publish("demo", Advice("set aurora_instance_host"))
    assert caplog.messages == ["cluster demo: set aurora_instance_host"]
