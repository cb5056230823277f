"""An instance as the control plane keeps it: an engine with a place, a role, a tier and a heartbeat."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aurora_router_cluster.control import sampling
from aurora_router_cluster.control.attention import wait_attentively
from aurora_router_cluster.control.sampling import Sample
from aurora_router_cluster.errors import EngineError, StartingUpError
from aurora_router_cluster.options import DEFAULT_CLASS
from aurora_router_cluster.postgres import processes
from aurora_router_cluster.postgres.session import CONTROL_PLANE, Session

if TYPE_CHECKING:
    from pathlib import Path

    from aurora_router_cluster.control.hosting import AnyEngine
    from aurora_router_cluster.postgres.addresses import Address
    from aurora_router_cluster.postgres.endpoints import EngineAddress
    from aurora_router_cluster.postgres.session import Row

PATIENCE = 10.0  # seconds that an instance has to answer one question, before the session is given up
BEAT = "beat"  # directory, in `Instance.wire`, of the heartbeat's socket
DRAIN_SECONDS = 0.1  # between two looks at the sessions of an instance that is removed
USED = f"""SELECT FROM pg_stat_activity WHERE backend_type = 'client backend'
AND application_name <> '{CONTROL_PLANE}' LIMIT 1"""  # whether it has sessions of users
STALE = 5  # samples kept; the stream's speed is measured across them


@dataclass
class Instance:
    """One instance; mutable, owned by the control plane's event loop.

    Attributes:
        engine: its PostgreSQL.
        zone: availability zone.
        tier: promotion tier.
        address: where clients reach it: where it listens, or the relay for it.
        wire: directory of the relay's Unix socket for it; None: there is no relay.
        instance_class: what kind of machine it stands for, e.g. ``db.r6g.large``; nothing depends on it here.
        created: when it was made, seconds since the epoch.
        autoscaled: it was made by auto-scaling, which may remove it.
        capacity: of a serverless instance, in ACU; None: it is none.
        state: see `status.InstanceStatus`.
        stopped_by_request: it was stopped on purpose and is not restarted by itself.
        catch_up_lsn: end of the log (bytes) that was durable when it was started; no client is sent to it until it has
            replayed that much. None: it has.
        session_id: what ``aurora_replica_status()`` shows of it while it is a reader.
        samples: latest answers to the heartbeat, newest last.
        lag: replica lag in seconds at the last sample; None: unknown.
        cpu: use of the machine's processors lately, percent; None: unknown.
        missed: heartbeats without an answer in a row.
        owes_log: it is a reader that may have acknowledged commits which no other reader is known to have; see
            `storage.semisync`.
        beats_down: heartbeats in a row in which it did not run.
        started_at: monotonic time at which it was started last, as a reader.
        silent_since: monotonic time since when it has no stream of log; None: it has one.
        stalled_since: monotonic time since when it has neither received nor replayed more log.
        stalled_looks: answers since then.
    """

    engine: AnyEngine
    zone: str
    tier: int
    address: Address
    wire: Path | None = None
    instance_class: str = DEFAULT_CLASS
    created: float = field(default_factory=time.time)
    autoscaled: bool = False
    capacity: float | None = None
    state: str = "creating"
    stopped_by_request: bool = False
    catch_up_lsn: int | None = None
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=STALE))
    lag: float | None = None
    cpu: float | None = None
    missed: int = 0
    owes_log: bool = False
    beats_down: int = 0
    started_at: float = -math.inf
    silent_since: float | None = None
    stalled_since: float = 0.0
    stalled_looks: int = 0

    def __post_init__(self) -> None:
        self.session = Session(self._beaten)
        self._asked: asyncio.Task[list[Row]] | None = None

    @property
    def name(self) -> str:
        """Its identifier."""
        return self.engine.name

    @property
    def where(self) -> EngineAddress:
        """How the storage and the control plane reach it."""
        where = self.engine.where
        return where if self.wire is None else replace(where, socket_directory=self.wire)

    @property
    def _beaten(self) -> EngineAddress:
        """How the heartbeat reaches it: over the relay by a route of its own."""
        where = self.where
        return where if self.wire is None else replace(where, socket_directory=self.wire / BEAT)

    @property
    def pid(self) -> int | None:
        """Process id of its postmaster; None: it is down."""
        return self.engine.pid

    @property
    def available(self) -> bool:
        """Whether it takes connections, as far as known."""
        return self.state == "available"

    @property
    def follows(self) -> bool:
        """Whether it takes part as far as known: it takes connections, or will after its replay."""
        return self.available or self.catch_up_lsn is not None

    @property
    def newest(self) -> Sample | None:
        """The latest sample."""
        return self.samples[-1] if self.samples else None

    async def sample(self, timeout: float) -> None:
        """Query its state; `missed` says whether it answered within `timeout` seconds.

        A question that is not answered stays open for the next calls: a server that is merely slow owes one
        answer, and is not burdened with another session at every heartbeat. Time in which this process or the server's
        was kept from the processors does not count.
        """
        asked = self._asked or self._ask()
        done = await wait_attentively(asked, timeout)
        if self._asked is not asked:
            return  # another caller that waited for it was first, or it is no longer wanted
        if not done:
            self.missed += not self._is_starved()
            return
        self._asked = None
        try:
            self._on_answer(asked.result())
        except StartingUpError:
            self.missed = 0 if self.catch_up_lsn is not None else self.missed + 1  # one that replays says so
        except EngineError:
            self.missed += 1

    def _is_starved(self) -> bool:
        """Whether the process that owes the answer would give it if the machine let it run."""
        if not self.engine.here:
            return False
        owing = self.session.backend or self.engine.pid
        return owing is not None and processes.wants_processor(owing)

    def _ask(self) -> asyncio.Task[list[Row]]:
        self._asked = asyncio.get_running_loop().create_task(self.session.query(sampling.QUERY, PATIENCE))
        self._asked.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._asked

    def _on_answer(self, rows: list[Row]) -> None:
        now, before = time.monotonic(), self.newest
        newest = Sample.from_row(rows[0], at=now, wall=time.time())
        self.samples.append(newest)
        self.missed = 0
        self.silent_since = None if newest.streaming else self.silent_since or now
        if before is None or (newest.received, newest.applied) != (before.received, before.applied):
            self.stalled_since, self.stalled_looks = now, 0
        else:
            self.stalled_looks += 1

    async def wait_until_drained(self, seconds: float) -> None:
        """Wait until its users' sessions have ended, so many seconds at most; not if it does not answer."""
        until = time.monotonic() + seconds
        with suppress(EngineError):
            while (left := until - time.monotonic()) > 0.0 and await self.session.query(USED, left):  # noqa: ASYNC110 - of a server
                await asyncio.sleep(min(DRAIN_SECONDS, left))

    def forget(self) -> None:
        """Drop what was known of a server that is no more."""
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None
        self.session.close()
        self.samples.clear()
        self.catch_up_lsn = None
        self.lag = self.cpu = None
        self.missed = 0
        self.silent_since = None
