"""The verdicts against a model of logs that are lost, replayed and continued: none is ever wrong.

The model knows what really happened. A log is a list of records; an LSN is how many there are. A crash in place loses
what was not flushed and writes on from there; a standby gets what was flushed; a promotion continues the standby's log
on the next timeline. Each new xid is one above the highest in the log, so that lost ones are given again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from aurora_router.model.commit_token import CommitToken, ServerIncarnation, WitnessTable
from aurora_router.policy import outcome as module
from aurora_router.policy.outcome import (
    OLDEST_SECONDS,
    LogEvidence,
    Outcome,
    WitnessEvidence,
    XactStatus,
    is_unreplicated,
    judge_log,
    judge_witness,
)

WITNESS_TABLE = WitnessTable("7", 1, 3, "app")
WITNESSED = CommitToken(1, 2, 3, 4, witness="an id", witness_table=WITNESS_TABLE)
EVENTS = [
    "other commits", "other aborts", "we commit", "we abort", "flush", "replicate", "crash", "cold restart",
    "clean restart", "promote",
]  # fmt: skip
MARKS = ["flushed", "no restart in place", "neither"]


@dataclass
class Server:
    """One server: its log of (xid, kind, whose), how much of it is flushed, and its incarnation."""

    log: list[tuple[int, str, str]]
    flushed: int
    incarnation: ServerIncarnation
    promoted: bool = False


@dataclass
class Model:
    """A writer and a standby's log; `ours_on` is the incarnation in which our transaction still runs."""

    mark: str
    clock: int = 1
    writer: Server = field(init=False)
    standby: list[tuple[int, str, str]] = field(default_factory=list)
    token: CommitToken | None = None
    alive: bool = False

    def __post_init__(self):
        self.writer = Server([(1, "commit", "other")], 1, ServerIncarnation("s", 1, 0, None))
        self.standby = list(self.writer.log)

    def next_xid(self):
        return max(xid for xid, _, _ in self.writer.log) + 1

    def begin(self):
        xid = self.next_xid()
        self.writer.log.append((xid, "mark", "ours"))
        lsn = len(self.writer.log)
        if self.mark == "flushed":
            self.writer.flushed = lsn
        self.alive = True
        flush_proven = self.mark != "neither"
        self.token = CommitToken(xid, 1, 0, 0, incarnation=self.writer.incarnation, lsn=lsn, flush_proven=flush_proven)

    def happen(self, event):
        getattr(self, "_" + event.replace(" ", "_"))()

    def _other_commits(self):
        xid = self.next_xid()
        self.writer.log += [(xid, "mark", "other"), (xid, "commit", "other")]

    def _other_aborts(self):
        xid = self.next_xid()
        self.writer.log += [(xid, "mark", "other"), (xid, "abort", "other")]

    def _we_commit(self):
        self._we_end("commit")

    def _we_abort(self):
        self._we_end("abort")

    def _we_end(self, kind):
        if self.alive:
            self.writer.log.append((self.token.xid, kind, "ours"))
            self.alive = False

    def _flush(self):
        self.writer.flushed = len(self.writer.log)

    def _replicate(self):
        self.standby = self.writer.log[: self.writer.flushed]

    def _crash(self, *, cold=False):
        if self.mark == "no restart in place":
            return
        self.alive = False
        end = self.writer.flushed
        started = self._tick() if cold else self.writer.incarnation.started
        incarnation = replace(self.writer.incarnation, started=started, recovered=end)
        self._begin_incarnation([*self.writer.log[:end], (0, "checkpoint", "")], incarnation)

    def _cold_restart(self):
        self._crash(cold=True)

    def _clean_restart(self):
        self._we_abort()
        incarnation = replace(self.writer.incarnation, started=self._tick(), recovered=None)
        self._begin_incarnation([*self.writer.log, (0, "checkpoint", "")], incarnation)

    def _promote(self):
        self.alive = False
        incarnation = ServerIncarnation("s", self.writer.incarnation.timeline + 1, self._tick(), len(self.standby))
        self._begin_incarnation([*self.standby, (0, "end of recovery", "")], incarnation, promoted=True)

    def _begin_incarnation(self, log, incarnation, *, promoted=False):
        self.writer = Server(log, len(log), incarnation, promoted)
        self.standby = self.standby if not promoted else list(log)

    def _tick(self):
        self.clock += 1
        return self.clock

    # ------------------------------------------------------------ what is true, and what a resolver sees

    @property
    def committed(self):
        return (self.token.xid, "commit", "ours") in self.writer.log

    def evidence(self):
        return LogEvidence(self.writer.incarnation, self.writer.promoted, self._status())

    def _status(self):
        xid = self.token.xid
        if xid >= self.next_xid():
            return XactStatus.FUTURE
        if any(record[:2] == (xid, "commit") for record in self.writer.log):
            return XactStatus.COMMITTED
        return XactStatus.IN_PROGRESS if self.alive else XactStatus.ABORTED


