"""What holds of `reduce` whatever is observed, in whatever order.

Arbitrary observations here; honest ones of clusters in which things fail in `test_reduce_histories.py`.

Invariants: `epoch` never decreases, and grows by one exactly when another writer is accepted; the generation of an id
never decreases, also when it leaves and comes back; there is one instance in the writer's role at most, the accepted
one; a refused claim changes neither writer nor epoch; the same observation twice gives the same view, and the second
time no change of writer; a failure of an older generation is no news; a view that was given out never changes; an
answer that is not complete removes nothing, and changes no role but the observer's; a timeline never decreases.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.description import Attributes, CustomEndpoint, Description
from aurora_router.model.event import ClaimRefused, InstanceRemoved, RoleChanged, WriterChanged, WriterLost
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import (
    MISSING_SECONDS,
    STALE_ROW_SECONDS,
    Failure,
    GivenHosts,
    Row,
    SelfReport,
    Topology,
)
from aurora_router.model.reduce import reduce
from aurora_router.model.view import Outage, View

IDS = st.sampled_from(["a", "b", "c", "d"])
ROWS = st.builds(
    Row,
    id=IDS,
    writer=st.booleans(),
    age=st.none() | st.sampled_from([0.0, 0.1, 5.0, 300.0, 301.0]),
    lag=st.none() | st.just(0.02),
    token=st.none() | st.integers(0, 4),
    updated=st.none() | st.sampled_from([0.0, 1.0]),
)
TOPOLOGIES = st.builds(
    Topology,
    rows=st.lists(ROWS, max_size=5).map(tuple),
    observer=st.none() | IDS,
    observer_is_writer=st.none() | st.booleans(),
    complete=st.booleans(),
    malformed=st.sampled_from([(), (), ("NULL",)]),
    asked_at=st.none() | st.sampled_from([0.0, 3.5, 99.0]),
    by_id=st.booleans(),
)
FAILURES = st.builds(
    Failure,
    id=IDS,
    generation=st.integers(0, 3),
    gone=st.booleans(),
    reason=st.just("refused"),
    alive=st.booleans(),
)
DESCRIPTIONS = st.builds(
    Description,
    instances=st.dictionaries(IDS, st.builds(Attributes, zone=st.none() | st.just("eu-west-1a")), max_size=3),
    endpoints=st.none() | st.just({"olap": CustomEndpoint()}),
)
OBSERVATIONS = TOPOLOGIES | st.builds(SelfReport, id=IDS, writer=st.booleans()) | FAILURES | DESCRIPTIONS
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


def complete(observation):
    """Whether an answer is complete: readable, the observer's own row, one writer's."""
    ids = {row.id for row in observation.rows}
    return observation.complete and not observation.malformed and observation.observer in ids


@given(HISTORIES, TOPOLOGIES)
def test_an_incomplete_answer_removes_nothing_and_changes_no_role_but_the_observers(history, observation):
    before = after(history)
    _, events = reduce(before, observation, 100.0)
    writers = {row.id for row in observation.rows if row.writer}
    if not before.writer or (complete(observation) and len(writers) == 1):
        return
    own = observation.observer if observation.observer_is_writer is not None else None
    assert not any(isinstance(event, InstanceRemoved) for event in events)
    accepted = any(isinstance(event, WriterChanged) for event in events)
    for event in events:
        if isinstance(event, WriterChanged):
            assert event.new == own
        if isinstance(event, WriterLost):
            assert event.id == own
        if isinstance(event, RoleChanged) and event.old is not Role.UNKNOWN:
            assert event.id == own or (accepted and event.id == before.writer)


@given(st.lists(TOPOLOGIES.map(lambda each: replace(each, monotone=True)) | FAILURES, max_size=12))
def test_an_accepted_timeline_never_decreases(history):
    view, top = View(), None
    for time, observation in enumerate(history):
        view, _ = reduce(view, observation, float(time))
        assert top is None or view.token >= top
        top = view.token


SYSTEMS = st.builds(
    lambda id_, writer, token, system: Topology(
        (Row(id_, writer=writer, token=token, system=system),), id_, writer, complete=False, monotone=True
    ),
    IDS,
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from(["1", "2"]),
)


@given(st.lists(SYSTEMS | FAILURES, max_size=12))
def test_another_system_is_accepted_in_an_outage_alone_or_in_the_same_place(history):
    view = View()
    for time, observation in enumerate(history):
        before = view
        view, _ = reduce(before, observation, float(time))
        if before.system is not None and view.system != before.system:
            assert before.outage is not None or view.writer == before.writer
        if view.system == before.system:
            assert before.token is None or view.token >= before.token


def test_two_rows_of_one_instance_are_one():
    told = (Row("a", writer=True, token=1), Row("b", writer=True, token=9, updated=1.0), Row("b", updated=2.0))
    view, _ = reduce(View(), Topology(told, "a", observer_is_writer=False), 1.0)
    assert view.writer is None
    view, _ = reduce(View(), Topology(told[::-1], "a", observer_is_writer=True), 1.0)
    assert (view.writer, list(view.instances)) == ("a", ["a", "b"])


def answered(view, time, **ages):
    """The view after the writer's complete answer, in which others have these (age, updated)."""
    rows = [Row("a", writer=True, token=int(time))]
    rows += [Row(id_, age=age, updated=updated) for id_, (age, updated) in ages.items()]
    return reduce(view, Topology(tuple(rows), "a", observer_is_writer=True), time)[0]


