"""When an instance is taken for hung.

The invariants are driven through whole histories: samples, answers, silences, starvation, in any order.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.hang_detection import (
    REST_SECONDS,
    TRANSITIONS,
    Action,
    Limits,
    Signal,
    State,
    Suspicion,
    is_suspicious,
    read_silence,
    rest_for,
    step,
    waiting_since,
)
from aurora_router.policy.options import PROFILES

seconds = st.floats(0, 100)


def test_only_silence_to_a_ping_cuts():
    cutting = [pair for pair, (_, action) in TRANSITIONS.items() if action is Action.CUT]
    assert cutting == [(State.PINGING, Signal.SILENT)]


def test_what_is_not_in_the_table_changes_nothing():
    for state in State:
        for signal in Signal:
            if (state, signal) not in TRANSITIONS:
                assert step(state, signal) == (state, Action.NOTHING)


@given(st.lists(st.tuples(st.sampled_from(list(Signal)), st.floats(0, 2))))
def test_a_ping_precedes_every_cut_and_pings_are_far_apart(history):
    suspicion, now, pinged_at, answered_at = Suspicion(), 0.0, None, -100.0
    for signal, pause in history:
        now += pause
        suspicion = suspicion.end_rest(now) if signal is not Signal.RESTED else suspicion
        before = suspicion.state
        suspicion, action = suspicion.after(signal, now)
        if action is Action.PING:
            assert pinged_at is None, "one ping at a time"
            assert now - answered_at >= REST_SECONDS or signal is Signal.RESTED or before is State.QUIET
            pinged_at = now
        if action is Action.CUT:
            assert pinged_at is not None
            assert signal is Signal.SILENT
        if before is State.PINGING and suspicion.state is not State.PINGING:
            pinged_at, answered_at = None, now


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans(), st.booleans()), min_size=1))
def test_waiting_counts_only_unbroken_and_while_awake(samples):
    since, now, begun = None, 0.0, None
    for pause, waits, stalled in samples:
        now += pause
        since = waiting_since(since, now, waits=waits, stalled=stalled)
        if not waits:
            begun = None
        elif begun is None or stalled:
            begun = now
        assert since == begun


@given(seconds, seconds, st.floats(0.01, 10))
def test_suspicious_after_the_grace(since, later, grace):
    assert is_suspicious(since, since + later, Limits(grace, 1.0)) is ((since + later) - since >= grace)
    assert not is_suspicious(None, since, Limits(grace, 1.0))


def test_a_rest_ends_by_time():
    resting, _ = Suspicion(State.PINGING).after(Signal.ANSWERED, 10.0)
    assert resting.end_rest(10.0 + REST_SECONDS / 2).state is State.RESTING
    assert resting.after(Signal.SUSPECTED, 10.5)[1] is Action.NOTHING
    assert resting.end_rest(10.0 + REST_SECONDS).after(Signal.SUSPECTED, 11.0)[1] is Action.PING


def test_starvation_clears_without_a_cut():
    assert Suspicion(State.PINGING).after(Signal.STALLED, 1.0) == (
        Suspicion(State.RESTING, 1.0 + REST_SECONDS),
        Action.NOTHING,
    )


@given(seconds, st.floats(0.1, 10), st.none() | seconds, st.booleans())
def test_silence_condemns_only_where_nothing_was_heard_and_this_process_was_awake(began, ping, heard, stalled):
    signal = read_silence(began, began + ping, heard, stalled=stalled)
    lives = heard is not None and began <= heard <= began + ping
    assert signal is (Signal.HEARD if lives else Signal.STALLED if stalled else Signal.SILENT)


@given(
    st.sampled_from(list(PROFILES)),
    st.floats(0, 1),
    st.lists(st.floats(0.001, 3), max_size=20),
    st.booleans(),
)
def test_a_hang_is_noticed_in_time_whatever_was_heard_before(profile, phase, gaps, talkative):
    """One connection waits from the hang on; others were served until then; pings were answered until then."""
    limits = Limits(PROFILES[profile].hang_grace, PROFILES[profile].ping_timeout)
    hang = sum(gaps)
    served = [sum(gaps[: end + 1]) for end in range(len(gaps))] if talkative else []
    suspicion, now, pinged_at, since = Suspicion(), phase * limits.interval, None, 0.0
    while True:
        heard = max((each for each in served if each <= now), default=None)
        if pinged_at is not None and now >= pinged_at + limits.ping:
            signal = read_silence(pinged_at, now, heard, stalled=False)
            suspicion, action = suspicion.after(signal, now, rest_for(signal, heard, now, limits))
            pinged_at = None
            if action is Action.CUT:
                break
        since = hang if now >= hang else since
        suspicion = suspicion.end_rest(now)
        if pinged_at is None and suspicion.state is State.QUIET and is_suspicious(since, now, limits):
            fresh = heard is not None and now - heard < limits.grace
            signal = Signal.HEARD if fresh else Signal.SUSPECTED
            suspicion, action = suspicion.after(signal, now, rest_for(signal, heard, now, limits))
            if action is Action.PING:
                pinged_at = now
                if now < hang:  # it is answered
                    suspicion, _ = suspicion.after(Signal.ANSWERED, now, limits.rest)
                    pinged_at = None
        now = min(now + limits.interval, pinged_at + limits.ping) if pinged_at is not None else now + limits.interval
    assert hang < now <= hang + limits.noticed + limits.interval + 1e-6


@pytest.mark.parametrize(("profile", "bound"), [("default", 2.5), ("aggressive", 0.5), ("patient", 20.0)])
def test_the_profiles_keep_what_the_documentation_promises(profile, bound):
    options = PROFILES[profile]
    limits = Limits(options.hang_grace, options.ping_timeout)
    assert limits.noticed <= bound
    assert limits.interval <= 0.25
    assert limits.lateness < limits.ping


def test_a_process_that_suspects_soon_asks_again_soon():
    """Or a hang right after an answered ping would be noticed later than documented."""
    limits = Limits(0.15, 0.25)
    assert limits.rest == limits.grace
    resting, _ = Suspicion(State.PINGING).after(Signal.ANSWERED, 10.0, limits.rest)
    assert resting.end_rest(10.16).after(Signal.SUSPECTED, 10.16)[1] is Action.PING
    assert Limits(5.0, 10.0).rest == REST_SECONDS
