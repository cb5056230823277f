from __future__ import annotations

import asyncio
import errno
import json
from dataclasses import fields
from types import SimpleNamespace

import pytest

from aurora_router_cluster import errors
from aurora_router_cluster.control import channel
from aurora_router_cluster.control.status import InstanceStatus


async def double(number):
    return number * 2


async def refuse(name):
    raise errors.UnknownInstanceError(f"no {name}")


async def explode():
    raise ZeroDivisionError("oops")


async def hang():
    await asyncio.sleep(3600)


@pytest.fixture
async def server(run_directory):
    server = channel.ControlServer(
        run_directory / "s", {"double": double, "refuse": refuse, "explode": explode, "hang": hang}
    )
    await server.start()
    yield run_directory / "s"
    await server.close()


async def ask(path, command, timeout=10, **arguments):
    return await asyncio.to_thread(channel.request, path, command, arguments, timeout)


async def test_a_request_is_answered(server):
    assert await ask(server, "double", number=21) == 42


def test_an_instance_stands_for_its_name():
    one = InstanceStatus(**dict.fromkeys((each.name for each in fields(InstanceStatus)), None) | {"name": "demo-1"})
    sent = json.loads(channel.encode_request("freeze", {"name": one, "members": [one, "demo-2"]}))
    assert sent["arguments"] == {"name": "demo-1", "members": ["demo-1", "demo-2"]}


def test_what_means_nothing_to_a_supervisor_is_refused_in_words():
    with pytest.raises(errors.RequestError, match=r"freeze does not take <object .*: give the name of an instance"):
        channel.encode_request("freeze", {"name": object()})


async def test_an_error_keeps_its_class_and_words(server):
    with pytest.raises(errors.UnknownInstanceError, match="no demo-7"):
        await ask(server, "refuse", name="demo-7")


async def test_a_failure_of_the_supervisor_is_reported_and_survived(server, caplog):
    with pytest.raises(errors.SupervisorError, match="ZeroDivisionError: oops"):
        await ask(server, "explode")
    assert await ask(server, "double", number=1) == 2


async def test_an_unknown_command_lists_those_that_exist(server):
    with pytest.raises(errors.RequestError, match="double, refuse"):
        await ask(server, "triple")


async def test_no_answer_in_time(server):
    with pytest.raises(errors.SupervisorError, match=r"did not answer 'hang' within 0\.05 s"):
        await ask(server, "hang", timeout=0.05)


async def test_rubbish_is_answered_with_an_error(server):
    reader, writer = await asyncio.open_unix_connection(str(server))
    writer.write(b"not json\n")
    assert json.loads(await reader.readline())["error"] == "RequestError"
    writer.close()


async def test_nobody_there(run_directory):
    with pytest.raises(errors.ClusterNotFoundError, match="no cluster answers"):
        await ask(run_directory / "nobody", "double", number=1)


async def test_a_supervisor_that_ends_meanwhile(run_directory):
    async def hang_up(reader, writer):
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path=str(run_directory / "s"))
    with pytest.raises(errors.SupervisorError, match="ended while it worked on 'double'"):
        await ask(run_directory / "s", "double", number=1)
    server.close()


@pytest.mark.parametrize("name", ["UnknownInstanceError", "ClusterError", "BinariesError"])
def test_classes_are_found_by_name(name):
    assert errors.by_name(name).__name__ == name


@pytest.mark.parametrize("name", ["annotations", "Exception", "by_name", ""])
def test_other_names_are_a_supervisor_s_error(name):
    assert errors.by_name(name) is errors.SupervisorError


def test_a_full_disk_without_a_path_is_the_directory_without_room(tmp_path, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    for directory in (data, run):
        directory.mkdir()
    room = {data: 0, run: 1 << 30}
    monkeypatch.setattr(channel.shutil, "disk_usage", lambda directory: SimpleNamespace(free=room[directory]))
    kind, said = channel.explain_failure(OSError(errno.ENOSPC, "No space left on device"), (data, run))
    assert kind == "DirectoryError"
    assert said == (
        f"the request failed, and the cluster goes on: {data}: No space left on device; free some room there and try "
        "again"
    )
    named = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert "/data/x: No space" in channel.explain_failure(named, (run,))[1]


def test_a_directory_that_was_moved_is_said(tmp_path):
    kind, said = channel.explain_failure(FileNotFoundError(errno.ENOENT, "No such file", "y"), (tmp_path / "gone",))
    assert kind == "DirectoryError"
    assert f"{tmp_path / 'gone'}, where the cluster's files are kept, is not there any more" in said


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_a_limit_is_no_failure_of_the_supervisor(error):
    said = channel.explain_failure(error, ())[1]
    assert said.startswith("the request failed, and the cluster goes on: ")
    assert "Error" not in said
