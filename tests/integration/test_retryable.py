"""What `aurora_router.RETRYABLE` says, by real servers: after each of these errors nothing of the work is there."""

from __future__ import annotations

import threading

import psycopg
import pytest

import aurora_router

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]


@pytest.fixture
def table(aurora_cluster):
    with aurora_router.connect(aurora_cluster.conninfo(), autocommit=True) as conn:
        conn.execute("drop table if exists retried; create table retried (id int primary key, n int)")
        conn.execute("insert into retried values (1, 0), (2, 0)")
        yield lambda: conn.execute("select id, n from retried order by id").fetchall()
        conn.execute("drop table retried")


def test_a_serialization_failure(aurora_cluster, table):
    conninfo = aurora_cluster.conninfo(options="-c default_transaction_isolation=serializable")
    with aurora_router.connect(conninfo) as first, aurora_router.connect(conninfo) as second:
        for conn, id_ in ((first, 1), (second, 2)):
            conn.execute("select sum(n) from retried")
            conn.execute("update retried set n = 1 where id = %s", [id_])
        first.commit()
        with pytest.raises(aurora_router.RETRYABLE) as caught:
            second.commit()
        assert isinstance(caught.value, psycopg.errors.SerializationFailure)
    assert table() == [(1, 1), (2, 0)]


def test_a_deadlock(aurora_cluster, table):
    conninfo, barrier, outcomes = aurora_cluster.conninfo(), threading.Barrier(2), {}

    def update(first, second):
        try:
            with aurora_router.connect(conninfo) as conn:
                conn.execute("update retried set n = n + 1 where id = %s", [first])
                barrier.wait(30)
                conn.execute("update retried set n = n + 1 where id = %s", [second])
            outcomes[first] = None
        except aurora_router.RETRYABLE as error:
            outcomes[first] = error

    threads = [threading.Thread(target=update, args=pair) for pair in ((1, 2), (2, 1))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    (error,) = [each for each in outcomes.values() if each is not None]
    assert isinstance(error, psycopg.errors.DeadlockDetected)
    assert table() == [(1, 1), (2, 1)]  # of one of them alone


def test_a_write_on_a_reader(aurora_cluster, table):
    with aurora_router.connect(aurora_cluster.conninfo(), aurora_role="reader", autocommit=True) as conn:
        with pytest.raises(aurora_router.RETRYABLE) as caught:
            conn.execute("create table never (id int)")
        assert isinstance(caught.value, psycopg.errors.ReadOnlySqlTransaction)
    assert table() == [(1, 0), (2, 0)]
