"""Points in a cluster's history, as users write them: a log position, or a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

from aurora_router_cluster.errors import TargetError
from aurora_router_cluster.lsn import format_lsn

_POSITION = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
FORMS = (
    "a log position like 0/16B3748 (from pg_current_wal_lsn()), or a time like 2026-11-21T12:34:56.5+00:00 "
    "(without a zone: UTC)"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to go: exactly one of the two is given.

    Attributes:
        lsn: everything that ended at or below this position in the log, in bytes.
        time: everything that was committed at or before this time, by the commit's own record.
    """

    lsn: int | None = None
    time: datetime | None = None

    def __str__(self) -> str:
        if self.lsn is not None:
            return format_lsn(self.lsn)
        return self.time.isoformat() if self.time is not None else "the end"


def time_text(seconds: float) -> str:
    """Seconds since 1970 as a time that `parse_target` reads."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def parse_target(text: str) -> Target:
    """Read a log position or a time.

    Raises:
        TargetError: it is neither.
    """
    position = _POSITION.fullmatch(text.strip())
    if position is not None:
        return Target(lsn=int(position[1], 16) << 32 | int(position[2], 16))
    try:
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        raise TargetError(f"{text!r} is no point in a cluster's history; write {FORMS}") from None
    return Target(time=time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc))
