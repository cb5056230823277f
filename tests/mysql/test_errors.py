"""The errors are PyMySQL's, too: their numbers, texts, and copies."""

from __future__ import annotations

import pickle

import pymysql
import pytest

import aurora_router
import aurora_router_mysql
from aurora_router import errors
from aurora_router_mysql.errors import FAMILY

KINDS = [getattr(FAMILY, name) for name in FAMILY.__dataclass_fields__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_is_of_both_trees(kind):
    assert issubclass(kind, getattr(errors, kind.__name__))
    assert issubclass(kind, pymysql.err.DatabaseError)
    assert kind.__doc__ == getattr(errors, kind.__name__).__doc__
    assert getattr(aurora_router_mysql, kind.__name__) is kind


def test_the_tree_is_that_of_the_core():
    for kind in KINDS:
        for other in KINDS:
            core = getattr(errors, kind.__name__), getattr(errors, other.__name__)
            assert issubclass(kind, other) is issubclass(*core), (kind, other)


def test_the_first_argument_is_a_number_as_of_pymysqls_errors():
    error = aurora_router_mysql.WriterUnavailable("none", attempts=[errors.Attempt("db-1", "refused", 0.1)])
    assert error.args == (2003, "none\n- db-1: refused (0.100 s)")
    assert str(error) == "none\n- db-1: refused (0.100 s)"
    assert (error.sqlstate, error.attempts[0].target) == ("08001", "db-1")
    assert aurora_router_mysql.FailoverError("gone").args[0] == 2006


def test_after_which_errors_a_connect_may_be_tried_again():
    """Nothing had been sent; PyMySQL's own classes are too wide for that: one is a deadlock, and a lost COMMIT."""
    retryable = {kind.__name__ for kind in KINDS if issubclass(kind, aurora_router_mysql.RETRYABLE)}
    core = {
        kind.__name__ for kind in KINDS if issubclass(getattr(aurora_router, kind.__name__), aurora_router.RETRYABLE)
    }
    assert retryable == core
    assert "NoInstanceAvailable" in retryable
    assert not issubclass(pymysql.err.OperationalError, aurora_router_mysql.RETRYABLE)
    assert "RETRYABLE" in aurora_router_mysql.__all__


def test_they_pickle():
    error = aurora_router_mysql.NoInstanceAvailable("none", attempts=[errors.Attempt("db-1", "refused", 0.1)])
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, copy.attempts, copy.sqlstate) == (type(error), error.args, error.attempts, "08001")
    unknown = pickle.loads(pickle.dumps(aurora_router_mysql.CommitOutcomeUnknown("lost")))
    assert (unknown.args, unknown.token, unknown.sqlstate) == ((2013, "lost"), None, "08007")
