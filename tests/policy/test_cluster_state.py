"""The transitions of all that is known of a cluster."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.event import (
    ConfigurationAdvice,
    InstanceRecovered,
    WriterConfirmed,
    WriteRefused,
    WriterSuspected,
)
from aurora_router.model.observation import Failure, Row, SelfReport, Topology
from aurora_router.policy.cluster_state import TRAIL, ClusterState
from aurora_router.policy.paths import Known
from aurora_router.policy.role_reports import RoleCheck
from aurora_router.policy.slow_start import SlowStart

IDS = ("demo-1", "demo-2", "demo-3")
PATH = ("10.0.0.1", 5432)


def topology(writer, token=None, malformed=()):
    rows = tuple(Row(id_, writer=id_ == writer, token=token) for id_ in IDS)
    return Topology(rows, writer, observer_is_writer=True, malformed=malformed)


def known(writer="demo-1", now=0.0):
    return ClusterState().observe(topology(writer, 1), now)[0]


ids = st.sampled_from(IDS)
TRANSITIONS = st.one_of(
    st.builds(lambda id_, token: ("observe", topology(id_, token)), ids, st.integers(1, 5)),
    st.builds(lambda id_, gone: ("observe", Failure(id_, 0, gone=gone, reason="refused")), ids, st.booleans()),
    st.builds(lambda id_, writer: ("observe", SelfReport(id_, writer=writer, asked_at=0.0)), ids, st.booleans()),
    st.builds(
        lambda standby: ("record_role_check", PATH, RoleCheck(standby, (standby, standby), True, True)), st.booleans()
    ),
    st.just(("record_dial_failure", ["10.0.0.1"])),
    st.just(("suspect_writer", "a dial failed")),
    st.builds(lambda asked_at: ("confirm_writer", asked_at), st.floats(0, 100)),
    st.just(("end_suspicion",)),
    st.builds(lambda id_: ("record_success", id_), ids),
    st.builds(lambda id_: ("record_failure", id_), ids),
    st.builds(lambda key: ("advise", key, "text"), st.sampled_from("ab")),
)


def do(state, transition, now):
    name, *args = transition
    if name == "record_failure":
        return state.record_failure(*args, now, 5.0, now)
    timeless = name in {"record_dial_failure", "end_suspicion"}
    return getattr(state, name)(*args, *([] if timeless else [now]))


@given(st.lists(TRANSITIONS, max_size=40))
def test_each_transition_keeps_the_invariants(transitions):
    state = ClusterState()
    for now, transition in enumerate(transitions):
        after, events = do(state, transition, float(now))
        assert tuple(each for _, each in after.trail[len(after.trail) - len(events) :]) == events
        assert len(after.trail) <= TRAIL
        assert not events or after is not state, "an event describes a change"
        assert after.is_news(state) is (after.view is not state.view or after.suspicion.since != state.suspicion.since)
        assert after.view.writer == state.view.writer or not after.role_reports.direct
        confirmed = [each for each in events if isinstance(each, WriterConfirmed)]
        assert not confirmed or (state.suspicion.since is not None and after.suspicion.since is None)
        state = after


def test_a_new_writer_has_every_path_checked_again():
    state, _ = known().record_role_check(PATH, RoleCheck(True, (True, True), same_backend=True, same_port=True), 1.0)
    assert PATH in state.role_reports.direct
    state, _ = state.observe(topology("demo-2", 2), 2.0)
    assert not state.role_reports.direct


def test_malformed_rows_are_advised_on_once():
    state, events = ClusterState().observe(topology("demo-1", 1, malformed=("x y",)), 0.0)
    assert any(isinstance(each, ConfigurationAdvice) for each in events)
    _, events = state.observe(topology("demo-1", 1, malformed=("x y",)), 1.0)
    assert not any(isinstance(each, ConfigurationAdvice) for each in events)


def test_a_suspicion_ends_by_a_later_answer_of_the_writer_alone():
    state, events = known().suspect_writer("a dial failed", 5.0)
    assert events == (WriterSuspected("a dial failed"),)
    assert state.suspect_writer("another one failed", 6.0) == (state, ())
    assert state.confirm_writer(4.0, 7.0) == (state, ())
    after, events = state.confirm_writer(5.5, 7.0)
    assert events == (WriterConfirmed("demo-1", 2.0),)
    assert after.suspicion.since is None
    assert after.is_news(state)


def test_without_an_accepted_writer_nothing_confirms_a_suspicion():
    state, _ = ClusterState().suspect_writer("a dial failed", 5.0)
    assert state.confirm_writer(6.0, 7.0) == (state, ())


def test_a_refused_write_is_a_hint_only_on_a_current_connection_to_the_writer():
    state = known()
    generation = state.view.instances["demo-1"].generation
    assert state.record_refused_write("demo-2", 0, 5.0, is_monitored=False) == (state, ())
    assert state.record_refused_write("demo-1", generation + 1, 5.0, is_monitored=False) == (state, ())
    after, events = state.record_refused_write("demo-1", generation, 5.0, is_monitored=False)
    assert events == (WriteRefused("demo-1"),)
    assert after.demand.overdue, "the next connect has to look"
    assert not after.begin_refresh()[0].demand.overdue
    assert after.record_refused_write("demo-1", generation, 5.5, is_monitored=False) == (after, ())
    monitored, _ = state.record_refused_write("demo-1", generation, 5.0, is_monitored=True)
    assert not monitored.demand.overdue


def test_an_instance_recovers_once():
    state, _ = known().observe(Failure("demo-2", 0, gone=False, reason="refused"), 1.0)
    state, _ = state.record_failure("demo-2", 1.0, 5.0, 1.0)
    state, events = state.record_success("demo-2", 4.0)
    assert events == (InstanceRecovered("demo-2", 3.0),)
    assert state.health.quarantine.remaining("demo-2", 4.0) == 0.0
    assert state.record_success("demo-2", 5.0) == (state, ())


def test_what_is_learned_of_addresses_and_paths_is_kept():
    state, _ = ClusterState().record_address("10.0.0.1:5432", "demo-1")
    state, _ = state.record_address("10.0.0.1:5432", "demo-2")
    state, _ = state.record_path(PATH, Known(True, 9.0))
    assert state.by_address == {"10.0.0.1:5432": "demo-2"}
    assert state.paths == {PATH: Known(True, 9.0)}


def test_a_slow_start_is_of_one_epoch():
    state = known()
    limit = state.dial_limit
    assert not limit.is_due(1)
    assert limit.add_dial() is limit, "nothing is counted without a slow start"
    limit = limit.begin(2, SlowStart.begin(0.0, 0.0)).add_dial()
    assert limit.slow_start.under_way == 1
    assert limit.end_dial(1, lambda _: 1 / 0) is limit, "a dial of a former writer"
    assert limit.record_probe(1, 0.0, 0.0) is limit
    assert limit.end(SlowStart()) is limit, "it has changed meanwhile"
    assert limit.end(limit.slow_start).slow_start is None
    following = limit.end_dial(2, SlowStart.remove_dial)
    assert following.slow_start.under_way == 0
    wide = SlowStart(width=64)
    assert limit.end_dial(2, lambda _: wide).slow_start is None, "it is over"
