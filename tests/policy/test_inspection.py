"""What is shown of a cluster: from its state alone, as JSON."""

from __future__ import annotations

import json

from aurora_router.model.event import WriterSuspected
from aurora_router.model.observation import Row, Topology
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.context import Load
from aurora_router.policy.inspection import ConnectRecord, show_cluster


def known():
    rows = (Row("demo-1", writer=True, token=7), Row("demo-2", lag=0.02, lag_at=100.0, cpu=12.5))
    state, _ = ClusterState().observe(Topology(rows, "demo-1", True, asked_at=100.0), 100.0)
    state, _ = state.suspect_writer("demo-1 is silent", 110.0)
    return state.record_failure("demo-2", 110.0, 4.0, 109.0)[0]


def show(state, connects=()):
    loads = {"demo-1": Load(3, 0.0015)}
    return show_cluster("demo", state, loads, connects, now=111.0, unix_now=1_800_000_000.0)


def test_times_are_ages_and_unix_times():
    shown = show(known())
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["writer"], shown["epoch"], shown["token"]) == ("demo-1", 1, 7)
    assert (shown["suspected_seconds"], shown["refreshed_seconds"]) == (1.0, 11.0)
    event = shown["events"][-1]
    assert event["event"] == WriterSuspected.__name__
    assert event["at"] == 1_799_999_999.0
    assert "demo-1 is silent" in event["text"]


def test_instances_with_what_this_process_puts_on_them():
    one, two = show(known())["instances"]
    assert (one["id"], one["role"], one["connections"], one["latency_seconds"]) == ("demo-1", "writer", 3, 0.0015)
    assert (two["lag_seconds"], two["lag_age_seconds"], two["cpu_percent"]) == (0.02, 11.0, 12.5)
    assert (two["connections"], two["avoided_seconds"] > 0) == (0, True)


def test_the_last_connects_with_their_reasons():
    record = ConnectRecord(1_799_999_000.12345, "demo-1", "writer", pooled=False, why="the writer, the best one")
    (shown,) = show(known(), [record])["connects"]
    assert shown == {
        "at": 1_799_999_000.123, "instance": "demo-1", "role": "writer", "pooled": False,
        "why": "the writer, the best one",
    }  # fmt: skip


def test_of_an_unknown_cluster_nothing_is_said():
    shown = show(ClusterState())
    assert (shown["instances"], shown["events"], shown["writer"], shown["refreshed_seconds"]) == ([], [], None, None)
