from __future__ import annotations

import os
import sys

import pytest

from aurora_router_cluster.postgres import processes
from aurora_router_cluster.postgres.usage import ProcessorMeter


def test_it_is_percent_of_all_processors_since_the_last_time():
    spent = {7: 1.0, 8: 0.0}
    meter = ProcessorMeter(lambda pids: {pid: spent[pid] for pid in pids}, processors=2)
    assert meter.measure([7], 100.0) == {}
    spent.update({7: 2.0, 8: 5.0})
    assert meter.measure([7, 8], 102.0) == {7: pytest.approx(25.0)}
    assert meter.measure([7, 8], 102.5) == {}
    assert meter.measure([7, 8], 104.5) == {7: 0.0, 8: 0.0}


def test_it_stays_between_0_and_100():
    spent = iter(({7: 5.0}, {7: 1.0}, {7: 1000.0}))
    meter = ProcessorMeter(lambda pids: next(spent), processors=1)
    assert [meter.measure([7], float(at)).get(7) for at in (0, 2, 4)] == [None, 0.0, 100.0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_our_own_process_has_used_some():
    assert processes.cpu_seconds([os.getpid()])[os.getpid()] > 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_without_a_descriptor_nothing_is_known(monkeypatch):
    """Whatever watches instances measures this, too, and has to go on."""

    def refuse(_path):
        raise OSError(24, "Too many open files", "/proc")

    monkeypatch.setattr(processes.os, "listdir", refuse)
    assert processes.cpu_seconds([os.getpid()]) == {}
    assert ProcessorMeter().measure([os.getpid()], 100.0) == {}
