from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.causal_token import CausalToken, DurablePosition, LogPosition, WitnessRow
from aurora_router.model.commit_token import WitnessTable
from aurora_router.policy.causal import (
    MOST_ASKED,
    DurableEvidence,
    LogEvidence,
    Standing,
    Step,
    WitnessEvidence,
    choose_step,
    judge,
    refuse_kind,
)
from aurora_router.policy.options import CausalMethod

ID = "00000000-0000-4000-8000-000000000001"
TABLE = WitnessTable("7", 5, 6)


def standing(proof, evidence):
    return judge(CausalToken(proof), evidence).standing


def on(timeline, lsn, *, standby=True, system="7", receiving=True):
    return LogEvidence(system, standby, lsn, receiving, timeline)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (on(3, 100), Standing.PROVEN),
        (on(3, 101), Standing.PROVEN),
        (on(3, 99), Standing.BEHIND),
        (on(2, 200), Standing.BEHIND),  # it follows a former writer, and may follow ours later
        (on(4, 200), Standing.UNPROVABLE),  # which may have left our timeline before our position
        (on(None, 200), Standing.UNPROVABLE),
        (on(3, None), Standing.BEHIND),
        (on(None, 200, receiving=False), Standing.BEHIND),
        (on(3, 200, system="8"), Standing.FOREIGN),
        (on(3, 100, standby=False), Standing.PROVEN),
        (on(3, 99, standby=False), Standing.BEYOND),
        (on(2, 200, standby=False), Standing.REPLACED),
        (on(4, 50, standby=False), Standing.UNPROVABLE),
    ],
)
def test_the_log_position(evidence, expected):
    assert standing(LogPosition("7", 3, 100), evidence) is expected


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (WitnessEvidence(is_standby=True, is_there=True, table=TABLE), Standing.PROVEN),
        (WitnessEvidence(is_standby=True, is_there=False, table=TABLE), Standing.BEHIND),
        (WitnessEvidence(is_standby=False, is_there=False, table=TABLE), Standing.UNPROVABLE),
        (WitnessEvidence(is_standby=True, is_there=False, table=WitnessTable("8", 5, 6)), Standing.FOREIGN),
        (WitnessEvidence(is_standby=True, is_there=False, table=WitnessTable("7", 9, 6)), Standing.FOREIGN),
        (WitnessEvidence(is_standby=True, is_there=False, table=WitnessTable(None, 5, 6)), Standing.BEHIND),
        (WitnessEvidence(is_standby=True, is_there=False, table=WitnessTable(None, 5, 9)), Standing.FOREIGN),
    ],
)
def test_the_witness_row(evidence, expected):
    assert standing(WitnessRow(ID, TABLE), evidence) is expected


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (DurableEvidence("7", is_standby=True, lsn=100), Standing.PROVEN),
        (DurableEvidence(None, is_standby=True, lsn=100), Standing.PROVEN),
        (DurableEvidence("7", is_standby=True, lsn=99), Standing.BEHIND),
        (DurableEvidence("7", is_standby=False, lsn=99), Standing.BEYOND),
        (DurableEvidence("7", is_standby=True, lsn=None), Standing.UNPROVABLE),
        (DurableEvidence("8", is_standby=True, lsn=200), Standing.FOREIGN),
    ],
)
def test_the_durable_lsn(evidence, expected):
    assert standing(DurablePosition("7", 100), evidence) is expected


def test_evidence_for_another_kind_of_proof_proves_nothing():
    with pytest.raises(TypeError, match="no evidence"):
        standing(LogPosition("7", 3, 100), DurableEvidence("7", is_standby=True, lsn=200))


def test_the_assumption_about_aurora_has_to_be_accepted():
    token = CausalToken(DurablePosition("7", 1))
    assert refuse_kind(token, CausalMethod.DURABLE_LSN) is None
    assert "aurora_causal=durable_lsn" in refuse_kind(token, CausalMethod.AUTO)
    assert refuse_kind(CausalToken(LogPosition("7", 1, 1)), CausalMethod.WITNESS) is None


# ---------------------------------------------------------------- soundness, on every tree of timelines


@st.composite
def histories(draw):
    """A tree of timelines: number -> (the timeline that it left, where). The first has no parent."""
    tree = {1: (0, 0)}
    for number in range(2, draw(st.integers(2, 6)) + 1):
        parent = draw(st.integers(1, number - 1))
        begins = tree[parent][1]
        tree[number] = (parent, draw(st.integers(begins, begins + 20)))
    return tree


def timeline_at(tree, target, position):
    """On which timeline the log at a position was written, in the history of a target timeline."""
    while target != 1 and position < tree[target][1]:
        target = tree[target][0]
    return target


@given(st.data(), histories())
def test_a_proven_reader_has_replayed_the_commit(data, tree):
    """A commit record ends at `commit` on a timeline; a reader of any branch has replayed up to any position.

    The server receives what its target's history has at the position that it wants next, or an earlier timeline of it.
    """
    made_on = data.draw(st.sampled_from(sorted(tree)))
    commit = data.draw(st.integers(tree[made_on][1] + 1, tree[made_on][1] + 30))
    target = data.draw(st.sampled_from(sorted(tree)))
    replayed = data.draw(st.integers(0, 60))
    received = timeline_at(tree, target, data.draw(st.integers(replayed, 70)))
    has_commit = replayed >= commit and timeline_at(tree, target, commit - 1) == made_on
    found = standing(LogPosition("7", made_on, commit), on(received, replayed))
    if found is Standing.PROVEN:
        assert has_commit


# ---------------------------------------------------------------- what to do


@given(
    st.lists(st.sampled_from([each for each in Standing if each is not Standing.PROVEN]), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_steps(standings, others, verified, over):
    step = choose_step(standings, others=others, is_verified=verified, is_time_over=over)
    if step in {Step.WAIT, Step.VERIFY}:
        assert Standing.BEHIND in standings, "only a reader that is behind is worth waiting for"
        assert not over
        assert (step is Step.WAIT) is verified, "an untrusted token is compared with the writer before any wait"
    if step is Step.ASK_ANOTHER:
        assert others
        assert len(standings) < MOST_ASKED
    if over or Standing.BEHIND not in standings:
        assert step is Step.WRITER
