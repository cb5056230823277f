"""The inspection socket: what it shows, to which clients, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aurora_router.runtime import inspection
from aurora_router.runtime.inspection import Inspector, UnsafeDirectory, prepare_directory
from aurora_router.runtime.registry import INSPECT


@pytest.fixture
def directory(tmp_path):
    """Short enough for the address of a socket."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="i") as path:
        yield Path(path)


@contextlib.asynccontextmanager
async def served(directory):
    """A socket on an event loop of its own, as in the monitor's thread."""
    inspector = Inspector(directory, asyncio.get_running_loop())
    try:
        yield inspector
    finally:
        inspector.remove()
        asyncio.get_running_loop().remove_reader(inspector._listener.fileno())
        inspector._listener.close()
        for client in inspector._answers.values():
            client.close()


async def read(path, sends=b""):
    reading, writing = await asyncio.open_unix_connection(str(path))
    with contextlib.suppress(OSError):
        writing.write(sends)
        await writing.drain()
    data = b""
    with contextlib.suppress(OSError):
        data = await reading.read()
    writing.close()
    return data


async def test_what_connects_gets_a_snapshot_and_nothing_that_it_sends_counts(directory):
    async with served(directory) as inspector:
        answers = [json.loads(await read(inspector.path))]
        await read(inspector.path, b"stop\n" * 1000)
        answers.append(json.loads(await read(inspector.path)))
    assert [each["process"] for each in answers] == [os.getpid()] * 2
    assert set(answers[0]) == {"format", "process", "program", "driver", "at", "clusters", "credentials"}


