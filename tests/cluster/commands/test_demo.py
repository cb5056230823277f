from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aurora_router_cluster import registry

pytestmark = pytest.mark.cluster

RUN = "import sys; from aurora_router.cli.main import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def running(monkeypatch):
    """The clusters that run, of this test alone; under a short path, since sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="ar-") as state:
        monkeypatch.setenv(registry.VARIABLE, str(Path(state, "state")))
        yield registry.running


def play(*words) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", RUN, "demo", "--readers", "1", "--connections", "4", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_it_ends_with_failovers_counted_and_drawn(tmp_path, running):
    picture = tmp_path / "failover.svg"
    figures = tmp_path / "figures.json"
    process = play("--plot", picture, "--json", figures)
    told, _ = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert "0 lost, 0 doubled" in told
    for moment in ("killed", "frozen", "noticed", "promoted", "last ack", "first ack"):
        assert moment in told
    assert "nothing is left running" in told
    assert "InstanceFailed" not in told, "the library's own warnings"
    assert ET.parse(picture).getroot().tag.endswith("svg")
    found = json.loads(figures.read_text())
    assert found["commits lost"] == {"value": 0, "unit": "", "bound": 0, "ok": True}
    assert found["kill: time without a commit"]["value"] > 0
    assert not running()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_interrupted_while_clients_write_it_leaves_nothing_behind(number, running, eventually):
    process = play()
    for line in process.stdout:
        if "join" in line:
            break
    assert running()
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert "Traceback" not in told
    assert process.returncode != 0
    eventually(lambda: not running())


def test_a_picture_that_can_not_be_written_is_said_at_once(tmp_path):
    process = play("--plot", tmp_path / "nowhere" / "failover.svg")
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "can't be written" in told
    assert "cluster" not in told.splitlines()[0]
