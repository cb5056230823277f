"""Running short programs without blocking the event loop, and without leaving them behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from aurora_router_cluster import limits
from aurora_router_cluster.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHUNK = 4096  # bytes that are read at once
POLL = 0.001  # seconds between two looks at a program that has closed its output


def copying(source: Path, target: Path) -> list[str]:
    """The command that copies a directory with owners and times; blocks are shared where the file system can."""
    reflink = ["--reflink=auto"] if sys.platform == "linux" else []
    return ["cp", "-a", *reflink, str(source), str(target)]


def unpacking(archive: Path, target: Path) -> list[str]:
    """The command that fills an existing directory from a compressed archive."""
    return ["tar", "-xzf", str(archive), "-C", str(target)]


async def finish(
    command: Sequence[str], env: Mapping[str, str] | None = None, *, within: Path | None = None
) -> tuple[int, str]:
    """Run `command` to its end; it does not outlive this call, however that ends.

    No thread is needed: asyncio's own way starts one for each program (until Python 3.11), and where the machine
    allows no more, it fails after the program was started and leaves it running.

    Args:
        command: its words.
        env: its environment; None: ours.
        within: its working directory, by which a sweep finds it if we are killed; None: the root.

    Returns:
        Its exit status, and what it printed, standard error included.
    """
    process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond, and is waited for without blocking
        command,
        cwd=within or "/",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        printed = await _read_to_end(process.stdout)
        while (status := process.poll()) is None:  # noqa: ASYNC110 - it is about to end; an event needs a thread
            await asyncio.sleep(POLL)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return status, printed.decode(errors="replace").strip()


async def _read_to_end(pipe: IO[bytes]) -> bytes:
    """All that comes out of a pipe.

    Not by asyncio's transport: that asks for 256 KiB at once, and where there is no memory it logs the error and reads
    again, forever.
    """
    loop = asyncio.get_running_loop()
    read: list[bytes] = []
    ended: asyncio.Future[None] = loop.create_future()

    def on_readable() -> None:
        try:
            read.append(os.read(pipe.fileno(), CHUNK))
        except (OSError, MemoryError) as error:
            loop.remove_reader(pipe)
            ended.set_exception(error)
            return
        if not read[-1]:
            loop.remove_reader(pipe)
            ended.set_result(None)

    loop.add_reader(pipe, on_readable)
    try:
        await ended
    finally:
        loop.remove_reader(pipe)
    return b"".join(read)


def run_copy(source: Path, command: Sequence[str], target: Path) -> None:
    """Run a program that copies `source` to `target`, blocking; a sweep of the directory above `target` ends it.

    Raises:
        EngineError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=target.parent)
    if done.returncode != 0:
        raise EngineError(explain_copy(source, target, done.returncode, done.stderr.strip()))


def explain_copy(source: Path | str, target: Path | str, status: int, printed: str) -> str:
    """What is said of a copy that failed."""
    return f"copying {source} to {target} failed: {limits.explain_status(status, printed)}"
