"""What `import aurora_router` costs: no extra is imported before it is needed, no thread runs."""

from __future__ import annotations

import ast
import subprocess
import sys
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


LOADED = {"importlib", "threading", "aurora_router.runtime.placing"}
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
