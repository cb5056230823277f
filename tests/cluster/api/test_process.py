"""The process of the API: one per state directory, which ends with the last cluster that wants it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys

import psutil
import pytest

from aurora_router_cluster import LocalCluster, errors
from aurora_router_cluster.client import api

pytestmark = pytest.mark.cluster

COMMAND = [sys.executable, "-m", "aurora_router", "cluster"]


@pytest.fixture
def processes(state):
    """Process ids of the APIs that serve from this test's state directory."""

    def find():
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("AURORA_ROUTER_STATE") == str(state)
                if ours and api.MODULE in process.cmdline():
                    found.append(process.pid)
        return found

    return find


def test_it_is_one_process_that_ends_with_the_last_cluster_and_keeps_its_keys(processes, state, eventually):
    with LocalCluster.start("one", readers=0, api=True) as first:
        access = first.api
        assert len(processes()) == 1
        assert stat.S_IMODE((state / ".api" / "access.json").stat().st_mode) == 0o600
        assert access.secret_key not in repr(access)
        with LocalCluster.start("two", readers=0, api=True) as second:
            assert second.api == access
            assert len(processes()) == 1
        assert first.api == access
        with LocalCluster.start("three", readers=0, flavour="direct") as third:
            assert third.api == access
            os.kill(first.status().supervisor, signal.SIGKILL)
            eventually(lambda: processes() == [])
            assert third.api is None
    assert api.ensure() == access  # the same keys and, where it is free, the same port
    eventually(lambda: processes() == [])
    assert sorted(each.name for each in (state / ".api").iterdir()) == ["access.json", "serving.lock", "starting.lock"]


def test_a_killed_one_is_started_again(processes, eventually):
    with LocalCluster.start("one", readers=0, api=True) as cluster:
        os.kill(*processes(), signal.SIGKILL)
        eventually(lambda: cluster.api is None)
        api.ensure()
        assert cluster.api is not None
    eventually(lambda: processes() == [])


def test_up_prints_how_to_reach_it_and_another_command_prints_the_same(processes, eventually):
    up = subprocess.run(
        [*COMMAND, "up", "--name", "one", "--readers", "0", "--api", "--detach", "--json"],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        printed = json.loads(up.stdout)["api"]
        assert printed["environment"]["AWS_ENDPOINT_URL_RDS"] == printed["url"] == LocalCluster.attach("one").api.url
        again = subprocess.run([*COMMAND, "api", "--json"], check=True, stdout=subprocess.PIPE)
        assert json.loads(again.stdout) == printed
    finally:
        LocalCluster.attach("one").down()
    eventually(lambda: processes() == [])


def test_in_the_foreground_it_serves_until_it_is_interrupted(state):
    process = subprocess.Popen([*COMMAND, "api"], stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline().strip() for _ in range(5)]
        access = api.find()
        assert lines[0].startswith(f"RDS API at {access.url}")
        assert f"export AWS_SECRET_ACCESS_KEY={access.secret_key}" in lines
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0
    assert api.find() is None


def test_without_the_library_nothing_is_started(state, monkeypatch):
    monkeypatch.setattr(api.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.RequestError, match=r"pip install 'aurora-router-cluster\[api\]'"):
        LocalCluster.start("one", api=True)
    assert not state.exists()


def test_a_port_that_is_taken_and_damaged_keys_are_explained(state):
    with api.starting_alone() as directory:
        (directory / "access.json").write_text("{")
    process = subprocess.run([*COMMAND, "api"], stderr=subprocess.PIPE, text=True)
    assert process.returncode == 1
    assert "access.json is damaged" in process.stderr
    assert "delete it" in process.stderr
