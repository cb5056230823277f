"""A pytest plugin that writes the outcome of each test to the file that COMPLIANCE_OUTCOMES names, as JSON.

SQLAlchemy puts the dialect's name and the server's version into the names of its classes; they are taken out, so that
the runs of two dialects have the same ids.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

DIALECT = re.compile(r"_postgresql\+[a-z]+(_async)?_\d+(_\d+)*")
OUTCOMES: dict[str, str] = {}


def pytest_runtest_logreport(report):
    """Keep what happened first that was not a pass: a failure in setup, call or teardown, or a skip."""
    name = DIALECT.sub("", report.nodeid)
    before = OUTCOMES.get(name, "passed")
    if report.when == "call" or report.outcome != "passed":
        now = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        OUTCOMES[name] = now if before in {"passed", now} or now == "failed" else before


def pytest_sessionfinish(session):
    """Write them down."""
    Path(os.environ["COMPLIANCE_OUTCOMES"]).write_text(json.dumps(OUTCOMES), encoding="utf-8")