histories = st.tuples(
    st.sampled_from(MARKS), st.lists(st.sampled_from(EVENTS), max_size=4), st.lists(st.sampled_from(EVENTS), max_size=9)
)


def played(history):
    mark, before, after = history
    model = Model(mark)
    for event in before:
        model.happen(event)
    model.begin()
    for event in after:
        model.happen(event)
    return model


def wrong(model, said):
    if said is Outcome.COMMITTED:
        return not model.committed
    return said is Outcome.NOT_COMMITTED and (model.committed or model.alive)


@settings(max_examples=500)
@given(histories)
def test_no_verdict_is_wrong(history):
    model = played(history)
    assert not wrong(model, judge_log(model.token, model.evidence()).outcome), history


@settings(max_examples=200)
@given(histories)
def test_in_the_life_that_ran_it_there_is_always_a_verdict(history):
    model = played(history)
    if model.writer.incarnation == model.token.incarnation:
        expected = Outcome.IN_PROGRESS if model.alive else Outcome.COMMITTED if model.committed else None
        said = judge_log(model.token, model.evidence()).outcome
        assert said is (expected or Outcome.NOT_COMMITTED)


def naive(token, evidence):
    """``pg_xact_status`` alone."""
    known = {XactStatus.COMMITTED: Outcome.COMMITTED, XactStatus.ABORTED: Outcome.NOT_COMMITTED}
    return known.get(evidence.status, Outcome.UNKNOWN)


def by_postmaster_start(token, evidence):
    """Takes the same start of the postmaster for the same incarnation."""
    if (
        evidence.incarnation.started == token.incarnation.started
        and evidence.incarnation.timeline == token.incarnation.timeline
    ):
        return naive(token, evidence)
    return judge_log(token, evidence).outcome


def without_held(token, evidence):
    return judge_log(replace(token, flush_proven=True), evidence).outcome


def without_promoted(token, evidence):
    return judge_log(token, replace(evidence, promoted=True)).outcome


def any_timeline(token, evidence):
    """Takes any number of promotions for one."""
    timeline = token.incarnation.timeline + (evidence.incarnation.timeline > token.incarnation.timeline)
    return judge_log(token, replace(evidence, incarnation=replace(evidence.incarnation, timeline=timeline))).outcome


WRONG = [
    (naive, ("flushed", [], ["promote", "other commits"])),
    (by_postmaster_start, ("neither", [], ["crash", "other commits"])),
    (without_held, ("neither", [], ["crash", "replicate", "promote", "other commits"])),
    (without_promoted, ("flushed", [], ["promote", "crash", "other commits"])),
    (any_timeline, ("flushed", [], ["promote", "promote", "other commits"])),
]
"""Judges that leave one condition out, each with the shortest history that makes it wrong."""


@pytest.mark.parametrize(("judge", "history"), WRONG)
def test_each_condition_is_needed(judge, history):
    """With one of them left out there is a wrong verdict: the tests above can fail."""
    model = played(history)
    assert wrong(model, judge(model.token, model.evidence()))
    assert not wrong(model, judge_log(model.token, model.evidence()).outcome)


@pytest.mark.slow
@pytest.mark.parametrize("judge", [judge for judge, _ in WRONG])
def test_the_search_finds_what_each_condition_is_needed_for(judge):
    """The strategy of the tests above reaches such histories by itself."""
    try:
        find(
            histories,
            lambda each: wrong(model := played(each), judge(model.token, model.evidence())),
            settings=settings(max_examples=60000, deadline=None, database=None, phases=[Phase.generate]),
        )
    except NoSuchExample:
        pytest.fail(f"{judge.__name__} was never wrong")


# ---------------------------------------------------------------- single cases

INCARNATION = ServerIncarnation("s", 1, 10, None)
TOKEN = CommitToken(700, 1, 0, 10, incarnation=INCARNATION, lsn=500, flush_proven=True)


def test_another_system_is_unknown():
    evidence = LogEvidence(replace(INCARNATION, system="t"), promoted=False, status=XactStatus.COMMITTED)
    assert judge_log(TOKEN, evidence).outcome is Outcome.UNKNOWN


