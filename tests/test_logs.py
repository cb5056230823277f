"""What a handler or a filter of the user's raises breaks nothing; what repeats itself is quiet."""

from __future__ import annotations

import logging

import pytest

from aurora_router import logs
from aurora_router.logs import Logger


class Failing(logging.Handler):
    def emit(self, record):
        raise ZeroDivisionError("the handler's")


class Refusing(logging.Filter):
    def filter(self, record):
        raise AttributeError("the filter's")


@pytest.fixture
def logger(request):
    found = Logger(f"aurora_router.tests.{request.node.name}")
    found.setLevel(logging.DEBUG)
    return found


def test_what_a_handler_raises_is_printed(logger, capsys):
    logger.logger.addHandler(Failing())
    logger.warning("an event")
    logger.error("another one")
    assert capsys.readouterr().err.count("ZeroDivisionError: the handler's") == 2


def test_what_a_filter_raises_is_printed(logger, capsys):
    logger.logger.addFilter(Refusing())
    logger.debug("an event")
    assert "AttributeError: the filter's" in capsys.readouterr().err


def test_it_is_not_printed_where_logging_is_silent(logger, capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.logger.addHandler(Failing())
    logger.error("an event")
    assert capsys.readouterr().err == ""


def test_a_record_keeps_what_it_was_given(logger, caplog):
    with caplog.at_level(logging.DEBUG):
        logger.info("%s: %s", "apps", "an event", extra={"aurora_cluster": "apps"})
    (record,) = caplog.records
    assert (record.getMessage(), record.aurora_cluster) == ("apps: an event", "apps")


def test_repetitions_are_logged_at_debug(logger, caplog, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    with caplog.at_level(logging.DEBUG):
        for subject in ("a", "a", "b"):
            logger.log_once(logging.WARNING, subject, "why: %s", subject)
        now += logs.REPEATED_SECONDS
        logger.log_once(logging.WARNING, "a", "why: %s", "a")
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "WARNING", "WARNING"]


def test_what_is_remembered_is_bounded(logger):
    for number in range(3 * logs.MOST_SUBJECTS):
        logger.log_once(logging.DEBUG, str(number), "an event")
    assert len(logger._logged_at) <= logs.MOST_SUBJECTS
