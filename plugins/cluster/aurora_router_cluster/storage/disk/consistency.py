"""How far a standby has to replay before PostgreSQL lets anyone connect: its minimum recovery point.

A hot standby takes no connection (SQLSTATE 57P03) until it has replayed the log up to the minimum recovery point in its
control file: before that its data files may be inconsistent. A later point is as good for PostgreSQL, and keeps a
standby that was just built from showing an earlier state. ``pg_rewind`` sets it in the same way.

The point lies on a timeline, and the server must know that one when it starts: its history file, and those of all
before, have to be in ``pg_wal`` (PostgreSQL looks for the newest one number by number).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.lsn import parse_lsn
from aurora_router_cluster.storage.disk.identity import read_control, write_control

if TYPE_CHECKING:
    from pathlib import Path

_POINT: Final = struct.Struct("=QI")
_OFFSET: Final = 136
"""Of minRecoveryPoint and minRecoveryPointTLI in ``ControlFileData``; the same in PostgreSQL 13 to 18."""


def minimum_recovery_point(data: Path) -> tuple[int, int]:
    """Returns the position in bytes and the timeline, from the control file of `data`.

    Raises:
        IdentityError: the file is damaged or of an unsupported version.
    """
    lsn, timeline = _POINT.unpack_from(read_control(data), _OFFSET)
    return lsn, timeline


def timeline_of(position: int, newest: int, history: bytes | None) -> int:
    """The timeline that the byte before `position` is on, as PostgreSQL understands it.

    The log of a clone begins after the switch to its own timeline, so what the log knows of timelines is not enough.

    Args:
        position: in bytes.
        newest: the newest timeline.
        history: content of its history file; None: it has none, as the first one.
    """
    for line in (history or b"").decode().splitlines():
        fields = line.split("\t")
        if len(fields) > 1 and fields[0].strip().isdigit() and position <= parse_lsn(fields[1]):
            return int(fields[0])
    return newest


def raise_minimum_recovery_point(data: Path, lsn: int, timeline: int) -> bool:
    """Let a standby whose server is down take connections only when it has replayed up to `lsn`, on `timeline`.

    Returns:
        Whether it was changed: a point that is as late stays.

    Raises:
        IdentityError: the control file is damaged or of an unsupported version.
    """
    if minimum_recovery_point(data)[0] >= lsn:
        return False
    control = read_control(data)
    write_control(data, control[:_OFFSET] + _POINT.pack(lsn, timeline) + control[_OFFSET + _POINT.size :])
    return True
