"""Tests behind real poolers; skipped, loudly, where they are not installed."""

from __future__ import annotations

import pytest

from tests.poolers.poolers import NotInstalled, program


def _needed(name):
    try:
        return program(name)
    except NotInstalled as missing:
        return pytest.skip(f"no pooler: {missing}")


@pytest.fixture(scope="session")
def pgbouncer():
    """PgBouncer is installed."""
    return _needed("pgbouncer")


@pytest.fixture(scope="session")
def haproxy():
    """HAProxy is installed."""
    return _needed("haproxy")


def pytest_terminal_summary(terminalreporter):
    """Say loudly which poolers are missing: the list of skips is easily overlooked."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)}
    for reason in sorted(each for each in reasons if "no pooler: " in each):
        terminalreporter.section("TESTS BEHIND POOLERS WERE NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason.removeprefix("Skipped: "))
