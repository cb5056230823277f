"""The tree of errors: what is caught by which class, and what a message tells."""

from __future__ import annotations

import pickle

import psycopg
import pytest

from aurora_router import errors
from aurora_router.errors import (
    Attempt,
    AuroraRouterError,
    InvalidOption,
    MalformedHost,
    NoInstanceAvailable,
    RoutingError,
)
from aurora_router.model.view import View

OURS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, AuroraRouterError)]


@pytest.mark.parametrize("error", [each for each in OURS if issubclass(each, RoutingError)])
def test_whoever_retries_on_operational_errors_retries_on_routing_errors(error):
    assert issubclass(error, psycopg.OperationalError)


@pytest.mark.parametrize("error", [InvalidOption, MalformedHost])
def test_a_wrong_call_is_a_value_error_and_not_worth_a_retry(error):
    assert issubclass(error, ValueError)
    assert not issubclass(error, psycopg.Error)


def test_every_class_is_in_the_tree_of_the_docstring():
    for each in OURS:
        assert each.__name__ in errors.__doc__


def test_every_attempt_is_told_and_equal_ones_once():
    attempts = [Attempt("demo-1", "refused", 0.001)] * 3 + [Attempt("demo-2", "timed out", 2.0)]
    error = NoInstanceAvailable("nobody. Tried:", attempts=attempts, view=View(writer="demo-1"))
    assert str(error).splitlines() == [
        "nobody. Tried:",
        "- demo-1: refused (0.001 s), 3 times",
        "- demo-2: timed out (2.000 s)",
    ]
    assert error.attempts == tuple(attempts)
    assert error.view.writer == "demo-1"


def test_a_long_story_is_cut_in_the_message_alone():
    attempts = [Attempt(f"demo-{number}", "refused", 0.0) for number in range(40)]
    error = NoInstanceAvailable("nobody.", attempts=attempts)
    lines = str(error).splitlines()
    assert lines[1] == "- (28 earlier ones)"
    assert len(lines) == 14
    assert lines[-1].startswith("- demo-39")
    assert len(error.attempts) == 40


def test_nothing_tried_nothing_known():
    error = RoutingError("no")
    assert (str(error), error.attempts, error.view, error.sqlstate) == ("no", (), None, None)


def test_a_message_survives_pickling():
    assert str(pickle.loads(pickle.dumps(InvalidOption("unknown option")))) == "unknown option"
