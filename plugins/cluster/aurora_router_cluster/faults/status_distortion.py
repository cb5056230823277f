"""How faults distort what the cluster reports about itself: the rows of ``aurora_replica_status()``. No I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Rows = list[dict[str, object]]


class Picture:
    """Distorts the rows that instances show.

    Attributes:
        skews: instance -> seconds by which the time stamp of *its* row is wrong, on every instance that shows it.
        kept: instance -> the rows that *it* goes on showing of the others; an instance knows itself.
    """

    def __init__(self) -> None:
        self.skews: dict[str, float] = {}
        self.kept: dict[str, Rows] = {}

    def distort(self, instance: str, rows: Rows) -> Rows:
        """The rows that `instance` shows."""
        kept = self.kept.get(instance)
        if kept is not None:
            own = [row for row in rows if row.get("server_id") == instance]
            rows = [row for row in kept if row.get("server_id") != instance] + own
        return [skew(row, self.skews.get(str(row.get("server_id")), 0.0)) for row in rows] if self.skews else rows


def skew(row: Mapping[str, object], seconds: float) -> dict[str, object]:
    """A row whose clock is wrong by so many seconds."""
    stamp = row.get("last_update_timestamp")
    if not seconds or not isinstance(stamp, str):
        return dict(row)
    wrong = datetime.fromisoformat(stamp) + timedelta(seconds=seconds)
    return {**row, "last_update_timestamp": wrong.isoformat()}