async def test_a_client_that_reads_nothing_holds_up_no_other(directory, monkeypatch):
    monkeypatch.setattr(inspection, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(inspection, "take_snapshot", lambda: {"format": 1, "much": "x" * 4_000_000})
    async with served(directory) as inspector:
        with contextlib.ExitStack() as held:
            for _ in range(inspection.MOST_ANSWERS - 1):
                deaf = held.enter_context(socket.socket(socket.AF_UNIX))
                deaf.connect(str(inspector.path))
            assert len(await read(inspector.path)) > 4_000_000
            for _ in range(200):
                if not inspector._answers:
                    break
                await asyncio.sleep(0.02)
            assert not inspector._answers, "given up after their second"


async def test_clients_beyond_the_limit_are_disconnected(directory, monkeypatch):
    monkeypatch.setattr(inspection, "take_snapshot", lambda: {"much": "x" * 4_000_000})
    async with served(directory) as inspector:
        with contextlib.ExitStack() as held:
            for _ in range(inspection.MOST_ANSWERS):
                deaf = held.enter_context(socket.socket(socket.AF_UNIX))
                deaf.connect(str(inspector.path))
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            assert len(inspector._answers) == inspection.MOST_ANSWERS
            assert await read(inspector.path) == b""


async def test_only_the_user_may_connect(directory, monkeypatch):
    async with served(directory) as inspector:
        assert stat.S_IMODE(inspector.path.stat().st_mode) == 0o600
        monkeypatch.setattr(inspection.os, "geteuid", lambda: 4711)
        monkeypatch.setattr(inspection, "_CREDENTIALS", type("Other", (), {"size": 12, "unpack": lambda _: (1, 99, 1)}))
        assert await read(inspector.path) == b""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems set the mode after the socket appears")
async def test_the_socket_has_its_mode_from_the_beginning(directory, monkeypatch):
    modes, chmod = [], Path.chmod

    def look(path, mode):
        modes.append(stat.S_IMODE(path.stat().st_mode))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", look)
    before = os.umask(0)
    try:
        async with served(directory):
            assert modes == [0o600]
    finally:
        os.umask(before)


def test_a_directory_is_made_for_the_user_alone(directory):
    made = prepare_directory(directory / "inspect")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert prepare_directory(made) == made


def test_a_directory_that_others_may_write_to_is_refused(directory):
    directory.chmod(0o777)
    with pytest.raises(UnsafeDirectory, match="chmod 700"):
        prepare_directory(directory)


def test_a_link_and_a_file_are_refused(directory):
    (directory / "real").mkdir()
    (directory / "link").symlink_to(directory / "real")
    (directory / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UnsafeDirectory, match="no directory"):
            prepare_directory(directory / name)


def test_a_directory_of_another_user_is_refused(directory, monkeypatch):
    monkeypatch.setattr(inspection.os, "geteuid", lambda: 4711)
    with pytest.raises(UnsafeDirectory, match="belongs to the user"):
        prepare_directory(directory)


async def test_the_socket_of_a_dead_process_of_the_same_id_is_replaced(directory):
    stale = directory / f"{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    async with served(directory) as inspector:
        assert json.loads(await read(inspector.path))["process"] == os.getpid()
    assert not stale.exists()


async def test_a_socket_that_is_there_accepts_connections(directory, monkeypatch):
    """Clients remove one that does not, as that of a dead process."""
    seen, bind = [], inspection._socket.socket.bind

    class Listening(inspection._socket.socket):
        def bind(self, address):
            bind(self, address)
            seen.append(list(directory.glob("*.sock")))

    monkeypatch.setattr(inspection._socket, "socket", Listening)
    async with served(directory) as inspector:
        assert seen == [[]]
        assert list(directory.iterdir()) == [inspector.path]


async def test_a_child_of_a_fork_holds_nothing_of_it(directory):
    """The parent's socket still answers, and once the parent has closed it, nothing accepts any more."""
    async with served(directory) as inspector:
        inspection._current = inspector
        told, tell = os.pipe()
        forked, fork_done = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(tell)
            inspector.remove()  # what `atexit` would do
            os.write(fork_done, b".")
            select.select([told], [], [], 30)
            os._exit(0)
        try:
            os.close(told)
            await asyncio.to_thread(os.read, forked, 1)  # what runs in the child after a fork has run
            assert json.loads(await read(inspector.path))["process"] == os.getpid()
            path = inspector.path
            os.link(path, f"{path}.kept")
            inspector._loop.remove_reader(inspector._listener.fileno())
            inspector._listener.close()
            with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
                client.connect(f"{path}.kept")
            inspector._listener = inspection._socket.socket()
        finally:
            inspection._current = None
            for descriptor in (tell, forked, fork_done):
                os.close(descriptor)
            await asyncio.to_thread(os.waitpid, child, 0)


PROGRAM = """
import os, sys, time
import aurora_router
connection = aurora_router.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
if sys.argv[2] == "close":
    connection.close()
    time.sleep(3)
"""


@contextlib.contextmanager
def running(conninfo, directory, how="exit", **environment):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, conninfo, how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, INSPECT: str(directory), **environment},
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "connected\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def until(condition):
    for _ in range(3000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("the condition never came true")


@pytest.mark.cluster
@pytest.mark.parametrize("how", ["exit", "close"])
def test_a_process_shows_itself_while_it_has_connections(aurora_cluster, directory, how):
    from aurora_router.cli.inspected import read_processes

    with running(aurora_cluster.conninfo(), directory, how) as process:
        path = until(lambda: next(iter(directory.glob("*.sock")), None))
        assert path.name == f"{process.pid}.sock"
        (shown,) = read_processes(str(directory))
        (cluster,) = shown["clusters"]
        assert (shown["process"], cluster["writer"]) == (process.pid, aurora_cluster.writer)
        counts = {each["id"]: each["connections"] for each in cluster["instances"]}
        assert counts[aurora_cluster.writer] == 1
        assert sum(counts.values()) == 1
        (connect,) = cluster["connects"]
        assert (connect["instance"], connect["role"]) == (aurora_cluster.writer, "writer")
        assert "the writer" in connect["why"]
        assert aurora_cluster.password not in json.dumps(shown).replace(f'"{aurora_cluster.user}"', "").split('"')
        process.stdin.close()
        until(lambda: not list(directory.iterdir()))


@pytest.mark.cluster
def test_an_unsafe_directory_is_named_and_the_process_works(aurora_cluster, directory):
    directory.chmod(0o777)
    with running(aurora_cluster.conninfo(), directory, "close") as process:
        process.stdin.close()
        assert process.wait(30) == 0
        assert f"{INSPECT}={directory}: this process cannot be inspected" in process.stderr.read()
    assert not list(directory.iterdir())
