"""Looking at processes: an instance is a postmaster and its children, each in a session of its own.

PostgreSQL's children leave the process group of the postmaster, so a signal to the group reaches none of them:
they are found by their parent. Linux only needs ``/proc``; elsewhere ``ps`` shows the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

PROC = Path("/proc")
STOPPED = "TtZX"
"""States of a thread that runs no more: stopped, or ended."""
STOP_SECONDS = 0.5
"""For how long a thread is waited for that cannot be stopped now, because it waits for a disk."""
STOP_INTERVAL = 0.0005
"""Between two looks at one, in seconds."""


def children(parent: int) -> list[int]:
    """The process ids of the children of `parent`, in no particular order."""
    return [pid for pid, its_parent in _parents().items() if its_parent == parent]


def _parents() -> dict[int, int]:
    """Process id -> its parent's, for all processes that we can see."""
    if sys.platform != "linux":
        listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        return {int(pid): int(parent) for pid, parent in (line.split() for line in listing.splitlines())}
    found: dict[int, int] = {}
    for name in os.listdir(PROC):  # noqa: PTH208 - thousands of entries, several times a second
        if name.isdigit() and (fields := stat_fields(int(name))):
            found[int(name)] = int(fields[1])
    return found


def stat_fields(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state (index 0) on; empty where there is no such process."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)  # not by pathlib: hundreds of them, every second
    except OSError:
        return []
    try:
        text = os.read(descriptor, 4096).decode(errors="replace")
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return text[text.rfind(")") + 2 :].split()


def wants_processor(pid: int) -> bool:
    """Whether a process is ready to run: it has a processor, or waits for one (Linux only, else False)."""
    return sys.platform == "linux" and stat_fields(pid)[:1] == ["R"]


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False where the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def freeze(postmaster: int) -> None:
    """Stop a server and all of its children: when this returns, nothing of the instance answers.

    A signal is taken when a thread gets a processor the next time, so a busy machine may answer until then.
    """
    until = time.monotonic() + STOP_SECONDS
    for pid in _stop(postmaster):
        while _is_running(pid) and time.monotonic() < until:
            time.sleep(STOP_INTERVAL)


def _is_running(pid: int) -> bool:
    """Whether a thread of a process has not stopped yet (Linux only, else False)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - as above
    except OSError:
        return False
    states = [stat_fields(int(each))[:1] for each in threads]
    return any(state and state[0] not in STOPPED for state in states)


def _stop(postmaster: int) -> list[int]:
    """Send SIGSTOP to a server and all of its children; return them.

    Stopping the postmaster alone leaves its sessions answering. A child that was being forked meanwhile is
    found by looking again until no new one appears.
    """
    stopped: list[int] = []
    found = [postmaster]
    while found:
        for pid in found:
            send(pid, signal.SIGSTOP)
        stopped += found
        found = [pid for pid in children(postmaster) if pid not in stopped]
    return stopped


def thaw(postmaster: int) -> None:
    """Let a frozen instance go on."""
    for pid in [*children(postmaster), postmaster]:
        send(pid, signal.SIGCONT)


def kill(postmaster: int) -> None:
    """End an instance as the loss of its machine would: all processes at once, no last word to any client."""
    for pid in _stop(postmaster):
        send(pid, signal.SIGKILL)


def cpu_seconds(postmasters: Collection[int]) -> dict[int, float]:
    """Processor time that instances used so far, ended children included: postmaster -> seconds.

    One pass over all processes, however many instances. Empty where it is not known: not on Linux, or no file can be
    opened at this moment.
    """
    if sys.platform != "linux":
        return {}
    ticks = dict.fromkeys(postmasters, 0)
    try:
        names = os.listdir(PROC)  # noqa: PTH208 - as above
    except OSError:
        return {}
    for name in names:
        if name.isdigit() and (fields := stat_fields(int(name))):
            if int(name) in ticks:
                ticks[int(name)] += sum(map(int, fields[11:15]))  # its own, and its ended children's
            elif int(fields[1]) in ticks:
                ticks[int(fields[1])] += sum(map(int, fields[11:13]))
    return {postmaster: spent / os.sysconf("SC_CLK_TCK") for postmaster, spent in ticks.items()}


def in_directory(directory: Path, command: str = "") -> list[int]:
    """Processes whose working directory is `directory` or below it (Linux only, else none).

    `command`: only those in whose command line it is.

    Every process of an instance works in its data directory, so this finds leftovers for certain, even
    if their parents have ended.
    """
    found: list[int] = []
    if sys.platform != "linux":
        return found
    wanted = str(directory.resolve())
    for name in os.listdir(PROC):  # noqa: PTH208 - as above
        with contextlib.suppress(OSError):
            place = os.readlink(PROC / name / "cwd") if name.isdigit() else ""  # noqa: PTH115 - as above
            inside = place == wanted or place.startswith(wanted + "/")
            if inside and (not command or command.encode() in (PROC / name / "cmdline").read_bytes()):
                found.append(int(name))
    return found


def sweep(directory: Path, command: str = "") -> int:
    """Kill every process that works in `directory` or below; return how many there were. `command`: see above."""
    killed = 0
    while found := [pid for pid in in_directory(directory, command) if not is_zombie(pid)]:
        killed += sum(send(pid, signal.SIGKILL) for pid in found)
    return killed


def is_zombie(pid: int) -> bool:
    """Whether the process ended and only waits to be collected by its parent (or is gone altogether)."""
    fields = stat_fields(pid)
    return not fields or fields[0] in "ZX"
