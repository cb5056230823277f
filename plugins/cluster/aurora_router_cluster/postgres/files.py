"""Files that have to survive the loss of the machine: written so that they are there whole, or as they were before."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def write_durably(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace `path` by a file with the content `text`; on the disk when this returns.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    staged = path.with_name(path.name + ".new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    staged.replace(path)
    sync(path.parent)


def remove_durably(path: Path) -> None:
    """Delete a file, if it is there; it is gone from the disk when this returns."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Write a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Write a directory and all below it to the disk.

    Linux does that in one call for the whole file system, much faster than for a thousand files one by one.

    Raises:
        OSError: the disk refused.
    """
    if sys.platform == "linux" and _sync_file_system(directory):
        return
    for parent, _, names in os.walk(directory):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def _sync_file_system(directory: Path) -> bool:
    """Sync the file system that `directory` is on; False: the C library has no such call."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return False
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if call(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(descriptor)
    return True


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on, e.g. ``ext4``; empty: unknown (Linux knows)."""
    wanted = os.fspath(path.resolve())
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, place, type_, *_ = line.split(" ")
        place = place.replace("\\040", " ")
        inside = place in ("/", wanted) or wanted.startswith(place + "/")
        if inside and len(place) >= len(best):
            best, kind = place, type_
    return kind
