"""Whether a server's report of its role is to be believed: never where it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.role_reports import MAX_PATHS, MAX_PID, PROOF_SECONDS, RoleCheck, RoleReports

WRITER, READER, OTHER = ("10.0.0.1", 5432), ("10.0.0.2", 5432), ("10.0.0.3", 5432)
PID = 4711


def seen(standby, *, reported="right", same_backend=True, same_port=True):
    word = standby if reported == "right" else reported
    return RoleCheck(standby, (word, word), same_backend=same_backend, same_port=same_port)


def known(**changes):
    """Reports of a cluster whose writer and one of whose readers were checked at 0 s."""
    reports = RoleReports().record_check(WRITER, seen(False), 0.0)
    return reports.record_check(READER, seen(True, **changes), 0.0)


def test_nothing_is_believed_unchecked():
    assert not RoleReports().believes(WRITER, PID, 0.0)


def test_a_writer_is_believed_once_a_standby_has_reported():
    alone = RoleReports().record_check(WRITER, seen(False), 0.0)
    assert (alone.believes(WRITER, PID, 1.0), alone.lacks_standby) == (False, True)
    both = alone.record_check(READER, seen(True), 1.0)
    assert (both.believes(WRITER, PID, 1.0), both.believes(READER, PID, 1.0), both.lacks_standby) == (True, True, False)
    assert not both.believes(OTHER, PID, 1.0), "that path was not checked"


@pytest.mark.parametrize("change", [{"same_backend": False}, {"same_port": False}, {"reported": None}])
def test_a_standby_behind_something_proves_nothing_of_the_writer(change):
    reports = known(**change)
    assert not reports.believes(WRITER, PID, 1.0)
    assert not reports.believes(READER, PID, 1.0)


def test_a_path_that_was_not_direct_never_is_again():
    pooled = known().record_check(WRITER, seen(False, same_backend=False), 1.0)
    assert not pooled.record_check(WRITER, seen(False), 2.0).believes(WRITER, PID, 2.0)
    assert pooled.is_pooled(WRITER)
    relayed = known().record_check(WRITER, seen(False, same_port=False), 1.0)
    assert (relayed.believes(WRITER, PID, 1.0), relayed.is_pooled(WRITER)) == (False, False)


def test_a_wrong_report_ends_the_belief_for_good():
    reports = known().record_check(READER, seen(True, reported=False), 1.0).record_check(READER, seen(True), 2.0)
    assert not reports.believes(WRITER, PID, 2.0)
    assert not reports.lacks_standby, "there is nothing to be won by asking a standby"


def test_a_wrong_report_of_a_relay_says_nothing_of_others():
    reports = known().record_check(OTHER, seen(True, reported=False, same_port=False), 1.0)
    assert reports.believes(WRITER, PID, 1.0)
    assert not reports.believes(OTHER, PID, 1.0)


def test_a_promotion_during_the_answer_is_no_contradiction():
    promoted = RoleCheck(True, (True, False), same_backend=True, same_port=True)
    assert known().record_check(READER, promoted, 1.0).believes(WRITER, PID, 1.0)


def test_the_proof_ends():
    reports = known()
    assert reports.believes(WRITER, PID, PROOF_SECONDS - 0.1)
    assert not reports.believes(WRITER, PID, PROOF_SECONDS)
    failed = reports.record_dial_failure(("10.0.0.9", WRITER[0]))
    assert (failed.believes(WRITER, PID, 1.0), failed.believes(READER, PID, 1.0)) == (False, True)
    changed = reports.record_writer_change()
    assert not changed.believes(READER, PID, 1.0)
    assert changed.record_check(WRITER, seen(False), 1.0).believes(WRITER, PID, 2.0), "a standby has reported before"
    assert reports.record_dial_failure(("10.0.0.9",)) is reports


@pytest.mark.parametrize("pid", [-5, 0, MAX_PID + 1, 2**31 - 1])
def test_what_is_no_process_id_is_a_poolers_number(pid):
    assert not known().believes(WRITER, pid, 1.0)


def test_a_local_socket_is_not_believed():
    local = (None, 5432)
    reports = known().record_check(local, seen(False, same_port=False), 1.0)
    assert not reports.believes(local, PID, 1.0)


def test_paths_that_come_and_go_are_forgotten():
    reports = RoleReports()
    for number in range(3 * MAX_PATHS):
        reports = reports.record_check((f"a{number}", 1), seen(True), 0.0).record_check((f"b{number}", 1), POOLED, 0.0)
    assert (len(reports.direct), len(reports.indirect)) == (MAX_PATHS, MAX_PATHS)


POOLED = seen(True, same_backend=False)
KINDS = ["direct", "relay", "pooler"]


class Server:
    """A server and the path to it, of one kind: what is reported there, and what a check finds."""

    def __init__(self, number, kind, engine_reports):
        self.path = (f"10.0.1.{number}", 5432)
        self.kind = kind
        self.engine_reports = engine_reports
        self.standby = True
        self.remembered = self.standby

    @property
    def report(self):
        if self.kind == "direct":
            return self.standby if self.engine_reports else False
        return False if self.kind == "relay" else self.remembered

    def check(self):
        same = {"same_backend": self.kind != "pooler", "same_port": self.kind == "direct"}
        return RoleCheck(self.standby, (self.report, self.report), **same)


@given(st.data(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.booleans())
def test_what_is_believed_is_true(data, kinds, engine_reports):
    """Whatever was checked in which order, and whether or not the process heard of a failover."""
    servers = [Server(number, kind, engine_reports) for number, kind in enumerate(kinds)]
    reports, now = RoleReports(), 0.0
    for _ in range(data.draw(st.integers(1, 25))):
        now += data.draw(st.sampled_from([0.0, 1.0, PROOF_SECONDS]))
        server = data.draw(st.sampled_from(servers))
        match data.draw(st.sampled_from(["check", "failover", "failover heard of", "dial failed", "pooler restarted"])):
            case "check":
                reports = reports.record_check(server.path, server.check(), now)
            case "dial failed":
                reports = reports.record_dial_failure((server.path[0],))
            case "pooler restarted":
                server.remembered = server.standby
            case failover:
                for each in servers:
                    each.standby = each is not server
                if failover == "failover heard of":
                    reports = reports.record_writer_change()
        for each in servers:
            if reports.believes(each.path, PID, now):
                assert each.report == each.standby
