"""SQLAlchemy's dialect suite, bounded; the whole of it is `nox -s compliance`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RUN = Path(__file__).parents[1] / "compliance" / "run.py"
FEW = "ServerSideCursors or IsolationLevel or Autocommit or Rowcount"

pytestmark = pytest.mark.cluster


def begin(*arguments):
    return subprocess.Popen(
        [sys.executable, RUN, "--only", FEW, *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.timeout(300)
def test_what_a_driver_matters_to_most_has_the_same_outcome_as_on_stock():
    with begin("--mode", "async") as process:
        told, _ = process.communicate()
    assert process.returncode == 0, told
    counts = [line.split(":", 1)[1] for line in told.splitlines() if line.startswith("SQLAlchemy")]
    assert counts[0] == counts[1]
    assert "'passed': " in counts[0]


@pytest.mark.parametrize("ended_by", ["a signal", "the limit"])
def test_nothing_is_left_of_a_run_that_was_ended(ended_by):
    limit = [] if ended_by == "a signal" else ["--limit", "0.1"]
    with begin(*limit) as process:
        below = started_by(process, until="suite.py" if ended_by == "a signal" else "aurora_router_cluster")
        if ended_by == "a signal":
            process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == (128 + signal.SIGTERM if ended_by == "a signal" else 1), told
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive


def started_by(process, until):
    """All that runs below a process, once a command that has this word is among it."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        if any(until in " ".join(command_of(each)) for each in below):
            return below
        time.sleep(0.02)
    raise AssertionError(f"{until} was not started: {process.communicate()[0]}")


def command_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []
