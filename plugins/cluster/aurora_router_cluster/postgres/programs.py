"""Running short programs without blocking the event loop, and without leaving them behind."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def copying(source: Path, target: Path) -> list[str]:
    """The command that copies a directory with owners and times; blocks are shared where the file system can."""
    reflink = ["--reflink=auto"] if sys.platform == "linux" else []
    return ["cp", "-a", *reflink, str(source), str(target)]


def unpacking(archive: Path, target: Path) -> list[str]:
    """The command that fills an existing directory from a compressed archive."""
    return ["tar", "-xzf", str(archive), "-C", str(target)]


async def finish(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run `command` to its end; killed where the caller is cancelled.

    Returns:
        Its exit status, and what it printed, standard error included.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd="/",
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace").strip()
