"""Reading what servers answer: odd rows are left out or read as far as they make sense, and raise nothing."""

from __future__ import annotations

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.flow.cluster import Cluster
from aurora_router.flow.source import OtherKind
from aurora_router.model.event import ConfigurationAdvice
from aurora_router.policy.route import Identity
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL
from aurora_router.runtime.sources.postgresql import POSTGRESQL
from aurora_router.runtime.sources.rds_multi_az import RDS_MULTI_AZ

TEXTS = (
    st.none()
    | st.sampled_from(["", "t", "f", "NaN", "Infinity", "-1", "0", "12.5", "1e400", "9" * 50, "x"])
    | st.text()
)


def read(*rows, observer="demo-1", standby="f"):
    return AURORA_POSTGRESQL.read([(standby, "17", "5432", observer, *row) for row in rows], "asked")


def row(id_="demo-2", writer="f", age="0.5", lag="20", cpu="7", lsn="100", updated="1000"):
    return (id_, writer, age, lag, cpu, lsn, updated)


@given(st.lists(st.tuples(*[TEXTS] * 11), max_size=5))
def test_no_answer_raises(rows):
    topology = AURORA_POSTGRESQL.read(rows, "asked")
    assert len(topology.rows) + len(topology.malformed) <= len(rows)
    for each in topology.rows:
        assert each.lag is None or each.lag >= 0.0
        assert each.token is None or each.token > 0


def test_a_row_is_read():
    told = read(row("demo-1", "t", age="0.1"), row())
    assert (told.observer, told.observer_is_writer, told.malformed) == ("demo-1", True, ())
    one, other = told.rows
    assert (one.id, one.writer, one.age, one.token) == ("demo-1", True, None, 100)
    assert (other.id, other.writer, other.age, other.lag, other.cpu) == ("demo-2", False, 0.5, 0.02, 7.0)
    assert other.updated == 1000.0


@pytest.mark.parametrize("id_", [None, "", " ", "a.b", "a b", "demo-2 ", "é", "x" * 64, "a'b", "a\nb"])
def test_a_row_without_a_proper_id_is_listed_as_malformed(id_):
    told = read(row("demo-1", "t"), row(id_))
    assert [each.id for each in told.rows] == ["demo-1"]
    assert len(told.malformed) == 1


def test_ids_are_lower_case():
    told = read(row("DEMO-1", "t"), observer="Demo-1")
    assert told.observer == told.rows[0].id == "demo-1"
    assert told.rows[0].age is None


@pytest.mark.parametrize("odd", [None, "", "NaN", "-Infinity", "-5", "x"])
def test_a_number_that_can_not_be_right_is_unknown(odd):
    (told,) = read(row(lag=odd, cpu=odd, lsn=odd)).rows
    assert (told.lag, told.cpu, told.token) == (None, None, None)


def test_an_answer_without_rows_is_the_instances_word_alone():
    told = read(row(None, None, None, None, None, None, None))
    assert (told.rows, told.malformed, told.observer, told.observer_is_writer) == ((), (), "demo-1", True)


def test_rows_that_can_not_be_read_are_told_of_once():
    class Home:
        def __init__(self):
            self.heard = []

        def publish(self, _, event):
            self.heard.append(event)

    home = Home()
    cluster = Cluster(Identity("in x", "demo", "cluster"), home, threading.Lock())
    for _ in range(3):
        cluster.observe(read(row("demo-1", "t"), row("a.b")), 1.0)
    assert [event for event in home.heard if isinstance(event, ConfigurationAdvice)] == [home.heard[-1]]
    assert "'a.b'" in home.heard[-1].text


