from __future__ import annotations

import json
import os
import stat

import pytest

from aurora_router_cluster import home
from aurora_router_cluster.errors import ClusterRunningError, SupervisorError


@pytest.fixture(autouse=True)
def state(monkeypatch, run_directory):
    monkeypatch.setenv(home.VARIABLE, str(run_directory / "state"))
    return run_directory / "state"


def test_a_claimed_home_is_running_and_closed_to_others():
    place = home.Home("demo")
    place.claim()
    assert home.running() == ["demo"]
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    place.release()
    assert home.running() == []
    assert not place.path.exists()


def test_a_second_claim_is_refused_and_says_what_to_do():
    place = home.Home("demo")
    place.claim()
    with pytest.raises(ClusterRunningError, match="cluster down --name demo"):
        home.Home("demo").claim()
    place.release()


def test_what_a_killed_supervisor_left_is_swept(run_directory):
    run = home.make_run_directory(run_directory, 1)
    (run / "demo-1").mkdir()
    dead = home.Home("dead")
    dead.claim()
    dead.record(run)
    os.close(dead._lock)  # as its death would
    alive = home.Home("alive")
    alive.claim()
    alive.record(run_directory / "aurora-other")
    assert home.sweep_leftovers() == ["dead"]
    assert not run.exists()
    assert not dead.path.exists()
    assert alive.path.exists()
    alive.release()


def test_a_record_that_points_elsewhere_deletes_nothing(run_directory):
    precious = run_directory / "precious"
    precious.mkdir()
    place = home.Home("demo")
    place.claim()
    (place.path / "cluster.json").write_text(json.dumps({"run": str(precious)}))
    place.release()
    assert precious.exists()


def test_somebody_else_s_state_is_refused(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SupervisorError, match="belongs to another user"):
        home.state_directory()


def test_a_path_too_long_for_a_socket_is_named(monkeypatch, run_directory):
    monkeypatch.setenv(home.VARIABLE, str(run_directory / ("x" * 100)))
    with pytest.raises(SupervisorError, match="too long for a Unix socket"):
        home.Home("demo")


def test_the_run_directory_can_be_passed_through_but_not_listed(run_directory):
    run = home.make_run_directory(run_directory, 3)
    assert stat.S_IMODE(run.stat().st_mode) == 0o711
    assert run.parent == run_directory
