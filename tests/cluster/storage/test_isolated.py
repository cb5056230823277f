"""Nodes in processes of their own: killed, started again over the same files, gone with their parent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys

import pytest

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import processes
from aurora_router_cluster.storage import isolated
from aurora_router_cluster.storage.core.errors import NodeUnavailable
from aurora_router_cluster.storage.core.extents import Extent
from aurora_router_cluster.storage.isolated import PACKAGES, IsolatedNode
from aurora_router_cluster.storage.nodes import NodeSet
from tests.cluster.storage.quorum.support import until
from tests.cluster.storage.test_remote import BASE, CHARTER


@pytest.fixture
async def node(tmp_path):
    made = IsolatedNode(2, "eu-test-1b", tmp_path / "node-2", "secret", sync=False)
    yield made
    await made.stop()


async def test_what_it_held_it_holds_after_a_kill(node):
    await node.start()
    await node.format(CHARTER)
    await node.fill(1, [Extent(0, BASE, BASE, b"0123456789")])
    first = node.pid
    assert node.describe()["scl"] == "0/6E"
    await node.stop()
    assert not processes.stat_fields(first) or processes.is_zombie(first)
    assert node.describe() == {
        "node": 2, "zone": "eu-test-1b", "up": False, "pid": None, "address": None, "failure": None,
    }  # fmt: skip
    await node.start()
    assert node.pid != first
    assert await node.read(1, BASE, 100) == b"0123456789"
    assert node.size > 10


async def test_one_that_was_killed_by_somebody_else_is_known_as_lost(node):
    await node.start()
    assert not node.lost
    os.kill(node.pid, signal.SIGKILL)
    await until(lambda: node.lost, "its end is noticed")
    assert not node.up
    await node.start()
    assert node.up


@pytest.mark.case
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.25])
async def test_one_that_was_killed_while_it_started_comes_back(node, delay):
    node_set = NodeSet(node.directory.parent, ("a", "b", "c"), "secret", lambda _: None, isolated=True, sync=False)
    node_set[2] = node
    starting = asyncio.ensure_future(node.start())
    await until(lambda: node.pid is not None, "its process")
    await asyncio.sleep(delay)
    os.kill(node.pid, signal.SIGKILL)
    await asyncio.wait({starting})
    assert starting.exception() is None or isinstance(starting.exception(), NodeUnavailable)
    await until(lambda: node.lost, "its end is noticed")
    node_set.revive()
    node_set.revive()  # the next look, while the first is under way
    await until(lambda: node.up and node.connected, "it runs")
    await node_set.close()
    assert not node.lost


@pytest.mark.case
async def test_one_that_hangs_is_replaced_by_a_process_that_does_not(node, monkeypatch):
    monkeypatch.setattr(isolated, "HUNG_SECONDS", 0.2)
    await node.start()
    first = node.pid
    await node.start()
    assert node.pid == first
    os.kill(first, signal.SIGSTOP)
    node.connection.abort()
    await until(lambda: not node.connected, "the connection ends")
    await node.start()
    assert node.connected
    assert node.pid != first


@pytest.mark.case
async def test_a_request_before_there_was_a_connection_says_nothing_about_the_disk(node, monkeypatch):
    """It fails when the connection is there already: so a healthy node was shown as one whose disk fails."""
    asked, begin = [], node.begin

    def begin_after_a_request(connection):
        asked.append(asyncio.ensure_future(node.state()))
        asyncio.get_running_loop().call_soon(begin, connection)

    monkeypatch.setattr(node, "begin", begin_after_a_request)
    await node.start()
    with pytest.raises(NodeUnavailable, match="there is no connection"):
        await asked[0]
    assert node.connected
    assert node.failure is None


@pytest.mark.case
async def test_one_whose_files_are_gone_is_known_to_be_empty(node, tmp_path):
    node_set = NodeSet(tmp_path, ("a", "b", "c"), "secret", lambda _: None, isolated=True, sync=False)
    node_set[2] = node
    await node.start()
    await node.format(CHARTER)
    assert (await node.state()).promised == 1
    assert not node.empty
    await node.stop()
    shutil.rmtree(node.directory)
    with pytest.raises(EngineError, match=r"node 2 runs, but it holds nothing, .* cluster replace-node 2"):
        await node_set.up(2)
    assert node.empty
    assert "scl" not in node.describe()


async def test_one_that_is_taken_down_while_it_starts_stays_down(node):
    starting = asyncio.ensure_future(node.start())
    await until(lambda: node.pid is not None, "its process")
    await node.stop()
    await asyncio.wait({starting})
    assert isinstance(starting.exception(), NodeUnavailable)
    assert not node.up
    assert not node.lost


async def test_one_that_cannot_start_says_why(node):
    node.directory.mkdir()
    (node.directory / "00000001.frames").mkdir()
    with pytest.raises(NodeUnavailable, match=r"node 2 in eu-test-1b did not start: .*cannot be opened"):
        await node.start()
    assert node.pid is None


PARENT = """
import asyncio, pathlib, sys
from aurora_router_cluster.storage.isolated import IsolatedNode
async def main():
    node = IsolatedNode(0, "zone", pathlib.Path(sys.argv[1]), "secret")
    await node.start()
    print(node.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel reports a parent's end")
def test_it_ends_with_a_parent_that_is_killed(tmp_path, eventually):
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "node")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        assert pid in processes.in_directory(tmp_path)
        parent.kill()
    eventually(lambda: not processes.stat_fields(pid) or processes.is_zombie(pid))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--node", "1"], "--directory"),
        (["--node", "1", "--directory", "x", "--listen", "nowhere"], "--listen"),
        (["--node", "1", "--directory", "x", "--listen", "127.0.0.1:0"], "cluster's secret"),
    ],
)
def test_a_bad_command_line_says_why(words, complaint, tmp_path):
    command = [sys.executable, "-m", "aurora_router_cluster.storage.nodeserver", *words]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    done = subprocess.run(command, cwd=tmp_path, input="", capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert complaint in done.stderr
