"""The System V shared memory of a killed postmaster, which outlives it and which nothing else removes.

A postmaster holds a small segment as a lock on its data directory. When it is killed the segment stays, until another
postmaster starts on the same directory; if none does it stays for good, and a system has a few thousand of them at
most. Line 7 of ``postmaster.pid`` names it (source: ``src/include/utils/pidfile.h``).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LINE = 6
REMOVE = 0  # IPC_RMID


def segment(data: Path) -> int | None:
    """The id of the segment that the last postmaster of a data directory made; None: it ended in order, or had none."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        return int(lines[LINE].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def remove(data: Path) -> bool:
    """Remove the segment of a data directory whose postmaster is dead; returns whether there was one.

    The system keeps a segment that a process is attached to until that one is gone.
    """
    found = segment(data)
    return found is not None and ctypes.CDLL(None).shmctl(found, REMOVE, None) == 0


def remove_below(run: Path) -> int:
    """Remove the segments of all data directories below `run`; returns how many there were."""
    return sum(remove(pid_file.parent) for pid_file in run.glob("**/postmaster.pid"))