@pytest.mark.parametrize(
    ("position", "end"),
    [(3 * 8192 + 24, 3 * 8192), (16 * 2**20 + 40, 16 * 2**20), (3 * 8192 + 32, 3 * 8192 + 32), (8192 - 8, 8192 - 8)],
)
def test_a_writer_at_the_head_of_a_page_has_written_up_to_its_beginning(position, end):
    """A standby that has replayed all ends there, too; else an idle primary would seem to be ahead of it."""
    rows = [("f", "17", "5432", "0000000300000000000000AB", None, str(position), "73")]
    (row,) = POSTGRESQL.read(rows, "db1").rows
    assert (row.lsn, row.token, row.system, row.lag) == (end, 3, "73", 0.0)


def test_a_standby_that_has_replayed_all_that_it_received_may_lag():
    (row,) = POSTGRESQL.read([("t", "17", "5432", None, "312.5", "5000", "73")], "db2").rows
    assert (row.lag, row.lsn) == (312.5, 5000)


# ---------------------------------------------------------------- RDS Multi-AZ DB clusters

OWN_WRITER = ("f", "17", "5432", "000000050000000000000001", None, "1000", "7001", None)
OWN_READER = ("t", "17", "5432", None, "0.2", "900", "7001", None)


def read_multi_az(own, *listed, source="db-A"):
    """`listed`: (whether it is the observer, whether it is the source, host name)."""
    return RDS_MULTI_AZ.read([(*own, source, *each) for each in listed], "asked")


def host(label):
    return f"{label}.c9akciq32.eu-west-1.rds.amazonaws.com"


def test_a_writer_shows_its_timeline_and_lists_the_others():
    told = read_multi_az(OWN_WRITER, ("f", "f", host("B")), ("t", "t", host("A")), ("f", "f", host("c")))
    assert (told.observer, told.observer_is_writer, told.complete, told.monotone) == ("a", True, True, True)
    own, *others = told.rows
    assert (own.id, own.writer, own.token, own.system, own.lsn, own.host) == ("a", True, 5, "7001", 1000, None)
    assert [(row.id, row.writer, row.token, row.lag) for row in others] == [
        ("b", False, None, None),
        ("c", False, None, None),
    ]


def test_a_standby_names_its_source_without_a_timeline():
    told = read_multi_az(OWN_READER, ("t", "f", host("b")), ("f", "t", host("a")))
    assert (told.observer, told.observer_is_writer) == ("b", False)
    own, source = told.rows
    assert (own.writer, own.lag, own.lsn) == (False, 0.2, 900)
    assert (source.id, source.writer, source.token) == ("a", True, None)


def test_what_names_itself_as_its_source_while_in_recovery_is_no_writer():
    told = read_multi_az(OWN_READER, ("t", "t", host("a")))
    assert [row.writer for row in told.rows] == [False]


def test_a_single_instance_with_the_functions_is_of_another_kind():
    """They are there for blue/green deployments, too."""
    with pytest.raises(OtherKind):
        read_multi_az(OWN_WRITER, ("t", None, host("a")), source=None)
    with pytest.raises(OtherKind):
        RDS_MULTI_AZ.read([], "asked")


def test_an_empty_list_leaves_the_observer_and_is_not_complete():
    told = read_multi_az(OWN_WRITER, (None, None, None))
    assert ([row.id for row in told.rows], told.observer, told.complete) == (["asked"], "asked", False)


def test_hosts_without_a_proper_label_are_listed_as_malformed():
    told = read_multi_az(OWN_WRITER, ("t", "t", host("a")), ("f", "f", ".x"), ("f", "f", "a b.x"))
    assert ([row.id for row in told.rows], len(told.malformed)) == (["a"], 2)


@given(st.lists(st.tuples(*[TEXTS] * 3), max_size=5), TEXTS, st.sampled_from([OWN_WRITER, OWN_READER]))
def test_no_list_raises(listed, source, own):
    with contextlib.suppress(OtherKind):
        told = RDS_MULTI_AZ.read([(*own, source, *each) for each in listed], "asked")
        assert sum(row.id == told.observer for row in told.rows) == 1
        assert all(row.token is None for row in told.rows if row.id != told.observer)
