"""What instances say about themselves, and what ``aurora_replica_status()`` makes of it. No I/O.

Replica lag is measured, not estimated: the control plane keeps when the writer's log reached which position. A
reader that has replayed all that the writer had written when it was asked has no lag; one that has not lags by
the age of the first byte that it lacks, and by no more than the age of the last commit that it replayed.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router_cluster.postgres.session import Row

QUERY = """
SELECT r, CASE WHEN r THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0',
  CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0',
  CASE WHEN r THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
  (SELECT count(*) FROM pg_stat_activity
   WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()),
  (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'DataFileRead'),
  (SELECT sum(blks_read)::bigint FROM pg_stat_database),
  pg_snapshot_xmin(pg_current_snapshot()),
  CASE WHEN r THEN EXISTS (SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming') ELSE true END,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
FROM (SELECT pg_is_in_recovery() AS r) AS role
"""  # simple protocol, one statement: one round trip per instance and heartbeat


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to `QUERY`; positions are bytes of log.

    Attributes:
        at: monotonic time of the answer, seconds.
        wall: the wall clock's time of the answer, seconds since 1970.
        recovering: it is a reader.
        received: log received and flushed (reader) or flushed (writer).
        applied: log replayed (reader) or inserted (writer).
        commit_age: seconds since the last commit that was replayed; None: unknown, or the writer.
        active: sessions with an open transaction or query.
        reading: sessions that wait for a data file's block at this moment.
        reads: blocks read so far.
        xmin: oldest transaction that a snapshot here can see, 64 bits (epoch in the upper half).
        streaming: the log arrives.
        sessions: of clients.
    """

    at: float
    wall: float
    recovering: bool
    received: int
    applied: int
    commit_age: float | None
    active: int
    reading: int
    reads: int
    xmin: int
    streaming: bool
    sessions: int = 0

    @classmethod
    def from_row(cls, row: Row, *, at: float, wall: float) -> Sample:
        """Read the row that `QUERY` returned.

        What a writer has *flushed* is the end of its log for all other instances. Where it would insert next may be
        above that for good: at the start of a page, after a log switch, it stands behind the page's header already.
        """
        number = [None if value is None else float(value) for value in row[3:4]]
        received, applied, active, reading, reads, xmin = (int(row[i] or 0) for i in (1, 2, 4, 5, 6, 7))
        if row[0] == "t":
            received = max(received, applied)
        return cls(
            at, wall, row[0] == "t", received, applied, number[0], active, reading, reads, xmin,
            row[8] == "t", int(row[9] or 0),
        )  # fmt: skip


class LogClock:
    """Remembers when the writer's log had reached which position.

    Args:
        depth: how many observations are kept.
    """

    def __init__(self, depth: int = 512) -> None:
        self._times: deque[float] = deque(maxlen=depth)
        self._positions: deque[int] = deque(maxlen=depth)

    def observe(self, at: float, position: int) -> None:
        """The writer's log ended at `position` at the monotonic time `at`."""
        if self._positions and position < self._positions[-1]:  # a new writer: what was above is gone
            self._times.clear()
            self._positions.clear()
        self._times.append(at)
        self._positions.append(position)

    def lag(self, sample: Sample) -> float | None:
        """Replica lag of a reader's sample, in seconds; None where nothing was observed yet."""
        if not self._positions:
            return None
        age = self.age(sample.applied, sample.at)
        return age if sample.commit_age is None else min(age, max(0.0, sample.commit_age))

    def age(self, position: int, now: float) -> float:
        """For how many seconds the log has been longer than `position`; 0.0: it is not."""
        if not self._positions or position >= self._positions[-1]:
            return 0.0
        first_lacking = bisect.bisect_right(list(self._positions), position)
        return max(0.0, now - self._times[first_lacking])


@dataclass(frozen=True, slots=True)
class Member:
    """What the rows need to know of one instance.

    Attributes:
        name: its identifier.
        session: what identifies it while it is a reader.
        writer: it is the writer.
        samples: its latest answers, newest last.
        lag: replica lag in seconds; None: unknown.
        cpu: use of the machine's processors, percent; None: unknown.
    """

    name: str
    session: str
    writer: bool
    samples: tuple[Sample, ...]
    lag: float | None
    cpu: float | None


def replica_status(members: Sequence[Member], durable: int | None) -> list[dict[str, object]]:
    """The rows for ``aurora_replica_status()``: one dict per instance, see ``postgres/sql/surface.sql``."""
    return [_row(member, durable) for member in members]


def _row(member: Member, durable: int | None) -> dict[str, object]:
    identity = {"server_id": member.name, "session": member.session, "writer": member.writer}
    if not member.samples:
        return identity  # a writer that was never asked yet
    first, last = member.samples[0], member.samples[-1]
    lag = member.lag or 0.0
    span = last.at - first.at
    speed = (last.received - first.received) / span / 1024 if span > 0 else 0.0
    return {
        **identity,
        "durable_lsn": _durable(member, last, durable),
        "highest_lsn_rcvd": last.received,
        "current_read_lsn": last.applied,
        "cur_replay_latency_in_usec": round(lag * 1e6),
        "active_txns": last.active,
        "last_transport_error": 0 if last.streaming else 1,
        "last_error_timestamp": None if last.streaming else _iso(last.wall),
        "last_update_timestamp": _iso(last.wall),
        "feedback_xmin": last.xmin & 0xFFFFFFFF,
        "feedback_epoch": last.xmin >> 32,
        "replica_lag_in_msec": round(lag * 1e3),
        "log_stream_speed_in_kib_per_second": round(max(0.0, speed), 3),
        "log_buffer_sequence_number": last.received // 8192,
        "oldest_read_view_lsn": last.applied,
        "pending_read_ios": last.reading,
        "read_ios": last.reads,
        "cpu": member.cpu,
    }


def _durable(member: Member, last: Sample, durable: int | None) -> int:
    """How much of the log an instance shows as durable: the writer what the volume has, however old its sample."""
    if durable is None:
        return last.received
    return durable if member.writer else min(durable, last.received)


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, timezone.utc).isoformat()
