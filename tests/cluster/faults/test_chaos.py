"""A bounded form of ``benchmarks.chaos_failovers``: every way to lose the writer, twice."""

from __future__ import annotations

import logging
import random
import threading

import pytest

from benchmarks.chaos_clients import Client, Operation, moves
from benchmarks.chaos_failovers import KINDS, ROLLED_BACK, Books, chaos, check_demoted, judge, schedule

FAILOVERS = 2 * len(KINDS)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_failover_loses_doubles_or_lies():
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    books = chaos(FAILOVERS, seed=7)
    assert books.wrong == {}
    assert len(books.rounds) == FAILOVERS
    assert books.operations > FAILOVERS
    assert books.looks > 0
    assert not [way for way in books.unknown if "witness" in way]


def test_each_kind_comes_as_often_as_the_others():
    kinds = schedule(40, random.Random(1))
    assert {kinds.count(kind) for kind in KINDS} == {5}
    assert kinds == schedule(40, random.Random(1))


@pytest.fixture
def client():
    return Client(0, "test", "ledger", 1, threading.Event())


@pytest.mark.parametrize(
    ("told", "rows", "wrong"),
    [
        ("committed", 1, set()),
        ("committed", 0, {"acknowledged rows lost"}),
        ("committed", 2, {"rows twice"}),
        ("unknown", 0, set()),
        ("unknown", 1, set()),
        ("not committed: x", 0, set()),
        ("not committed: x", 1, {ROLLED_BACK}),
    ],
)
def test_the_books_see_what_is_wrong(client, told, rows, wrong):
    books = Books(1)
    judge(client, Operation(0, told, attempts=1), rows, books)
    assert set(books.wrong) == wrong
    assert books.unknown.total() == (told == "unknown")


def test_an_ack_of_a_demoted_writer_is_seen(client):
    books = Books(1)
    client.done = [
        Operation(0, "committed", began=1.0, acked=2.0, tli=1),
        Operation(1, "committed", began=3.0, acked=4.0, tli=2),
        Operation(2, "committed", began=3.5, acked=9.0, tli=1),
    ]
    check_demoted([client], books)
    assert books.wrong == {}, "it began before the first acknowledgement of the new one"
    client.done.append(Operation(3, "committed", began=4.5, acked=5.0, tli=1))
    check_demoted([client], books)
    assert set(books.wrong) == {"acks of a demoted writer"}


def test_money_is_moved_in_the_order_of_accounts():
    assert moves((3, 1, 10)) == [(10, 1), (-10, 3)]
    assert moves((1, 3, 10)) == [(-10, 1), (10, 3)]
