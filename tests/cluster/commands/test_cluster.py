from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys

import pytest

from aurora_router_cluster import LocalCluster, datadir, registry
from aurora_router_cluster.commands import show
from aurora_router_cluster.commands.cluster import cluster as command

pytestmark = pytest.mark.cluster


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def running():
    name = f"cli{os.getpid()}"
    with LocalCluster.start(name, readers=1) as cluster:
        yield cluster


def test_status_as_text_and_as_json(running, capsys):
    assert run("status", "--name", running.name) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"writer   {running.endpoint('writer')}:{running.port}" in lines
    header = next(line for line in lines if line.startswith("instance"))
    assert header.split()[:5] == ["instance", "role", "state", "zone", "tier"]
    assert any(line.startswith(f"{running.name}-2") and "reader" in line for line in lines)
    assert run("status", "--name", running.name, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [one["role"] for one in facts["instances"]] == ["writer", "reader"]
    assert facts["dns"] == running.dns


def test_a_reader_comes_fails_over_and_goes(running, capsys, eventually):
    name = running.name
    assert run("add-reader", "third", "--name", name, "--zone", "eu-test-1c", "--tier", 0) == 0
    assert "third reads in eu-test-1c" in capsys.readouterr().out
    assert run("failover", "--name", name) == 0
    assert "third is the writer now" in capsys.readouterr().out
    eventually(lambda: all(one.state == "available" for one in running.instances))
    assert run("failover", f"{name}-1", "--name", name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["writer"] == f"{name}-1"
    eventually(lambda: all(one.state == "available" for one in running.instances))
    pid = running.instance("third").pid
    assert run("restart", "third", "--name", name) == 0
    assert running.instance("third").pid != pid
    running.kill("third", hold=True)
    assert run("restart", "third", "--name", name) == 0
    assert run("remove", "third", "--name", name) == 0
    assert "third" not in [one.name for one in running.instances]


def test_a_refusal_is_printed_and_is_status_one(running, capsys):
    assert run("remove", running.writer, "--name", running.name) == 1
    assert "is the writer: fail over to a reader first" in capsys.readouterr().err
    assert run("status", "--name", "nosuch") == 1
    assert "no cluster 'nosuch' is running" in capsys.readouterr().err
    assert run("up", "--name", running.name) == 1
    assert "is running already" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["up", "--settings", "novalue"], ["up", "--flavour", "x"], ["nonsense"]])
def test_a_wrong_command_line_is_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2


def test_in_a_terminal_it_is_a_rich_table(running, monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show.status(running.status())
    assert f"{running.name}-1" in capsys.readouterr().out


UP = [sys.executable, "-m", "aurora_router", "cluster", "up", "--readers", "0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_stays_in_the_foreground_until_it_is_ended(number, eventually):
    name = f"fore{os.getpid()}"
    process = subprocess.Popen(
        [*UP, "--name", name, "--settings", "work_mem=7MB"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    printed = []
    while not (printed and printed[-1].startswith("Ctrl-C")):
        printed.append(process.stdout.readline())
        assert printed[-1], process.stderr.read()
    url = next(line.split()[1] for line in printed if line.strip().startswith("sqlalchemy"))
    assert url == LocalCluster.attach(name).url("writer")
    psql = next(line for line in printed if line.strip().startswith("psql"))
    conninfo = psql.split('"')[1]
    import psycopg

    with psycopg.connect(conninfo) as connection:
        assert connection.execute("show work_mem").fetchone() == ("7MB",)
    process.send_signal(number)
    process.communicate()
    eventually(lambda: not (registry.state_directory() / name).exists())


def test_urls_lead_to_the_role_before_and_after_a_failover(running, capsys, eventually):
    import psycopg

    import aurora_router

    def printed(*words):
        assert run("url", "--name", running.name, *words) == 0
        return capsys.readouterr().out.strip()

    def where(url, connect=psycopg.connect):
        with connect(url) as connection:
            return connection.execute("SELECT aurora_db_instance_identifier()").fetchone()[0]

    psql, ours = printed("--for", "psql"), printed("--for", "aurora-router")
    reader = printed("--role", "reader", "--for", "psql")
    assert where(psql) == where(ours, aurora_router.connect) == running.writer
    assert where(reader) in running.readers
    assert where(printed("--role", f"instance:{running.readers[0]}", "--for", "psql")) == running.readers[0]
    former = running.writer
    running.failover()
    eventually(lambda: all(one.state == "available" for one in running.instances))
    assert where(psql) == where(ours, aurora_router.connect) == running.writer != former
    assert where(reader) == former
    assert [line.split() for line in printed().splitlines()] == [
        ["aurora-router", ours], ["sqlalchemy", running.url()], ["psql", printed("--for", "psql")],
    ]  # fmt: skip
    assert run("status", "--name", running.name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["connect"]["writer"]["urls"]["aurora-router"] == ours
    assert run("url", "--name", running.name, "--role", "custom:nosuch") == 1
    assert "there is no custom endpoint 'nosuch'" in capsys.readouterr().err


def test_without_a_name_a_cluster_is_the_one_of_the_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(registry.NAME_VARIABLE, raising=False)
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    monkeypatch.chdir(mine)
    done = subprocess.run([*UP, "--detach", "--json"], capture_output=True, text=True, check=True)
    key = json.loads(done.stdout)["key"]
    try:
        assert LocalCluster.attach().key == key == registry.default_key()
        assert run("list") == 0
        listed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(key))
        assert str(mine) in listed
        monkeypatch.chdir(other)
        assert run("down") == 1
        assert f"no cluster that was started in {other} without a name is running" in capsys.readouterr().err
        monkeypatch.setenv(registry.NAME_VARIABLE, key)
        assert run("status") == 0
        monkeypatch.delenv(registry.NAME_VARIABLE)
        capsys.readouterr()
    finally:
        monkeypatch.chdir(mine)
        assert run("down") == 0
    said = capsys.readouterr().out
    assert f"ending the cluster {key}; all of its data, in /" in said
    assert "are deleted" in said


def test_what_is_kept_is_said(run_directory, capsys):
    data, name = run_directory / "data", f"kept{os.getpid()}"
    done = subprocess.run([*UP, "--name", name, "--detach", "--data", data], capture_output=True, text=True, check=True)
    assert f"Its data are kept in {data}." in done.stdout
    assert run("up", "--data", data, "--name", f"{name}x") == 1
    assert f"holds a cluster with name='{name}'" in capsys.readouterr().err
    assert run("down", "--name", name) == 0
    assert f"its data are kept in {data}; start it again with: aurora-router cluster up --data {data}" in (
        capsys.readouterr().out
    )
    subprocess.run([*UP, "--detach", "--data", data], capture_output=True, text=True, check=True)
    assert LocalCluster.attach(name).name == name, "it is found by its name again"
    assert run("down", "--name", name) == 0
    assert datadir.name_of(data) == name
    assert datadir.name_of(run_directory / "another") is None


@pytest.mark.parametrize("option", ["data", "directory"])
def test_an_empty_directory_is_none(option, capsys):
    assert run("up", f"--{option}", "") == 1
    assert f"{option} is empty; name a directory, or leave it out" in capsys.readouterr().err


def test_up_detached_and_down(capsys):
    name = f"back{os.getpid()}"
    done = subprocess.run([*UP, "--name", name, "--detach", "--json"], capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["connect"]["writer"]["sqlalchemy"] == LocalCluster.attach(name).url("writer")
    assert run("down", "--name", name) == 0
    assert run("down", "--name", name) == 1
