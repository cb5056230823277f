"""Runs `tests/scenarios/selection/*.yaml` (see the README there) through the pure core."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from aurora_router.errors import InvalidOption
from aurora_router.model.endpoint import WantedRole, default_role, parse_endpoint
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.policy.balance import select
from aurora_router.policy.context import Load
from aurora_router.policy.options import split
from aurora_router.policy.quarantine import Quarantine

FILES = sorted((Path(__file__).parent.parent / "scenarios" / "selection").glob("*.yaml"))
SEEDS = 64
KEYS = {"about", "instances", "host", "options", "loads", "failures", "now", "turn", "expect"}
EXPECTATIONS = {"order", "first", "last", "left_out", "reason", "error"}


def view_of(instances, now):
    known = {
        each["id"]: Instance(**{"lag_at": now, "heard_at": now, **each, "role": Role(each["role"])})
        for each in instances
    }
    writer = next((each.id for each in known.values() if each.role is Role.WRITER), None)
    return View(known, writer=writer, refreshed_at=0.0)


def selections(scenario):
    """The selections of one scenario, under many seeds."""
    options, _ = split(scenario.get("options", {}))
    by_host = default_role(parse_endpoint(scenario["host"]).kind) if "host" in scenario else WantedRole.WRITER
    quarantine = Quarantine()
    for failure in scenario.get("failures", []):
        quarantine = quarantine.record_failure(failure["id"], failure["at"], options.quarantine)
    for seed in range(SEEDS):
        yield select(
            view_of(scenario["instances"], scenario.get("now", 0.0)),
            options,
            options.role or by_host,
            loads={id_: Load(**load) for id_, load in scenario.get("loads", {}).items()},
            quarantine=quarantine,
            now=scenario.get("now", 0.0),
            rng=random.Random(seed),
            turn=scenario.get("turn", seed),
        )


def check(selection, expect):
    order = [each.id for each in selection.order]
    left_out = {each.id: why for each, why in selection.left_out}
    if "order" in expect:
        assert order == expect["order"]
    if "last" in expect:
        assert order[-1] == expect["last"]
    assert expect.get("reason", "") in selection.reason
    assert expect.get("left_out", {}).items() <= left_out.items()


def test_there_are_scenarios():
    assert len(FILES) >= 25


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path):
    scenario = yaml.safe_load(path.read_text())
    expect = scenario["expect"]
    assert set(scenario) <= KEYS
    assert expect
    assert set(expect) <= EXPECTATIONS
    if "error" in expect:
        with pytest.raises(InvalidOption) as caught:
            list(selections(scenario))
        assert str(caught.value).startswith(expect["error"])
        return
    made = list(selections(scenario))
    for selection in made:
        check(selection, expect)
    if "first" in expect:
        assert {selection.order[0].id for selection in made} == set(expect["first"])
