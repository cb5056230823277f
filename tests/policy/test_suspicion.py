"""Whether the writer is suspected."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.suspicion import REFUSED_WRITE_SECONDS, WriterSuspicion

times = st.floats(0, 1e6)


def test_the_first_reason_counts():
    suspicion = WriterSuspicion().begin("a dial failed", 1.0)
    assert suspicion.begin("a connection broke", 2.0) is suspicion
    assert (suspicion.since, suspicion.reason) == (1.0, "a dial failed")
    assert suspicion.end() == WriterSuspicion()


@given(times, times)
def test_only_an_answer_to_a_later_question_ends_it(since, asked_at):
    assert WriterSuspicion().begin("why", since).is_answered(asked_at) is (asked_at >= since)
    assert not WriterSuspicion().is_answered(asked_at)


@given(st.lists(times, max_size=50).map(sorted))
def test_refused_writes_start_one_check_per_second(moments):
    suspicion, checks = WriterSuspicion(), []
    for now in moments:
        after = suspicion.record_refused_write(now)
        checks += [now] if after is not suspicion else []
        suspicion = after
    assert moments[:1] == checks[:1]
    assert all(later - earlier >= REFUSED_WRITE_SECONDS for earlier, later in pairwise(checks))
