from __future__ import annotations

import asyncio
import sys

import pytest

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
