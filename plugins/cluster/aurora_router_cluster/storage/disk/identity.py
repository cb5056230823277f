"""A system identifier of its own for a copied data directory.

All copies of one template share its system identifier, and PostgreSQL takes log from any server that has the same: a
reader whose port was reused would replay a foreign cluster's log. The identifier is kept in two places:

* ``global/pg_control``: its first eight bytes. A CRC-32C ends the structure, whose size differs between versions; the
  rest of the 8 KiB file is zero. The checksum is found, not assumed: it is the one place where the 4 bytes are the
  CRC-32C of all before them and nothing but zeros follow (``catalog/pg_control.h``).
* the long header of the first page of each WAL segment (``access/xlog_internal.h``), which no checksum covers.

The server must be down. Running it again, also after it was interrupted, is safe.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import time
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.storage.disk.crc32c import crc32c
from aurora_router_cluster.storage.disk.errors import IdentityError

if TYPE_CHECKING:
    from pathlib import Path

CONTROL_VERSIONS: Final = range(1300, 1900)
"""PG_CONTROL_VERSION of PostgreSQL 13 to 18; the second field of the file."""

_SEGMENT_NAME: Final = re.compile(r"[0-9A-F]{24}")
_LONG_HEADER: Final = struct.Struct("=HHIQI4xQII")
_FIRST_PAGE: Final = 0x0002  # XLP_LONG_HEADER
_IDENTIFIER_OFFSET: Final = 24
_SMALLEST, _LARGEST = 128, 512  # bounds of sizeof(ControlFileData), 288 to 304 so far


def new_system_identifier() -> int:
    """Make one like initdb does: seconds since 1970 in the upper half, the rest random; never 0."""
    return int(time.time()) << 32 | secrets.randbits(32)


def system_identifier(data: Path) -> int:
    """Read the identifier of the data directory `data`.

    Raises:
        IdentityError: its control file is damaged or of an unsupported version.
    """
    control = read_control(data)
    return int(struct.unpack_from("=Q", control)[0])


def set_system_identifier(data: Path, identifier: int) -> int:
    """Give the data directory `data`, whose server is down, another identifier.

    Returns:
        How many log segments were changed.

    Raises:
        IdentityError: the control file or a segment is not understood, or a server runs; nothing was changed then.
        ValueError: the identifier is not an unsigned 64-bit number above 0.
    """
    if not 0 < identifier < 1 << 64:
        raise ValueError(f"a system identifier is a number from 1 to 2^64 - 1, not {identifier}")
    if (data / "postmaster.pid").exists():
        raise IdentityError(f"a server seems to run in {data} (postmaster.pid is there): stop it first")
    control = read_control(data)
    segments = [path for path in sorted((data / "pg_wal").iterdir()) if _SEGMENT_NAME.fullmatch(path.name)]
    for path in segments:
        _check_segment(path)
    for path in segments:
        _patch(path, _IDENTIFIER_OFFSET, struct.pack("=Q", identifier))
    write_control(data, struct.pack("=Q", identifier) + control[8:])
    return len(segments)


def read_control(data: Path) -> bytes:
    """The control file's structure (``ControlFileData``) without the checksum that ends it.

    Raises:
        IdentityError: the file is damaged or of an unsupported version.
    """
    path = data / "global" / "pg_control"
    try:
        control = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{data} is not a data directory: {error}") from error
    version = struct.unpack_from("=I", control, 8)[0] if len(control) >= 12 else 0
    if version not in CONTROL_VERSIONS:
        raise IdentityError(f"{path} has control version {version}; 1300 (PostgreSQL 13) to 1899 (18) are understood")
    return control[: _crc_offset(control, data)]


def _crc_offset(control: bytes, data: Path) -> int:
    crc = crc32c(control[:_SMALLEST])
    for at in range(_SMALLEST, min(_LARGEST, len(control) - 4) + 1, 4):
        if struct.unpack_from("=I", control, at)[0] == crc and not any(control[at + 4 :]):
            return at
        crc = crc32c(control[at : at + 4], crc)
    raise IdentityError(f"the control file of {data} is damaged: its checksum was not found")


def write_control(data: Path, control: bytes) -> None:
    """Replace the control file's structure, whose server is down; it gets a checksum."""
    _patch(data / "global" / "pg_control", 0, control + struct.pack("=I", crc32c(control)))


def _check_segment(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_LONG_HEADER.size)
    if len(head) < _LONG_HEADER.size:
        raise IdentityError(f"the log segment {path} is too short")
    _, info, _, _, _, _, segment_size, page_size = _LONG_HEADER.unpack(head)
    if not info & _FIRST_PAGE or page_size != 8192 or segment_size != path.stat().st_size:
        raise IdentityError(f"{path} does not begin with the long page header of a log segment")


def _patch(path: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
