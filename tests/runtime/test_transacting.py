"""What the runtimes of transactions read out of exceptions and connections."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from aurora_router.flow.session import Modes, Trouble
from aurora_router.psycopg_errors import CommitOutcomeUnknown, TransactionEnded
from aurora_router.runtime.transacting import BlockingSessions

SESSIONS = BlockingSessions(None, None)
CONFLICT = psycopg.errors.SerializationFailure("conflict")
LOST = psycopg.OperationalError("gone")


def raised_from(error, cause):
    error.__cause__ = cause
    return error


def raised_while_handling(error, context):
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CONFLICT, Trouble("40001", connection=True)),
        (LOST, Trouble(None, connection=True)),
        (psycopg.errors.UniqueViolation("twice"), Trouble("23505", connection=False)),
        (psycopg.errors.ReadOnlySqlTransaction("no"), Trouble("25006", connection=True)),
        (sa.exc.OperationalError("select", {}, CONFLICT), Trouble("40001", connection=True)),
        (raised_from(KeyError("x"), CONFLICT), Trouble("40001", connection=True)),
        (raised_while_handling(KeyError("x"), CONFLICT), Trouble(None, connection=False)),
        (raised_from(KeyError("x"), sa.exc.DBAPIError("select", {}, LOST)), Trouble(None, connection=True)),
        (ValueError("mine"), Trouble(None, connection=False)),
        # What an inner run_transaction says may be committed is not run again for what was behind that.
        (raised_from(TransactionEnded("inner"), CONFLICT), Trouble(None, connection=False)),
        (raised_from(CommitOutcomeUnknown("inner"), LOST), Trouble(None, connection=False)),
        (raised_from(KeyError("x"), raised_from(TransactionEnded("inner"), LOST)), Trouble(None, connection=False)),
    ],
)
def test_what_an_exception_says(error, expected):
    assert SESSIONS.trouble(error) == expected


def test_a_circle_of_causes_ends():
    one, two = KeyError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    assert SESSIONS.trouble(one) == Trouble(None, connection=False)


class Attributes:
    isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    read_only = True
    deferrable = None


def test_modes_come_from_the_connections_attributes():
    assert SESSIONS.modes(Attributes()) == Modes("REPEATABLE READ", read_only=True)


@pytest.mark.parametrize(
    ("modes", "sql"),
    [
        (Modes(), ""),
        (Modes("SERIALIZABLE", read_only=True, deferrable=True), "ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"),
        (Modes(read_only=False, deferrable=False), "READ WRITE NOT DEFERRABLE"),
        (
            Modes(read_only=False).merge(Modes("SERIALIZABLE", read_only=True)),
            "ISOLATION LEVEL SERIALIZABLE READ WRITE",
        ),
    ],
)
def test_modes_as_begin_takes_them(modes, sql):
    assert modes.sql == sql


def test_ids_are_random_uuids():
    assert SESSIONS.new_id() != SESSIONS.new_id()
    assert len(SESSIONS.new_id()) == 36
