"""Runs `tests/scenarios/reduce/*.yaml` (see the README there) through `aurora_router.model.reduce`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aurora_router.model.observation import Failure, ProcessEnded, Row, SelfReport, Topology
from aurora_router.model.reduce import reduce
from aurora_router.model.view import View

FILES = sorted((Path(__file__).parent.parent / "scenarios" / "reduce").glob("*.yaml"))
EXPECTATIONS = {
    "writer", "epoch", "token", "instances", "roles", "generations", "facts", "events", "unchanged",
}  # fmt: skip


def observation_of(step):
    if "answer" in step:
        answer = dict(step["answer"])
        rows = tuple(Row(**row) for row in answer.pop("rows"))
        malformed = tuple(answer.pop("malformed", ()))
        return Topology(rows, answer.pop("by", None), answer.pop("writer", None), malformed=malformed, **answer)
    if "process_ended" in step:
        return ProcessEnded(**step["process_ended"])
    return SelfReport(**step["report"]) if "report" in step else Failure(**step["failure"])


def line(event):
    words = [type(event).__name__]
    for name in ("claimed", "id", "new", "role", "reason"):
        value = getattr(event, name, None)
        if value is not None and not (name == "reason" and words[0] == "ClaimRefused"):
            words.append(getattr(value, "value", value))
    return " ".join(words)


def facts_of(view):
    """Everything that a step may expect of a view."""
    known = view.instances
    return {
        "writer": view.writer,
        "epoch": view.epoch,
        "token": view.token,
        "instances": list(known),
        "roles": {id_: each.role.value for id_, each in known.items()},
        "generations": {id_: each.generation for id_, each in known.items()},
    }


def check(before, view, events, expect, where):
    assert set(expect) <= EXPECTATIONS, where
    facts = facts_of(view)
    for name in ("writer", "epoch", "token", "instances"):
        assert facts[name] == expect.get(name, facts[name]), f"{where}: {name} is {facts[name]}"
    for name in ("roles", "generations"):
        assert expect.get(name, {}).items() <= facts[name].items(), f"{where}: {name} are {facts[name]}"
    for id_, expected in expect.get("facts", {}).items():
        assert {name: getattr(view.instances[id_], name) for name in expected} == expected, where
    lines = [line(event) for event in events]
    assert lines == expect.get("events", lines), where
    assert not expect.get("unchanged") or view is before, where


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path):
    scenario = yaml.safe_load(path.read_text())
    assert set(scenario) == {"about", "steps"}
    view, now = View(), 0.0
    for number, step in enumerate(scenario["steps"], 1):
        before = view
        now += 1.0 + sum(each.pop("after", 0.0) for each in step.values() if isinstance(each, dict))
        view, events = reduce(before, observation_of(step), now)
        check(before, view, events, step.get("expect", {}), f"{path.name}, step {number}")
