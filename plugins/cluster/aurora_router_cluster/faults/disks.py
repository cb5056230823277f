"""Damage to a storage node's files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.storage.disk.frames import Draft, pack_header
from aurora_router_cluster.storage.protocols import LOG

if TYPE_CHECKING:
    from pathlib import Path

TORN = 4096  # bytes of log whose write the power loss interrupts


def newest_file(directory: Path) -> Path:
    """The file that a node appends to.

    Raises:
        RequestError: the node has none.
    """
    files = sorted(directory.glob("*.frames"))
    if not files:
        raise RequestError(f"there is no log of the node in {directory}")
    return files[-1]


def flip_byte(directory: Path, offset: int | None) -> int:
    """Flip all bits of one byte of the newest file; returns its offset (default: the middle).

    Raises:
        RequestError: the file is shorter.
    """
    path = newest_file(directory)
    size = path.stat().st_size
    place = size // 2 if offset is None else offset
    if not 0 <= place < size:
        raise RequestError(f"offset={place}: {path.name} has {size} bytes")
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        (byte,) = os.pread(descriptor, 1, place)
        os.pwrite(descriptor, bytes([byte ^ 0xFF]), place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return place


def tear(directory: Path) -> int:
    """Leave half a frame at the end of the newest file, of a node that is down; returns how many bytes.

    A frame that was being written: it was not yet acknowledged as durable.
    """
    path = newest_file(directory)
    position = int(path.stem, 16) << 32 | path.stat().st_size
    draft = Draft(LOG, 1, 0, b"\xa5" * TORN)
    torn = (pack_header(draft, position, position) + draft.payload)[: draft.size // 2]
    with path.open("ab") as file:
        file.write(torn)
        file.flush()
        os.fsync(file.fileno())
    return len(torn)
