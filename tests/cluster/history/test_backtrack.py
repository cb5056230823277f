"""A running cluster goes back and forth: rows exactly as they were, clients go on as after a failover."""

from __future__ import annotations

import threading

import psycopg
import pytest

import aurora_router
from aurora_router_cluster import errors

pytestmark = pytest.mark.cluster


def test_back_to_a_position_and_forth_again(told, eventually):
    first = told.write(1, 2)
    last = told.write(3)
    before = {one.name: (one.endpoint, one.host, one.port) for one in told.cluster.instances}
    back = told.history.backtrack(first)
    assert told.rows() == [1, 2]
    eventually(lambda: told.reads("reader") == [1, 2])
    assert {one.name: (one.endpoint, one.host, one.port) for one in told.cluster.instances} == before
    assert back.set_aside > 0
    told.write(30)
    forth = told.history.forward(last)
    assert told.rows() == [1, 2, 3]
    eventually(lambda: told.reads("reader") == [1, 2, 3])
    assert (forth.left, forth.branch) == (back.branch, back.branch + 1)
    again = told.history.forward(branch=back.branch)  # what was written meanwhile is on its own branch
    assert told.rows() == [1, 2, 30]
    assert [branch.number for branch in told.history.branches()][-1] == again.branch


def test_back_to_a_time(told):
    told.write(1, 2)
    moment = told.clock()
    told.write(3)
    told.history.backtrack(moment)
    assert told.rows() == [1, 2]


def test_everything_goes_on_after_a_backtrack(told, eventually):
    point = told.write(1)
    told.write(2)
    told.history.backtrack(point)
    told.write(10)
    added = told.cluster.add_reader()
    eventually(lambda: told.reads(f"instance:{added.name}") == [1, 10])
    done = told.cluster.failover()
    told.write(11)
    assert told.rows() == [1, 10, 11]
    eventually(lambda: all(one.state == "available" for one in told.cluster.instances))
    told.cluster.kill(done.writer)
    eventually(lambda: told.cluster.status().writer not in {None, done.writer})
    eventually(lambda: _writes(told, 12))
    eventually(lambda: told.reads(f"instance:{added.name}") == [1, 10, 11, 12])
    told.history.forward()
    assert told.rows() == [1, 2]
    told.cluster.remove(added.name) if told.cluster.status().writer != added.name else None


def _writes(told, number: int) -> bool:
    try:
        told.write(number)
    except (psycopg.Error, errors.ClusterError):
        return False
    return True


def test_clients_go_on_as_after_a_failover(told):
    """A client writes all the while; what was acknowledged is in exactly one of the two branches."""
    told.write(0)
    acknowledged: list[int] = []
    ended, further = threading.Event(), threading.Semaphore(0)

    def client() -> None:
        number = 0
        connection = None
        while not ended.is_set():
            number += 1
            try:
                if connection is None or connection.closed:
                    connection = aurora_router.connect(told.cluster.conninfo(aurora_failover_timeout=30))
                    connection.autocommit = True
                connection.execute("insert into t values (%s)", (number,))
            except psycopg.Error:
                connection = None
                continue
            acknowledged.append(number)
            further.release()
        if connection is not None:
            connection.close()

    thread = threading.Thread(target=client)
    thread.start()
    try:
        for _ in range(20):
            assert further.acquire(timeout=30)
        point = told.run("select pg_current_wal_insert_lsn()::text")[0][0]
        done = told.history.backtrack(point)
        for _ in range(20):
            assert further.acquire(timeout=30), "the client does not come back"
    finally:
        ended.set()
        thread.join(60)
    there = set(told.rows()) - {0}
    told.history.forward(branch=done.left)
    there |= set(told.rows())
    assert set(acknowledged) <= there


def test_no_timeline_is_used_twice_and_a_way_forward_leaves_one_out(told):
    def newest() -> int:
        return told.cluster.status().volume["timelines"][-1]["tli"]

    point = told.write(1)
    told.write(2)
    used = newest()
    told.history.backtrack(point)
    assert newest() == used + 1
    told.history.forward()
    assert newest() == used + 3


def test_the_outcome_of_a_commit_is_that_of_the_branch(told):
    point = told.write(1)
    tokens = []
    router = aurora_router.Router(told.cluster.conninfo(aurora_outcome="log"))
    router.run_transaction(
        lambda connection: connection.execute("insert into t values (2)") and None, on_token=tokens.append
    )
    told.write(3)
    assert router.outcome_of(tokens[-1]).value == "committed"
    done = told.history.backtrack(point)
    assert told.rows() == [1]
    for number in range(10, 14):  # the xid may be given to another transaction
        told.write(number)
    assert router.outcome_of(tokens[-1]).value == "not committed"
    told.history.forward(branch=done.left)
    assert told.rows() == [1, 2, 3]
    assert router.outcome_of(tokens[-1]).value in {"committed", "unknown"}


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("yesterday", "no point in a cluster's history"),
        ("FF/0", "in the future.*ends at"),
        ("0/0", "outside of the window.*positions from.*snapshot.*retention"),
        ("2999-01-01T00:00:00Z", "in the future; now it is"),
        ("1999-01-01", "outside of the window.*times from"),
    ],
)
def test_bad_points_are_refused_and_nothing_changes(told, to, words):
    told.write(1)
    before = told.cluster.status().epoch
    with pytest.raises(errors.TargetError, match=words):
        told.history.backtrack(to)
    assert told.cluster.status().epoch == before
    assert told.rows() == [1]


def test_bad_branches_are_refused(told):
    with pytest.raises(errors.TargetError, match="there is no branch 999"):
        told.history.forward(branch=999)
    present = told.history.branches()[-1].number
    with pytest.raises(errors.TargetError, match="use backtrack"):
        told.history.forward(branch=present)


def test_a_client_finds_a_former_writer_on_a_log_that_went_back(told, eventually):
    """The client knows a higher position of the other's, and looks again only when both have changed."""
    point = told.write(1)
    names = [one.name for one in told.cluster.instances]
    former = told.cluster.status().writer
    conninfo = told.cluster.conninfo(aurora_failover_timeout=60)
    with aurora_router.connect(conninfo) as connection:
        assert connection.placement.instance == former
    other = told.cluster.failover().writer
    eventually(lambda: all(one.state == "available" for one in told.cluster.instances))
    told.run("create table filler as select generate_series(1, 50000) i")
    with aurora_router.connect(conninfo) as connection:
        assert connection.placement.instance == other
    told.history.backtrack(point)
    eventually(lambda: {one.name for one in told.cluster.instances if one.state == "available"} == set(names))
    told.cluster.failover(former)
    with aurora_router.connect(conninfo) as connection:
        assert connection.placement.instance == former
        assert connection.execute("select i from t").fetchall() == [(1,)]