def test_a_clock_that_is_wrong_by_an_hour_hides_no_instance_that_updates_its_row():
    view = View()
    for time in range(1, 1000, 30):
        view = answered(view, float(time), b=(3600.0, float(time)), c=(0.5, float(time)))
    assert list(view.instances) == ["a", "b", "c"]


@given(
    st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 50.0), st.floats(-100.0, 100.0)), min_size=1),
    st.floats(-1e6, 1e6),
)
def test_a_figure_of_an_instance_whose_clock_was_seen_is_no_younger_than_it_is(answers, wrong):
    """Whatever the clocks of those that report it; each answer is (seconds after the last, age of its rows, skew)."""
    view = lagging(View(), 0.0, 0.0, 0.0, wrong)
    time = 0.0
    for pause, age, skew in answers:
        time += pause
        view = lagging(view, time, age, skew, wrong)
        most = view.instances["b"].lag_at_most(time)
        assert most is not None
        assert most >= 0.5 + age - 1e-6


def lagging(view, time, age, skew, wrong):
    """The view after an answer of the writer that has known for `age` seconds that b lags by half a second."""
    b = Row("b", age=max(0.0, age + skew), updated=time - age + wrong, lag=0.5, lag_at=time - max(0.0, age + skew))
    told = Topology((Row("a", writer=True), b), "a", observer_is_writer=True, asked_at=time)
    return reduce(view, told, time)[0]


def test_a_row_that_is_left_over_counts_for_nothing():
    view = View()
    for time in range(1, 400, 30):
        view = answered(view, float(time), b=(0.5 + time, 0.0), c=(500.0 + time, -500.0))
        assert "c" not in view.instances
        assert ("b" in view.instances) is (time <= 1 + STALE_ROW_SECONDS + 30 + MISSING_SECONDS)


def test_an_instance_is_asked_again_that_names_another_one_than_a_refused_claimant():
    named = {"b": "b", "c": "a", "d": None, "e": "b"}
    view = View(outage=Outage("a", 1.0, "refused", named=frozenset(named.items())))
    assert [each for each in "abcdef" if view.lacks_report(each)] == ["a", "c", "d", "f"]
    assert not View(outage=Outage("a", 1.0, "refused", named=frozenset({("c", "a")}))).lacks_report("c"), "none claims"
    assert not View().lacks_report("c")


def test_given_hosts_are_the_instances_until_there_is_evidence():
    given, events = reduce(View(), GivenHosts((("b:5432", "b", 5432), ("a:5432", "a", 5432))), 1.0)
    assert not given.known
    assert not events
    assert [(each.id, each.host, each.port, each.role) for each in given.instances.values()] == [
        ("b:5432", "b", 5432, Role.UNKNOWN),
        ("a:5432", "a", 5432, Role.UNKNOWN),
    ], "in the order in which they are given"
    assert reduce(given, GivenHosts((("c:5432", "c", 5432),)), 2.0) == (given, ())


def test_what_others_said_of_an_instance_before_it_said_that_it_is_a_reader_counts_no_more():
    """Behind a pooler they are not asked again: a writer that came back once more was refused for minutes."""
    instances = {
        id_: Instance(id_, Role.READER, heard_at=at) for id_, at in (("a", 1.0), ("b", 1.0), ("c", 3.0), ("d", 9.0))
    }
    named = frozenset({("a", "b"), ("c", "b"), ("d", "b")})
    view = View(instances=instances, epoch=3, token=5, outage=Outage("a", 2.0, "it is a reader", named=named))
    rows = (Row("b", token=3), Row("c", writer=True, token=4))
    seen = Topology(rows, "b", observer_is_writer=False, asked_at=4.0)
    after, _ = reduce(view, seen, 4.1)
    assert after.outage is not None
    assert dict(after.outage.named) == {"b": "c", "d": "b"}, "d was asked later than b"
