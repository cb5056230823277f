"""What `import aurora_router` costs: no extra is imported before it is needed, no thread runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
