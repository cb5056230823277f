"""The picture of a cluster: in words, as tables, and on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from aurora_router_cluster.commands import live
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.volume_status import quorum


def volume(**changes):
    node = {
        "zone": "a",
        "state": "complete",
        "epoch": 2,
        "scl": "0/10",
        "lag": 0,
        "holes": 0,
        "pid": 7,
        "address": None,
    }
    states = ["complete", "complete", "behind", "down", "complete", "complete"]
    return {
        "quorum": "write", "epoch": 2, "membership": Membership.of(range(6)).to_json(), "groups": 1, "attached": True,
        "vdl": "0/10", "vcl": "0/12", "received_lsn": "0/14", "first_lsn": "0/1", "fenced_epochs": [],
        "nodes": [{**node, "node": number, "state": state} for number, state in enumerate(states)],
        **changes,
    }  # fmt: skip


def test_the_volume_in_words():
    assert live.storage_lines(volume()) == [
        "storage  5 of 6 copies, write quorum: commits go on",
        "volume   epoch 2, membership 1, groups 1",
        "log      VDL 0/10, VCL 0/12, received 0/14, kept from 0/1",
    ]
    assert "NO QUORUM" in live.storage_lines(volume(quorum="lost"))[0]
    lines = live.storage_lines(volume(attached=False, fenced_epochs=[1]))
    assert lines[1].endswith("no writer attached")
    assert lines[3] == "fenced   a former writer still runs in epoch 1"
    failed = volume()
    failed["nodes"][3] |= {"state": "failed", "failure": "node 3 cannot write its journal: No space left on device"}
    assert live.storage_lines(failed)[-1] == "absent   node 3 cannot write its journal: No space left on device"
    failed["nodes"][3] |= {"state": "empty", "failure": "node 3: it holds nothing"}
    assert live.storage_lines(failed)[-1] == "absent   node 3: it holds nothing"
    stalled = live.storage_lines(volume(quorum="read", stalled=2.5))
    assert "commits go on" not in stalled[0]
    assert stalled[-1] == "stalled  no log has met its quorum for 2.5 s, though enough copies answer"
    assert live.storage_lines({"flavour": "direct"}) == []
    assert live.storage_rows({"flavour": "direct"}) == []


def test_a_row_of_each_copy():
    assert live.storage_rows(volume())[3] == ("3", "a", "down", "2", "0/10", "0", "0", "7", "")


def test_what_the_nodes_that_are_there_are_enough_for():
    rest = Membership.of(range(6))
    assert [quorum(rest, set(range(count))) for count in range(7)] == ["lost"] * 3 + ["read"] + ["write"] * 3
    assert quorum(rest.replacing(5, 6), {0, 1, 2, 5}) == "read"


@pytest.mark.cluster
def test_up_draws_the_cluster_on_a_terminal_until_it_is_ended():
    pytest.importorskip("rich")
    name = f"live{os.getpid()}"
    command = [sys.executable, "-m", "aurora_router", "cluster", "up", "--readers", "1", "--name", name]
    control, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "60"}
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    )
    os.close(terminal)
    try:
        shown = read_until(control, "5 of 6 copies", process, name)
        assert "6 of 6 copies, write quorum: commits go on" in shown
        assert f"{name}-2" in shown
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(control)


def read_until(control: int, wanted: str, process, name: str) -> str:
    """What it draws; once it is up, a storage node is taken down, which it is to show."""
    from aurora_router_cluster import LocalCluster

    shown, told = "", False
    deadline = time.monotonic() + 60
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        shown += os.read(control, 65536).decode(errors="replace")
        if not told and "6 of 6 copies" in shown:
            LocalCluster.attach(name).nodes.down(1)
            told = True
    return shown
