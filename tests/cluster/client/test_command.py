"""The table of commands, and what a supervisor serves, agree with the client."""

from __future__ import annotations

import ast
import inspect
import operator
from pathlib import Path

import pytest

from aurora_router_cluster.client import history, nodes, running
from aurora_router_cluster.client.command import COMMANDS
from aurora_router_cluster.control.backtrack import Backtrack
from aurora_router_cluster.control.injector import Injector
from aurora_router_cluster.control.nodes import NodeCommands
from aurora_router_cluster.control.plane import ControlPlane
from aurora_router_cluster.supervised_cluster import SupervisedCluster

PARTS = {"nodes": nodes.StorageNodes, "history": history.ClusterHistory}
SERVED = {
    name: method
    for owner in (SupervisedCluster, ControlPlane, NodeCommands, Injector, Backtrack)
    for name, method in vars(owner).items()
    if getattr(method, "is_served", False)
}


def requests():
    """The requests that the client's methods send: name, and the names of the arguments."""
    found = []
    for path in sorted(Path(running.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_ask":
                arguments = [each.arg for each in node.keywords if each.arg is not None]
                found.append((ast.literal_eval(node.args[0]), arguments))
    return found


def test_what_the_client_asks_for_is_served_and_nothing_else():
    assert {name for name, _ in requests()} == set(SERVED)


@pytest.mark.parametrize(("name", "arguments"), requests())
def test_a_request_has_the_arguments_that_are_served(name, arguments):
    inspect.signature(SERVED[name]).bind_partial(None, **dict.fromkeys(arguments))


@pytest.mark.parametrize("command", list(COMMANDS.values()), ids=list(COMMANDS))
def test_a_command_takes_the_arguments_of_its_method(command):
    part, _, name = command.path.rpartition(".")
    method = operator.attrgetter(name)(PARTS[part] if part else running.RunningCluster)
    given = {each.parameter: None for each in command.arguments}
    inspect.signature(method).bind(None, **given)
    inspect.signature(command.report).bind(None, **given)
