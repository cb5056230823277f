"""What the topology queries of the MySQL family mean; their statements are tried on real servers elsewhere."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.instance import Role
from aurora_router.model.observation import Failure
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View
from aurora_router_mysql.sources import AURORA_MYSQL, MARIADB, MYSQL

SELF = ("f", "7", None, "db-1")
WRITER = ("DB-1", "1", "0.1", "0.000", "12.5", "1700000000.25")
READER = ("db-2", "0", "0.4", "23.5", None, "1700000000.5")


def test_aurora_reports_all_instances():
    topology = AURORA_MYSQL.read([(*SELF, *WRITER), (*SELF, *READER)], "whatever")
    assert topology.observer == "db-1"
    assert topology.observer_is_writer is True
    assert [(row.id, row.writer, row.lag, row.age, row.cpu) for row in topology.rows] == [
        ("db-1", True, 0.0, None, 12.5),  # of itself, an instance's row has no age
        ("db-2", False, 0.0235, 0.4, None),
    ]


def test_a_view_without_rows_leaves_the_report_about_itself():
    topology = AURORA_MYSQL.read([("t", "7", None, "db-1", None, None, None, None, None, None)], "db-1")
    assert (topology.rows, topology.observer, topology.observer_is_writer) == ((), "db-1", False)


def test_rows_that_make_no_sense_are_left_out_and_listed():
    rows = [(*SELF, *WRITER), (*SELF, None, *READER[1:]), (*SELF, "a b", *READER[1:]), (*SELF, "é", *READER[1:])]
    topology = AURORA_MYSQL.read(rows, "db-1")
    assert [row.id for row in topology.rows] == ["db-1"]
    assert topology.malformed == ("NULL", "'a b'", "'é'")
    odd = AURORA_MYSQL.read([(*SELF, "db-2", "0", "nan", "-1", "many", "")], "db-1").rows[0]
    assert (odd.age, odd.lag, odd.cpu, odd.updated) == (None, None, None, None)


@given(st.lists(st.lists(st.none() | st.text(max_size=5), min_size=10, max_size=10), max_size=4))
def test_no_answer_of_aurora_raises(rows):
    AURORA_MYSQL.read([tuple(row) for row in rows], "db-1")


@given(st.sampled_from(["t", "f"]), st.none() | st.text(max_size=3), st.none() | st.text(max_size=20))
def test_no_answer_of_mariadb_raises(standby, strict, position):
    MARIADB.read([(standby, "1", None, strict, position)], "db-1")


def test_mariadb_reports_itself_and_its_position():
    (row,) = MARIADB.read([("f", "1", None, "1", "0-12-345")], "a:3306").rows
    assert (row.id, row.writer, row.system, row.lsn, row.token) == ("a:3306", True, "GTID domain 0", 345, None)
    for strict, position in [("0", "0-12-345"), ("1", "0-1-3,1-1-5"), ("1", ""), ("1", None)]:
        (row,) = MARIADB.read([("t", "1", None, strict, position)], "b:3306").rows
        assert (row.writer, row.system, row.lsn, row.lag) == (False, None, None, None), (strict, position)


def test_mysql_reports_its_role_alone():
    topology = MYSQL.read([("t", "1", None)], "a:3306")
    assert (topology.observer_is_writer, topology.complete, topology.rows[0].writer) == (False, False, False)


def seen(id_, *, writer, at):
    position = "0-1-9" if writer else "0-1-8"
    topology = MARIADB.read([("f" if writer else "t", "1", None, "1", position)], id_)
    return replace(topology, asked_at=at)


def known(*ids):
    """A view in which the first of some instances is the writer."""
    view = View()
    for id_ in ids:
        view, _ = reduce(view, seen(id_, writer=id_ == ids[0], at=1.0), 1.0)
    return view


def test_a_former_writer_that_writes_on_is_not_accepted_by_its_position():
    """Why a position is no token: a writer that was cut off writes to its log before it waits for a reader."""
    view = known("a", "b", "c")
    view, _ = reduce(view, Failure("a", 0, gone=False, reason="refused"), 2.0)
    view, _ = reduce(view, seen("c", writer=False, at=2.1), 2.1)
    view, _ = reduce(view, seen("b", writer=True, at=2.2), 2.2)
    assert view.writer == "b"
    zombie = MARIADB.read([("f", "1", None, "1", "0-1-99")], "a")
    after, _ = reduce(view, replace(zombie, asked_at=3.0), 3.0)
    assert after.writer == "b"
    assert after.instances["a"].role is Role.READER


def test_a_new_writer_is_accepted_when_all_others_have_answered_or_failed():
    view = known("a", "b", "c")
    claim, _ = reduce(view, seen("b", writer=True, at=2.0), 2.0)
    assert claim.writer == "a"  # which is not known to have failed
    view, _ = reduce(view, Failure("a", 0, gone=False, reason="refused"), 2.0)
    claim, _ = reduce(view, seen("b", writer=True, at=2.1), 2.1)
    assert claim.writer == "a"  # c has not answered
    view, _ = reduce(view, seen("c", writer=False, at=2.1), 2.1)
    view, _ = reduce(view, seen("b", writer=True, at=2.2), 2.2)
    assert view.writer == "b"


def test_a_reader_that_has_all_the_writer_had_lags_by_the_time_since():
    view = known("a", "b")
    caught_up = MARIADB.read([("t", "1", None, "1", "0-1-9")], "b")
    view, _ = reduce(view, replace(caught_up, asked_at=1.5), 1.5)
    assert view.instances["b"].lag == 0.5
