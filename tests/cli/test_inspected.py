"""``aurora-router watch`` and ``explain --last`` read the inspection sockets of running processes."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from pathlib import Path

import pytest

from aurora_router.cli import inspected
from aurora_router.cli.inspected import NothingToInspect, read_processes
from aurora_router.cli.main import main
from aurora_router.cli.watch import draw_processes
from aurora_router.runtime.registry import INSPECT
from tests.runtime.test_inspection import running, until


@pytest.fixture
def directory(monkeypatch):
    monkeypatch.delenv(INSPECT, raising=False)
    with tempfile.TemporaryDirectory(prefix="i") as path:
        yield Path(path)


def test_both_ends_name_the_same_variable():
    assert inspected.VARIABLE == INSPECT


@pytest.mark.parametrize("words", [["watch"], ["explain", "--last"]])
def test_without_a_directory_or_a_process_they_say_so(words, directory, capsys):
    assert main(words) == 1
    assert "AURORA_ROUTER_INSPECT=DIR" in capsys.readouterr().err
    assert main([*words, "--dir", str(directory)]) == 1
    assert f"no process can be inspected in {directory}" in capsys.readouterr().err
    assert main([*words, "--dir", "/nowhere/at/all"]) == 1
    assert "there is no directory /nowhere/at/all" in capsys.readouterr().err


def test_explain_needs_a_host_or_last(capsys):
    assert main(["explain"]) == 2
    assert "--last" in capsys.readouterr().err


def test_the_socket_of_a_process_that_was_killed_is_removed(directory):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "4711.sock"))
    with pytest.raises(NothingToInspect):
        read_processes(str(directory))
    assert not list(directory.iterdir())


@pytest.mark.parametrize("answer", [b"", b"no JSON", b"[1]", b'{"format": 99}'])
def test_what_is_no_snapshot_is_left_out(directory, answer):
    import threading

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "1.sock"))
        server.listen()

        def serve():
            client, _ = server.accept()
            with client:
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NothingToInspect):
            read_processes(str(directory))
        thread.join()


def test_what_is_drawn():
    snapshot = {
        "program": "gunicorn", "process": 7,
        "credentials": [
            {"provider": "IamTokens", "user": "app", "host": "db", "age_seconds": 61.0, "expires_in_seconds": 839.0}
        ],
        "clusters": [{
            "name": "demo", "writer": "demo-1", "suspected_seconds": 0.25,
            "events": [{"at": 10.0, "text": "old"}, {"at": 20.5, "text": "demo-1 failed"}],
            "instances": [
                {"id": "demo-1", "role": "writer", "zone": "a", "lag_seconds": None, "connections": 3,
                 "avoided_seconds": 0},
                {"id": "demo-2", "role": "reader", "zone": None, "lag_seconds": 0.02, "connections": 1,
                 "avoided_seconds": 2.5},
            ],
        }],
    }  # fmt: skip
    lines = list(draw_processes([snapshot], since=15.0))
    assert lines[0] == "gunicorn 7, cluster demo: writer demo-1, suspected for 0.2 s"
    assert " ".join(lines[1].split()) == "demo-1 writer a, 3 of 4 connections"
    assert " ".join(lines[2].split()) == "demo-2 reader lag 20.0 ms, 1 of 4 connections, avoided for 2.5 s"
    assert lines[3] == "  IamTokens for app at db: 61 s old, expires in 839 s"
    assert len(lines) == 5
    assert lines[4].endswith(".500  7 demo: demo-1 failed")


@pytest.mark.cluster
def test_two_processes_and_a_failover(aurora_cluster_factory, directory, capsys):
    cluster = aurora_cluster_factory(readers=1)
    reader = cluster.conninfo("reader", aurora_refresh="0.5")  # it keeps its connection, and learns by that alone
    with running(cluster.conninfo(), directory) as first, running(reader, directory) as second:
        until(lambda: len(list(directory.glob("*.sock"))) == 2)
        assert main(["explain", "--last", "--dir", str(directory), "--json"]) == 0
        connects = {each["process"]: each for each in json.loads(capsys.readouterr().out)}
        assert connects[first.pid]["instance"] == "demo-1"
        assert connects[second.pid]["instance"] == "demo-2"
        assert "a reader" in connects[second.pid]["why"]
        assert main(["explain", "--last", "--dir", str(directory)]) == 0
        assert "-> demo-2 (reader)" in capsys.readouterr().out

        cluster.failover("demo-2")  # the first process loses its only connection by that, and ends its socket
        until(lambda: "demo-2" in [each["writer"] for each in known_by(second, directory)])
        assert main(["watch", "--dir", str(directory), "--seconds", "0"]) == 0
        shown = capsys.readouterr().out
        assert f"{second.pid}, cluster demo: writer demo-2" in shown
        assert "writer is now demo-2 (was demo-1)" in shown
        assert main(["watch", "--dir", str(directory), "--seconds", "0", "--json"]) == 0
        assert second.pid in [each["process"] for each in json.loads(capsys.readouterr().out)["processes"]]
        second.kill()
        second.wait()
        assert (directory / f"{second.pid}.sock").exists()
        with contextlib.suppress(NothingToInspect):
            assert second.pid not in [each["process"] for each in read_processes(str(directory))]
        assert not (directory / f"{second.pid}.sock").exists()


def known_by(process, directory):
    """The clusters that a process shows."""
    return [
        cluster
        for shown in read_processes(str(directory))
        for cluster in shown["clusters"]
        if shown["process"] == process.pid
    ]
