from __future__ import annotations

import asyncio
import os
import resource
import sys
import threading

import pytest

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import processes, programs


async def test_status_and_output_of_both_streams():
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    assert await programs.finish([sys.executable, "-c", code]) == (3, "out\nerr")


async def test_a_program_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        await programs.finish(["/nowhere/program"])


async def test_cancelling_kills_it(tmp_path):
    mark = tmp_path / "pid"
    code = f"import os, pathlib, signal; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); signal.pause()"
    task = asyncio.get_running_loop().create_task(programs.finish([sys.executable, "-c", code]))
    while not (mark.exists() and mark.read_text()):  # noqa: ASYNC110 - a test may poll
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes.is_zombie(int(mark.read_text()))


async def test_it_needs_no_thread(monkeypatch):
    """Where no thread can be started, asyncio's own way fails after the program was started, and leaves it running."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await programs.finish([sys.executable, "-c", "print('done')"]) == (0, "done")


async def test_a_copy_works_where_a_sweep_finds_it(tmp_path):
    code = "import signal; signal.pause()"
    task = asyncio.get_running_loop().create_task(programs.finish([sys.executable, "-c", code], within=tmp_path))
    while not processes.in_directory(tmp_path):  # noqa: ASYNC110 - a test may poll
        await asyncio.sleep(0.005)
    processes.sweep(tmp_path)
    assert (await task)[0] == -9


def test_a_copy_that_a_limit_ended_says_so(tmp_path):
    (tmp_path / "source").write_bytes(bytes(1 << 16))
    limit = f"import os, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}));"
    words = [str(tmp_path / "source"), str(tmp_path / "target")]
    command = [sys.executable, "-c", f"{limit} os.execvp('cp', ['cp', *{words!r}])"]
    with pytest.raises(EngineError, match=r"copying .*/source to .*/target failed: .*(SIGXFSZ|File too large)"):
        programs.run_copy(tmp_path / "source", command, tmp_path / "target")
    assert os.path.getsize(tmp_path / "target") <= 4096  # noqa: PTH202
