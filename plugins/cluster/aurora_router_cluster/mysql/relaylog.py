"""Where in its relay log a server has to go on, read off the files: MariaDB has no note of that if it follows by GTID.

Source: MariaDB documentation, "Binary Log", "Gtid_log_event". A file begins with a magic number; each event has a
header of 19 bytes (time, type, server, length, …). The end may be torn, where the process was killed while it wrote:
what is incomplete was never acknowledged.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC = b"\xfebin"
HEADER = struct.Struct("<IBIIIH")
GTID_EVENT = 162
GTID = struct.Struct("<QI")


def find_unapplied(data: Path, applied: int) -> tuple[str, int] | None:
    """Return the file and the position of the first transaction behind a sequence number; None: there is none.

    Args:
        data: the server's data directory.
        applied: the sequence number of the last transaction that was applied.
    """
    try:
        names = [line.rpartition("/")[2] for line in (data / "relay.index").read_text().split()]
    except FileNotFoundError:
        return None  # it has never been a reader
    for name in names:
        for position, sequence in _transactions(data / name):
            if sequence > applied:
                return name, position
    return None


def _transactions(file: Path) -> Iterator[tuple[int, int]]:
    """Yield where each transaction of a file begins, and its sequence number."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return
    position = len(MAGIC)
    while position + HEADER.size <= len(content):
        _, kind, _, length, _, _ = HEADER.unpack_from(content, position)
        if length < HEADER.size or position + length > len(content):
            return
        if kind == GTID_EVENT:
            yield position, GTID.unpack_from(content, position + HEADER.size)[0]
        position += length
