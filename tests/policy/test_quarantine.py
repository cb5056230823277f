"""Keeping away from instances that just failed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.quarantine import MAX_SECONDS, Quarantine


def test_nobody_is_in_quarantine_at_first():
    assert Quarantine().remaining("demo-1", now=0.0) == 0.0


def test_a_failure_takes_out_for_the_base_time():
    quarantine = Quarantine().record_failure("demo-1", now=10.0, base=1.0)
    assert quarantine.remaining("demo-1", now=10.0) == 1.0
    assert quarantine.remaining("demo-1", now=10.75) == 0.25
    assert quarantine.remaining("demo-1", now=11.0) == 0.0
    assert quarantine.remaining("demo-2", now=10.0) == 0.0


def test_each_further_incident_doubles_it_up_to_the_limit():
    quarantine, now, lengths = Quarantine(), 0.0, []
    for _ in range(7):
        quarantine = quarantine.record_failure("demo-1", now, base=1.0)
        lengths.append(quarantine.remaining("demo-1", now))
        now += lengths[-1]
    assert lengths == [1, 2, 4, 8, 16, 30, 30]


def test_many_failures_at_once_are_one_incident():
    once = Quarantine().record_failure("demo-1", now=10.0, base=1.0)
    assert once.record_failure("demo-1", now=10.5, base=1.0) is once
    assert once.record_failure("demo-1", now=10.5, base=1.0, began=9.9) is once


def test_a_last_resort_that_fails_too_doubles_it():
    quarantine = (
        Quarantine()
        .record_failure("demo-1", now=10.0, base=1.0)
        .record_failure("demo-1", now=10.5, base=1.0, began=10.2)
    )
    assert quarantine.remaining("demo-1", now=10.5) == 2.0


def test_a_success_clears():
    quarantine = Quarantine().record_failure("demo-1", now=0.0, base=1.0).record_failure("demo-2", now=0.0, base=1.0)
    assert quarantine.record_success("demo-1") == Quarantine().record_failure("demo-2", now=0.0, base=1.0)
    assert quarantine.record_success("demo-9") is quarantine


def test_good_conduct_starts_anew_and_is_forgotten():
    quarantine = Quarantine().record_failure("demo-1", now=0.0, base=4.0)
    assert (
        quarantine.record_failure("demo-1", now=4.0 + MAX_SECONDS, base=4.0).remaining("demo-1", 4.0 + MAX_SECONDS)
        == 8.0
    )
    late = 4.5 + MAX_SECONDS
    assert quarantine.record_failure("demo-1", late, base=4.0).remaining("demo-1", late) == 4.0
    assert quarantine.record_failure("demo-2", late, base=4.0) == Quarantine().record_failure("demo-2", late, base=4.0)


def test_a_base_of_zero_means_never():
    assert Quarantine().record_failure("demo-1", now=0.0, base=0.0) == Quarantine()


def test_it_is_a_value():
    one, other = (Quarantine().record_failure("demo-1", now=1.0, base=1.0) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != "demo-1"
    assert repr(one) == "<Quarantine demo-1 until 2>"
    assert repr(Quarantine()) == "<Quarantine of no instance>"


steps = st.tuples(st.sampled_from("abc"), st.floats(0, 100), st.floats(0, 60), st.booleans(), st.booleans())


@given(st.lists(steps, max_size=30))
def test_no_quarantine_reaches_beyond_the_limit(history):
    quarantine, now = Quarantine(), 0.0
    for instance, pause, base, fresh, good in history:
        now += pause
        before = quarantine.remaining(instance, now)
        if good:
            quarantine = quarantine.record_success(instance)
            assert quarantine.remaining(instance, now) == 0.0
        else:
            quarantine = quarantine.record_failure(instance, now, base, began=now if fresh else None)
            assert before - 1e-9 <= quarantine.remaining(instance, now) <= MAX_SECONDS + 1e-9
            assert quarantine.remaining(instance, now) > 0 or base < 1e-9


def test_it_is_prolonged_for_one_that_failed_and_by_no_more_than_the_limit():
    quarantine = Quarantine().record_failure("demo-1", now=0.0, base=1.0)
    assert quarantine.prolong("demo-2", 0.5, 7.0) is quarantine
    assert quarantine.prolong("demo-1", 0.5, 0.25) is quarantine, "it lasts for longer"
    longer = quarantine.prolong("demo-1", 0.5, 7.0)
    assert longer.remaining("demo-1", 0.5) == 7.0
    assert longer.prolong("demo-1", 0.5, 1000.0).remaining("demo-1", 0.5) == MAX_SECONDS
    assert longer.record_failure("demo-1", 5.0, base=1.0, began=0.5).remaining("demo-1", 5.0) == 2.0, "as without"
    assert longer.record_success("demo-1").remaining("demo-1", 1.0) == 0.0
