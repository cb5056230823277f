"""What `import aurora_router` costs: no extra is imported before it is needed, no thread runs."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import aurora_router

LATER = ("dns", "tenacity", "sqlalchemy", "psycopg_pool", "rich", "yaml", "difflib", "ipaddress", "multiprocessing")


def told(code):
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_no_extra_is_imported():
    loaded = told(
        "import sys, psycopg; before = set(sys.modules); import aurora_router; print(*set(sys.modules) - before)"
    )
    assert not {name.partition(".")[0] for name in loaded} & set(LATER)
    assert "aurora_router.simulation" not in loaded
    assert not any(name.startswith("aurora_router.runtime.simulated") for name in loaded)


DRIVERS = ("psycopg", "psycopg_binary", "psycopg_c", "psycopg2", "MySQLdb")


def test_no_driver_is_imported_before_it_is_needed():
    code = (
        "import sys, aurora_router; aurora_router.Role, aurora_router.Credential; print(*sys.modules)\n"
        "aurora_router.connect; print(*sys.modules)"
    )
    before, after = (
        {name.partition(".")[0] for name in line.split()}
        for line in subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        ).stdout.splitlines()
    )
    assert before & set(DRIVERS) == set()
    assert "psycopg" in after


def test_every_event_is_public():
    assert {each.__name__ for each in typing.get_args(aurora_router.Event)} <= set(aurora_router.__all__)


def test_the_public_names_are_those_of_type_checkers():
    """What is imported late is what the block for type checkers imports, from the same modules."""
    tree = ast.parse(Path(aurora_router.__file__).read_text())
    block = next(each for each in tree.body if isinstance(each, ast.If))
    checked = {name.name: each.module for each in block.body for name in each.names}
    assert checked == aurora_router._LATE
    assert sorted([*checked, "__version__"]) == sorted(aurora_router.__all__)
    assert set(aurora_router.__all__) <= set(dir(aurora_router))
    assert all(getattr(aurora_router, name) is not None for name in aurora_router.__all__)
    with pytest.raises(AttributeError, match="module 'aurora_router' has no attribute 'conect'"):
        aurora_router.conect  # noqa: B018


@pytest.mark.parametrize("module", ["aurora_router", "aurora_router.simulation"])
def test_no_thread_runs_after_the_import(module):
    assert told(f"import threading, {module}; print(threading.active_count())") == ["1"]


def test_routing_of_an_address_needs_no_resolver():
    code = (
        "import sys, aurora_router, aurora_router.runtime.dns as names\n"
        "names.names_for(None, 1.0).resolve('127.0.0.1')\n"
        "print('dns' in sys.modules, 'tenacity' in sys.modules)"
    )
    assert told(code) == ["False", "False"]


LOADED = {"importlib", "threading"}
"""What is loaded for certain where it is imported late: the interpreter or `connect` did it."""


def late_imports(node, *, within=False, late=False):
    """The imports within functions that are not within ``with IMPORTING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom | ast.Import) and late and not within:
            yield child.module if isinstance(child, ast.ImportFrom) else child.names[0].name
        guards = isinstance(child, ast.With) and any(ast.unparse(each) == "IMPORTING" for each in child.items)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from late_imports(child, within=within or guards, late=late or function)


def test_what_is_imported_late_does_not_break_a_fork():
    """See `aurora_router.forks`; the CLI does not fork."""
    package = Path(aurora_router.__file__).parent
    files = [path for path in package.rglob("*.py") if path.parent.name != "cli"]
    found = {(path.name, name) for path in files for name in late_imports(ast.parse(path.read_text()))}
    assert {(file, name) for file, name in found if name not in LOADED} == set()


ROOT = Path(__file__).parent.parent
PACKAGES = [
    ROOT / "aurora_router",
    *sorted(ROOT.glob("plugins/aurora_router_*")),
    *sorted(ROOT.glob("plugins/cluster/aurora_router_*")),
]


def modules():
    """Name of a module -> its file, of everything that is shipped."""
    found = {}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            parts = [package.name, *path.relative_to(package).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_by(path, known):
    """The modules of ours that a file imports, within functions and for types alone, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not looked at"
            names = {f"{node.module}.{each.name}" for each in node.names}
            yield from names & set(known)
            if node.module in known and not names <= set(known):
                yield node.module


def find_cycles(graph):
    """The sets of modules that import each other, directly or not: strongly connected components (Tarjan 1972)."""
    count, numbers, lowest, stack, found = itertools.count(), {}, {}, [], []

    def visit(module):
        numbers[module] = lowest[module] = next(count)
        stack.append(module)
        for other in graph[module]:
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            members = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(members) > 1:
                found.append(frozenset(members))

    for module in graph:
        if module not in numbers:
            visit(module)
    return found


def shortest_path(graph, members):
    """One way around within the members of a cycle, for the message."""
    start = min(members)
    ways = [[start]]
    for way in ways:
        for other in graph[way[-1]] & members:
            if other == start:
                return " -> ".join([*way, start])
            if other not in way:
                ways.append([*way, other])
    raise AssertionError("no cycle")


@pytest.mark.one_python
def test_no_modules_import_each_other():
    """Neither for types alone: what needs each other's names belongs together, or needs a third module."""
    known = modules()
    graph = {name: set(imported_by(path, known)) - {name} for name, path in known.items()}
    assert [shortest_path(graph, cycle) for cycle in find_cycles(graph)] == []


def test_what_a_failure_needs_is_imported_by_the_monitor_and_not_before():
    code = (
        "import sys, aurora_router.runtime.monitor as monitor\n"
        "from aurora_router.runtime.monitor_runtime import ThreadMonitorRuntime\n"
        "needed = ThreadMonitorRuntime.needed_by_failures\n"
        "print(*[each in sys.modules for each in needed])\n"
        "monitor._prepare(needed); print(*[each in sys.modules for each in needed])"
    )
    printed = told(code)
    half = len(printed) // 2
    assert printed == ["False"] * half + ["True"] * half
