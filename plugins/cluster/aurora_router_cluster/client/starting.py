"""Starting and ending a supervisor process, from its starter's side."""

from __future__ import annotations

import contextlib
import json
import select
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, cast

from aurora_router_cluster import errors, limits
from aurora_router_cluster.errors import SupervisorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster.options import ClusterOptions

SUPERVISOR = "supervisor process of the cluster"


def spawn(options: ClusterOptions) -> subprocess.Popen[bytes]:
    """Start a supervisor; where it has an owner, its standard input is the pipe that it lives by."""
    command = [sys.executable, "-m", "aurora_router_cluster.supervisor", options.to_json()]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if options.owner is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # until the supervisor has a log: what keeps it from starting at all
        start_new_session=True,
        cwd="/",
    )


def await_ready(process: subprocess.Popen[bytes], timeout: float, what: str = SUPERVISOR) -> None:
    """Return when a process, e.g. a supervisor, says that it is ready.

    Args:
        process: with pipes as standard output and error.
        timeout: seconds that it may take.
        what: its name in messages.

    Raises:
        SupervisorError: it ended, or said nothing for `timeout` seconds.
        ClusterError: what it said went wrong, as its own class.
    """
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    if not ready:
        raise SupervisorError(f"the {what} was not ready within {timeout:g} s")
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        assert process.stderr is not None
        status, printed = process.wait(), process.stderr.read().decode(errors="replace").strip().splitlines()
        said = limits.explain_status(status, printed[-1] if printed else "")
        raise SupervisorError(
            f"the {what} ended before it was ready (status {status}): {said}; it was started by "
            f"{shlex.join(map(str, cast('list[str]', process.args)[:3]))}"
        )
    answer = json.loads(line)
    if "error" in answer:
        raise errors.by_name(answer["error"])(answer["message"])


@contextlib.contextmanager
def ending_on_failure(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process if the block fails; its standard output and error are closed in any case."""
    try:
        yield
    except BaseException:
        end(process)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a supervisor that is ours; its reaper cleans up where it had to be killed."""
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
