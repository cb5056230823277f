"""Which instances of a cluster failed."""

from __future__ import annotations

from aurora_router.model.bounds import MAX_NAMES
from aurora_router.model.event import InstanceFailed, InstanceRemoved
from aurora_router.policy.health import Health


def failed(id_):
    return InstanceFailed(id_, 0, gone=False, reason="refused")


def test_a_failure_begins_once_and_ends_with_an_answer():
    health = Health().follow([failed("demo-1")], 1.0).follow([failed("demo-1"), failed("demo-2")], 5.0)
    assert health.failed_at == {"demo-1": 1.0, "demo-2": 5.0}
    assert health.record_success("demo-1").failed_at == {"demo-2": 5.0}
    assert health.follow([InstanceRemoved("demo-2")], 6.0).failed_at == {"demo-1": 1.0}


def test_a_failed_dial_is_no_failure_of_the_view():
    health = Health().record_failure("demo-1", 1.0, 5.0, 1.0)
    assert health.quarantine.remaining("demo-1", 2.0) == 4.0
    assert not health.failed_at
    assert health.record_success("demo-1") == Health()


def test_what_changes_nothing_returns_the_same_value():
    health = Health().record_failure("demo-1", 1.0, 5.0, 1.0)
    assert health.record_failure("demo-1", 2.0, 5.0, 0.5) is health
    assert health.record_success("demo-2") is health
    assert health.follow([InstanceRemoved("demo-2")], 2.0) is health


def test_it_is_bounded():
    health = Health()
    for number in range(2 * MAX_NAMES):
        health = health.follow([failed(f"demo-{number}")], float(number))
    assert len(health.failed_at) == MAX_NAMES
    assert f"demo-{2 * MAX_NAMES - 1}" in health.failed_at