def test_a_token_of_the_witness_has_no_log_position():
    evidence = LogEvidence(INCARNATION, promoted=False, status=XactStatus.COMMITTED)
    assert judge_log(CommitToken(700, 1, 0, 10, witness="x"), evidence).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("status", list(XactStatus))
def test_a_log_that_ends_before_the_mark_lost_it_whatever_the_xid_says(status):
    evidence = LogEvidence(ServerIncarnation("s", 2, 20, 499), promoted=True, status=status)
    assert judge_log(TOKEN, evidence).outcome is Outcome.NOT_COMMITTED


def test_a_log_that_ends_with_the_mark_holds_it():
    evidence = LogEvidence(ServerIncarnation("s", 2, 20, 500), promoted=True, status=XactStatus.COMMITTED)
    assert judge_log(TOKEN, evidence).outcome is Outcome.COMMITTED


@pytest.mark.parametrize(
    ("incarnation", "promoted", "flush_proven", "reason"),
    [
        (ServerIncarnation("s", 2, 20, None), False, True, "restarted since"),
        (ServerIncarnation("s", 2, 20, 600), False, True, "restarted since"),
        (ServerIncarnation("s", 3, 20, 600), True, True, "not one promotion away: timeline 1 then, 3 now"),
        (ServerIncarnation("s", 1, 20, 600), True, True, "not one promotion away"),
        (ServerIncarnation("s", 2, 20, 600), True, False, "restart in place"),
    ],
)
def test_doubts_are_named(incarnation, promoted, flush_proven, reason):
    finding = judge_log(
        replace(TOKEN, flush_proven=flush_proven), LogEvidence(incarnation, promoted, XactStatus.COMMITTED)
    )
    assert finding.outcome is Outcome.UNKNOWN
    assert reason in finding.reason


@pytest.mark.parametrize("status", [XactStatus.FORGOTTEN, XactStatus.FUTURE])
def test_what_the_server_that_ran_it_does_not_know(status):
    assert judge_log(TOKEN, LogEvidence(INCARNATION, promoted=False, status=status)).outcome is Outcome.UNKNOWN


@given(st.booleans(), st.floats(-OLDEST_SECONDS, OLDEST_SECONDS))
def test_a_witness_says_it(void, age):
    said = judge_witness(WITNESSED, WitnessEvidence(void, age, WITNESS_TABLE)).outcome
    assert said is (Outcome.NOT_COMMITTED if void else Outcome.COMMITTED)


places = st.builds(
    WitnessTable, st.sampled_from([None, "7", "8"]), st.sampled_from([1, 2]), st.sampled_from([3, 4]), st.text()
)


@given(st.none() | places, places, st.booleans())
def test_a_table_that_is_not_the_one_of_the_token_proves_nothing(written, asked, void):
    finding = judge_witness(replace(WITNESSED, witness_table=written), WitnessEvidence(void, 1.0, asked))
    if (
        written is not None
        and (written.system is None or written.system == asked.system)
        and ((written.database, written.table) == (asked.database, asked.table))
    ):
        assert finding.outcome is (Outcome.NOT_COMMITTED if void else Outcome.COMMITTED)
    elif written is None and not void:
        assert finding.outcome is Outcome.COMMITTED, "no other client knew the id"
    else:
        assert finding.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (WitnessTable("8", 1, 3), "another cluster"),
        (WitnessTable("7", 2, 3, "app2"), r"in the database app, .*\(app2\)"),
        (WitnessTable("7", 1, 4), "installed again"),
    ],
)
def test_where_it_was_asked_instead_is_named(asked, reason):
    assert re.search(reason, judge_witness(WITNESSED, WitnessEvidence(True, 1.0, asked)).reason)


@given(st.booleans(), st.floats(OLDEST_SECONDS, 1e9, exclude_min=True), st.sampled_from([1, -1]))
def test_an_old_witness_says_nothing(void, age, sign):
    assert judge_witness(WITNESSED, WitnessEvidence(void, sign * age, WITNESS_TABLE)).outcome is Outcome.UNKNOWN


def test_rows_are_kept_twice_as_long_as_they_are_asked_for():
    assert module.KEPT_SECONDS >= 24 * 3600
    assert OLDEST_SECONDS * 2 <= module.KEPT_SECONDS


@pytest.mark.parametrize(
    ("function", "message", "expected"),
    [
        ("SyncRepWaitForLSN", "egal was", True),
        (None, "canceling wait for synchronous replication due to user request", True),
        ("exec_stmt_raise", "canceling my subscription", False),
        (None, None, False),
    ],
)
def test_the_warning_of_a_wait_that_was_cut_short(function, message, expected):
    assert is_unreplicated(function, message) is expected
