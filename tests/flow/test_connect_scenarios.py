"""Plays `tests/scenarios/connect/*.yaml` (see the README there) in the three runtimes."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.flow.scenario_runtimes import Blocking, OnAsyncio, Simulated

FILES = sorted((Path(__file__).parent.parent / "scenarios" / "connect").glob("*.yaml"))
REAL = [path for path in FILES if yaml.safe_load(path.read_text()).get("also") == "real"]
KEYS = {"about", "cluster", "also", "steps"}
EXPECTATIONS = {"instance", "dials", "queries", "error", "sqlstate", "says", "seconds", "events", "current"}
SEEDS = range(8)


def play(path, scenario, ground):
    assert set(scenario) <= KEYS, path.name
    for number, step in enumerate(scenario["steps"], 1):
        where = f"{path.name}, step {number}: {step}"
        expect = step.get("expect", {})
        assert set(expect) <= EXPECTATIONS, where
        actions = {action: what for action, what in step.items() if action != "expect"}
        for action, what in actions.items():
            if action == "connect":
                check(ground.connect(what), expect, where)
            else:
                ground.do(action, what)
        events = ground.events()
        assert events == expect.get("events", events), where
        assert ground.current() == expect.get("current", ground.current()), where
    assert ground.leaked() == [], path.name


def check(outcome, expect, where):
    if "error" in expect:
        classes = [each.__name__ for each in type(outcome.error).__mro__]
        assert expect["error"] in classes, f"{where}: {outcome.error!r}"
        if "sqlstate" in expect:
            assert outcome.error.sqlstate == expect["sqlstate"], where
        for part in expect.get("says", []):
            assert part in str(outcome.error), f"{where}: {outcome.error}"
    elif outcome.error is not None:
        raise AssertionError(f"{where}: {outcome.error!r}") from outcome.error
    if "instance" in expect:
        check_instances(outcome.instances, expect["instance"], where)
    for name, kind in (("dials", "dial"), ("queries", "ask")):
        assert outcome.counts[kind] == expect.get(name, outcome.counts[kind]), f"{where}: {outcome.counts}"
    least, most = expect.get("seconds", (0.0, 1e9))
    assert least <= outcome.seconds <= most, f"{where}: took {outcome.seconds}"


def check_instances(found, expected, where):
    if isinstance(expected, dict):
        assert Counter(found) == expected, where
    else:
        accepted = {expected} if isinstance(expected, str) else set(expected)
        assert found, where
        assert set(found) <= accepted, f"{where}: {found}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_on_the_virtual_clock(path, seed):
    scenario = yaml.safe_load(path.read_text())
    ground = Simulated(scenario.get("cluster", {}), seed)
    try:
        play(path, scenario, ground)
    finally:
        ground.close()


def without_times(scenario):
    """A real machine takes the time that it takes."""
    for step in scenario["steps"]:
        step.get("expect", {}).pop("seconds", None)
    return scenario


BREAKING = {"failover", "crash", "restart", "remove", "add"}


@pytest.fixture(scope="module")
def shared():
    """Clusters that no scenario breaks, by the number of readers."""
    from aurora_router_cluster import LocalCluster

    with contextlib.ExitStack() as running:
        started = {}

        def get(readers):
            if readers not in started:
                started[readers] = running.enter_context(LocalCluster.start(readers=readers))
            return started[readers]

        yield get


@pytest.mark.cluster
@pytest.mark.one_python
@pytest.mark.parametrize("kind", [Blocking, OnAsyncio], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_on_a_real_cluster(path, kind, shared, aurora_cluster_factory, monkeypatch):
    scenario = without_times(yaml.safe_load(path.read_text()))
    readers = scenario.get("cluster", {}).get("readers", 2)
    breaks = any(BREAKING & set(step) for step in scenario["steps"])
    cluster = aurora_cluster_factory(readers=readers, auto=False) if breaks else shared(readers)
    ground = kind(cluster, monkeypatch)
    try:
        play(path, scenario, ground)
    finally:
        ground.close()
