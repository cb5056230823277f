"""The verdicts while the cluster is set back in time and goes forward again: none is wrong about the branch it is on.

The model of `test_outcome` with a volume below it: everything written is durable, a backtrack keeps the log that it
leaves, and a way forward takes one up. Each new timeline has a number that no branch has used; a way forward leaves
one out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_router.model.commit_token import ServerIncarnation
from aurora_router.policy.outcome import Outcome, judge_log
from tests.policy.test_outcome import Model, wrong

WRITES = ["other commits", "other aborts", "we commit", "we abort", "promote"]


@dataclass
class Rewound(Model):
    """A writer over a volume with branches; a step is an event, or ("back" | "forth", where, which branch)."""

    left_out: int = 1
    kept: list[list[tuple[int, str, str]]] = field(default_factory=list)
    used: int = 1

    def happen(self, event):
        if isinstance(event, str):
            if event == "promote":
                self._open(list(self.writer.log), self.used + 1)
            else:
                super().happen(event)
            return
        direction, where, which = event
        if direction == "back":
            log = self.writer.log
            self.kept.append(list(log))
            self._open(log[: self._point(log, where)], self.used + 1)
        elif self.kept:
            log = self.kept[int(which * (len(self.kept) - 1))]
            self.kept.append(list(self.writer.log))
            self._open(log[: self._point(log, where)], self.used + 1 + self.left_out)

    @staticmethod
    def _point(log, where):
        return max(1, round(where * len(log)))

    def _open(self, log, timeline):
        self.alive = False
        self.used = timeline
        self._begin_incarnation(
            [*log, (0, "end of recovery", "")], ServerIncarnation("s", timeline, self._tick(), len(log)), promoted=True
        )


STEPS = st.one_of(
    st.sampled_from(WRITES),
    st.tuples(st.sampled_from(["back", "forth"]), st.floats(0, 1), st.floats(0, 1)),
)
HISTORIES = st.tuples(st.lists(STEPS, max_size=5), st.lists(STEPS, max_size=10))


def played(history, left_out=1):
    before, after = history
    model = Rewound("no restart in place", left_out=left_out)
    for step in before:
        model.happen(step)
    model.begin()
    for step in after:
        model.happen(step)
    return model


@settings(max_examples=300)
@given(HISTORIES)
def test_no_verdict_is_wrong_about_the_branch(history):
    model = played(history)
    assert not wrong(model, judge_log(model.token, model.evidence()).outcome), history


def test_a_commit_that_was_set_back_is_not_there_and_is_there_again():
    model = played(([], ["we commit", "other commits", ("back", 0.2, 0)]))
    assert judge_log(model.token, model.evidence()).outcome is Outcome.NOT_COMMITTED
    model.happen(("forth", 1, 0))
    assert model.committed
    assert judge_log(model.token, model.evidence()).outcome in {Outcome.COMMITTED, Outcome.UNKNOWN}


def test_a_commit_below_the_point_is_committed():
    model = played(([], ["we commit", "other commits", ("back", 0.8, 0)]))
    assert model.committed
    assert judge_log(model.token, model.evidence()).outcome is Outcome.COMMITTED


OTHERS = ["other commits"] * 4
WHY = ([*OTHERS, ("back", 0.1, 0)], ["we abort", ("forth", 1, 0)])


@pytest.mark.parametrize("left_out", [0, 1])
def test_why_a_way_forward_leaves_a_timeline_out(left_out):
    """Otherwise the branch gone forward to would look like the token's own, and a stranger's xid like ours."""
    model = played(WHY, left_out)
    said = judge_log(model.token, model.evidence()).outcome
    assert wrong(model, said) == (left_out == 0)
