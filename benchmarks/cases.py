"""``python -m benchmarks.cases``: the tests of faults that were reported from outside, several times in a row.

A fault that depends on the order of events may stay away once. So each of these tests (marker ``case``) has to pass in
every one of three runs, without a second try.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from benchmarks.figures import Figure, report

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS = 3
PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"


def outcomes(report: Path) -> dict[str, tuple[str, str]]:
    """Read pytest's JUnit report: for each test its outcome, and the message of a failure or a skip."""
    found: dict[str, tuple[str, str]] = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        outcome, message = PASSED, ""
        for child in case:
            if child.tag in {"failure", "error"}:
                outcome, message = FAILED, child.get("message", "")
            elif child.tag == "skipped" and outcome == PASSED:
                outcome, message = SKIPPED, child.get("message", "")
        found[name] = (outcome, message)
    return found


def run_once(arguments: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Run the tests once; returns the outcomes.

    Raises:
        RuntimeError: pytest could not collect or run the tests.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "case", "--tb=short", f"--junitxml={report}", *arguments]
        status = subprocess.run(command, check=False).returncode
        if status not in {0, 1} or not report.exists():
            raise RuntimeError(f"pytest ended with status {status}: {' '.join(command)}")
        return outcomes(report)


def judge(runs: Sequence[dict[str, tuple[str, str]]]) -> list[Figure]:
    """The figures of several runs: how often each test passed, all its parameters together, and what did not."""
    names = sorted(set().union(*runs))
    failed, skipped = 0, 0
    passes: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    notes: dict[str, str] = {}
    for name in names:
        test, brackets, parameters = name.partition("[")
        found = [run.get(name, (FAILED, "it was not run")) for run in runs]
        counts = Counter(outcome for outcome, _ in found)
        message = " ".join(next((text for _, text in found if text), "").split())[:120]
        if counts[SKIPPED] == len(runs):
            skipped += 1
            notes.setdefault(test, f"NOT RUN: {message}")
            continue
        wanted[test] += len(runs)
        passes[test] += counts[PASSED]
        if counts[PASSED] < len(runs):
            failed += 1
            notes[test] = f"{brackets}{parameters} {message}".strip()
    reported = [
        Figure.at_least(each, passes[each], "", wanted[each], notes.get(each, ""))
        for each in sorted({name.partition("[")[0] for name in names})
    ]
    return [
        *reported,
        Figure.at_least("tests that ran", len(names) - skipped, "", 1),
        Figure.unbounded("tests that could not run here", skipped, ""),
        Figure.at_most("tests that did not pass in every run", failed, "", 0, f"of {len(runs)} runs"),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 where a test did not pass each time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"how many in a row (default: {RUNS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args, others = parser.parse_known_args(arguments)
    figures = judge([run_once(others) for _ in range(args.runs)])
    return report(figures, args.json)


if __name__ == "__main__":
    sys.exit(main())
