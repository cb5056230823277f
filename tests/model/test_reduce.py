"""What holds of `reduce` whatever is observed, in whatever order.

Invariants: `epoch` never decreases, and grows by one exactly when another writer is accepted; the generation of an id
never decreases, also when it leaves and comes back; there is one instance in the writer's role at most, the accepted
one; a refused claim changes neither writer nor epoch; the same observation twice gives the same view, and the second
time no change of writer; a failure of an older generation is no news; a view that was given out never changes.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.event import ClaimRefused, WriterChanged, WriterLost
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import Failure, Row, SelfReport, Topology
from aurora_router.model.reduce import _claimed, reduce
from aurora_router.model.view import View

IDS = st.sampled_from(["a", "b", "c", "d"])
ROWS = st.builds(
    Row,
    id=IDS,
    writer=st.booleans(),
    age=st.none() | st.sampled_from([0.0, 0.1, 5.0, 300.0, 301.0]),
    lag=st.none() | st.just(0.02),
    token=st.none() | st.integers(0, 4),
)
TOPOLOGIES = st.builds(
    Topology,
    rows=st.lists(ROWS, max_size=4, unique_by=lambda row: row.id).map(tuple),
    observer=st.none() | IDS,
    observer_is_writer=st.none() | st.booleans(),
    complete=st.booleans(),
)
FAILURES = st.builds(Failure, id=IDS, generation=st.integers(0, 3), gone=st.booleans(), reason=st.just("refused"))
OBSERVATIONS = TOPOLOGIES | st.builds(SelfReport, id=IDS, writer=st.booleans()) | FAILURES
HISTORIES = st.lists(OBSERVATIONS, max_size=12)


def after(history):
    view = View()
    for time, observation in enumerate(history):
        view, _ = reduce(view, observation, float(time))
    return view


def generation(view, id_):
    known = view.instances.get(id_)
    return known.generation if known is not None else view.retired.get(id_, -1)


@given(HISTORIES, OBSERVATIONS)
def test_epoch_and_generations_never_decrease(history, observation):
    before = after(history)
    view, _ = reduce(before, observation, 100.0)
    assert view.epoch >= before.epoch
    for id_ in "abcd":
        assert generation(view, id_) >= generation(before, id_)


@given(HISTORIES, OBSERVATIONS)
def test_the_writer_changes_only_with_the_epoch(history, observation):
    before = after(history)
    view, events = reduce(before, observation, 100.0)
    changes = [event for event in events if isinstance(event, WriterChanged)]
    assert view.epoch - before.epoch == len(changes) <= 1
    if changes:
        assert (changes[0].old, changes[0].new, changes[0].epoch) == (before.writer, view.writer, view.epoch)
    elif view.writer != before.writer:
        assert view.writer is None
        assert any(isinstance(event, WriterLost) for event in events)


@given(HISTORIES)
def test_the_accepted_writer_alone_has_the_role(history):
    view = after(history)
    writers = [id_ for id_, each in view.instances.items() if each.role is Role.WRITER]
    assert writers in ([], [view.writer])
    if view.writer in view.instances:
        assert writers == [view.writer]
    assert view.writer not in view.former


@given(HISTORIES, OBSERVATIONS)
def test_a_refused_claim_changes_neither_writer_nor_epoch(history, observation):
    before = after(history)
    view, events = reduce(before, observation, 100.0)
    for event in events:
        if isinstance(event, ClaimRefused):
            assert view.epoch == before.epoch
            assert view.writer != event.claimed
            assert view.writer in {before.writer, None}


@given(HISTORIES, OBSERVATIONS.filter(lambda each: not isinstance(each, Failure)))
def test_the_same_observation_twice_gives_the_same_view(history, observation):
    once, _ = reduce(after(history), observation, 100.0)
    twice, events = reduce(once, observation, 100.0)
    assert twice == once
    assert not any(isinstance(event, (WriterChanged, WriterLost)) for event in events)


@given(HISTORIES, FAILURES)
def test_the_same_failure_twice_counts_once(history, failure):
    once, _ = reduce(after(history), failure, 100.0)
    twice, _ = reduce(once, failure, 100.0)
    assert twice is once


@given(HISTORIES, OBSERVATIONS)
def test_a_view_never_changes(history, observation):
    view = after(history)
    told = repr(view)
    reduce(view, observation, 100.0)
    assert repr(view) == told


@given(HISTORIES, OBSERVATIONS)
def test_a_connection_is_stale_as_soon_as_the_role_is_another(history, observation):
    before = after(history)
    view, _ = reduce(before, observation, 100.0)
    for id_, each in before.instances.items():
        now = view.instances.get(id_)
        if now is None or (now.role is not each.role and each.role is not Role.UNKNOWN):
            assert not view.is_current(id_, each.generation)


def test_a_role_learned_first_makes_nothing_stale():
    view = View({"a": Instance("a", host="h")})
    told = Topology((Row("a", writer=True, token=1),), "a", observer_is_writer=True, complete=False)
    view, _ = reduce(view, told, 1.0)
    assert view.is_current("a", 0)
    assert view.instances["a"].role is Role.WRITER


def test_a_role_learned_from_a_word_makes_nothing_stale():
    view = View({"a": Instance("a"), "b": Instance("b")}, refreshed_at=0.0)
    view, events = reduce(view, SelfReport("a", writer=False), 1.0)
    assert view.instances["a"].role is Role.READER
    assert view.is_current("a", 0)
    assert len(events) == 1


def test_a_writer_that_is_not_told_of_is_still_the_writer():
    told = Topology((Row("a", writer=True, token=1), Row("b")), "a", observer_is_writer=True)
    view, _ = reduce(View(), told, 1.0)
    view = replace(view, instances={"a": replace(view.instances["a"], role=Role.READER), "b": view.instances["b"]})
    view, _ = reduce(view, Topology((Row("b"),), "b", observer_is_writer=False, complete=False), 2.0)
    assert view.instances["a"].role is Role.WRITER


@given(st.lists(OBSERVATIONS, min_size=3, max_size=25))
def test_a_former_writer_on_lower_evidence_is_named_by_all_others(history):
    view = View()
    named = {}
    for time, observation in enumerate(history):
        before = view
        view, events = reduce(view, observation, float(time))
        if isinstance(observation, Topology) and observation.observer is not None:
            word = observation.observer_is_writer
            rows = [row for row in observation.rows if row.writer or row.age is None or row.age <= 300]
            named[observation.observer] = _claimed(rows, observation) if word is False else None
        elif isinstance(observation, SelfReport) and observation.writer:
            named.pop(observation.id, None)
        for event in events:
            if isinstance(event, WriterChanged) and event.new in before.former and isinstance(observation, Topology):
                token = next((row.token for row in observation.rows if row.id == event.new), None)
                if None not in (token, before.token) and token < before.token:
                    assert all(named.get(id_) == event.new for id_ in before.instances if id_ != event.new)


def test_the_rule_about_witnesses_is_reached():
    rows = {name: tuple(Row(id_, writer=id_ == name, token=40) for id_ in "ab") for name in "ab"}
    first = [Topology((Row("a", writer=True, token=100), Row("b")), "a", observer_is_writer=True)]
    second = [*first, Topology((Row("b", writer=True, token=116), Row("a")), "b", observer_is_writer=True)]
    third = [*second, Topology(rows["a"], "b", observer_is_writer=False)]
    claim = Topology(rows["a"], "a", observer_is_writer=True)
    assert after([*second, claim]).writer == "b"
    assert after(third).writer is None
    assert after([*third, claim]).writer == "a"
