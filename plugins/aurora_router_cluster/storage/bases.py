"""Bases: data directories kept in the storage, from which instances are built and the log is replayed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.storage.core.gc import Base
from aurora_router_cluster.storage.core.lsn import parse_lsn

if TYPE_CHECKING:
    from pathlib import Path

_START = re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) ", re.MULTILINE)


def read_base(directory: Path, taken: float) -> Base:
    """What the backup label of a base says.

    Args:
        directory: the data directory that pg_basebackup made.
        taken: when, in seconds since 1970.

    Raises:
        EngineError: there is no label, or no position in it.
    """
    try:
        label = (directory / "backup_label").read_text(encoding="utf-8")
    except OSError as error:
        raise EngineError(f"{directory} is no backup: {error}") from error
    found = _START.search(label)
    if found is None:
        raise EngineError(f"the backup label in {directory} does not tell where its log begins: {label!r}")
    redo = parse_lsn(found[1])
    return Base(redo, redo, taken)
