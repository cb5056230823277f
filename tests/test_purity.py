"""`model`, `policy` and `flow` are pure: what each of their modules may import, and which builtins it may not name.

The import contracts name what is forbidden, so they say nothing about any other module. Here what is allowed is named,
and all else is refused.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import aurora_router

VALUES = {"__future__", "collections", "collections.abc", "dataclasses", "enum", "functools", "math", "re", "types"}
STANDARD = {
    "model": VALUES | {"typing", "base64", "hmac", "ipaddress", "json"},
    "policy": VALUES | {"typing", "difflib", "urllib.parse"},
    "flow": VALUES | {"typing", "contextlib", "weakref"},
}
"""Modules of the standard library that compute, and do nothing else."""
OURS = {
    "model": {"model", "errors", "frozen"},
    "policy": {"policy", "model", "errors", "frozen"},
    "flow": {"flow", "policy", "model", "errors", "frozen", "retry"},
}
"""Parts of `aurora_router`; contracts keep `retry` free of drivers, and it waits on the clock of the runtime alone."""
FORKS = {"IMPORTING", "UNREADABLE"}
"""The one exception: the lock that late imports are done within, and the errors of a late import."""
EFFECTS = {"open", "exec", "eval", "compile", "__import__", "print", "input", "breakpoint"}
FILES = [(layer, path) for layer in STANDARD for path in Path(aurora_router.__file__).with_name(layer).rglob("*.py")]


def impurities(layer, source):
    """What a module of a layer imports or names, and may not; within functions and for types alone, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if not is_allowed(layer, each.name))
        elif isinstance(node, ast.ImportFrom):
            names = {each.name for each in node.names}
            if node.module == "aurora_router.forks" and not node.level:
                yield from (f"aurora_router.forks.{each}" for each in sorted(names - FORKS))
            elif node.level or not is_allowed(layer, node.module):
                yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Name) and node.id in EFFECTS:
            yield node.id


def is_allowed(layer, module):
    """Whether a layer may import a module."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] in OURS[layer] if package == "aurora_router" else module in STANDARD[layer]


@pytest.mark.parametrize(("layer", "path"), FILES, ids=[f"{layer}/{path.name}" for layer, path in FILES])
def test_a_module_is_pure(layer, path):
    assert list(impurities(layer, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("layer", "source", "found"),
    [
        ("policy", "import sqlite3, ssl, urllib.request", ["sqlite3", "ssl", "urllib.request"]),
        ("policy", "import uuid, queue, logging", ["uuid", "queue", "logging"]),
        ("policy", "from urllib import request", ["urllib"]),
        ("model", "def late():\n    from time import monotonic", ["time"]),
        ("model", "from aurora_router.policy import route", ["aurora_router.policy"]),
        ("policy", "import aurora_router.flow.connect", ["aurora_router.flow.connect"]),
        ("flow", "from aurora_router import runtime", ["aurora_router"]),
        ("flow", "from aurora_router.forks import IMPORTING, STEPS", ["aurora_router.forks.STEPS"]),
        ("flow", "import aurora_router.forks", ["aurora_router.forks"]),
        ("flow", "from ..runtime import clock", ["..runtime"]),
        ("flow", "import psycopg", ["psycopg"]),
        ("flow", "open('/etc/passwd'); exec(''); eval('1'); __import__('os')", ["open", "exec", "eval", "__import__"]),
        ("flow", "read = open", ["open"]),
        ("flow", "import re\nfrom aurora_router.policy import route\nre.compile('')", []),
    ],
)
def test_what_is_not_pure_is_found(layer, source, found):
    assert sorted(impurities(layer, source)) == sorted(found)


def test_all_modules_are_looked_at():
    assert {layer for layer, _ in FILES} == set(STANDARD)
    assert "backoff.py" in {path.name for _, path in FILES}
