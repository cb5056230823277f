"""The table of false alarms: what counts as one, and a run of it that is short."""

from __future__ import annotations

import pytest

from benchmarks import alarms
from benchmarks.alarms import KINDS
from benchmarks.setting import Setting


def test_failed_statements_and_declared_failures_count():
    reported = {"statements": 9, "errors": ["gone"], "ConnectionsCut": 1, "InstanceFailed": 1, "HangSuspected": 2}
    figure = alarms._figure("loaded", reported, 60.0)
    assert (figure.value, figure.bound, figure.ok) == (3, 0, False)
    assert "2 suspicions" in figure.note


def test_suspicions_that_were_refuted_do_not():
    reported = {
        "statements": 9,
        "errors": [],
        "HangSuspected": 2,
        "HangRefuted": 2,
        "ProcessStalled": 3,
        "WriterSuspected": 1,
    }
    assert alarms._figure("gc", reported, 60.0).ok


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_none_in_forty_seconds():
    setting = Setting()
    try:
        figures = list(alarms.played(setting.cluster, 40.0))
    finally:
        setting.close()
    assert len(figures) == len(KINDS) + 1
    assert all(each.ok for each in figures), figures
    assert figures[-1].value > 0, "the server was stopped"
