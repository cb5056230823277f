"""Small disks, to be full: a tmpfs of its own for each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILLER = "filler"


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """Mount a tmpfs; skips the test where that is not allowed."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("NOT TESTED: mounting a tmpfs needs root on Linux")
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED: mounting a tmpfs is not allowed here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(directory: Path) -> None:
    """Leave no room on a small disk."""
    with contextlib.suppress(OSError), (directory / FILLER).open("ab", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


def free(directory: Path) -> None:
    """Give the room back."""
    (directory / FILLER).unlink()
