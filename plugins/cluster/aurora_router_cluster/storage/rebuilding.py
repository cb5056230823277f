"""Building a data directory as it was at an earlier point, by PostgreSQL's own recovery.

A base is copied, a server replays the log of the branch from the storage's endpoint, and pauses at the target: for a
time the commit's own record decides, as with ``recovery_target_time``; for a position everything counts that ended at
or below it. Where it pauses is the point: a record boundary.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import template
from aurora_router_cluster.postgres.endpoints import EngineAddress
from aurora_router_cluster.postgres.engine import Engine, State
from aurora_router_cluster.postgres.session import Session
from aurora_router_cluster.postgres.settings import SUPERUSER
from aurora_router_cluster.storage.branchlog import BranchLog
from aurora_router_cluster.wire.endpoint import WalEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from aurora_router_cluster.storage.history import BranchRange, VolumeHistory
    from aurora_router_cluster.storage.targets import Target

POLL = 0.005
QUIET = 1.0  # seconds without more log after which a branch without a writer has been replayed to its end
PATIENCE = 100.0  # seconds for the whole replay


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A server that has replayed up to the target and pauses there.

    Attributes:
        engine: it; on a Unix socket alone.
        lsn: the point, in bytes.
    """

    engine: Engine
    lsn: int


@contextlib.asynccontextmanager
async def rebuilt(
    history: VolumeHistory,
    branch_range: BranchRange,
    target: Target,
    engine: Engine,
    overrides: Mapping[str, str],
    nudge: Callable[[], Awaitable[bool]],
) -> AsyncIterator[Rebuilt]:
    """Build the data directory of `engine` as of `target`; its server ends with the block.

    Args:
        history: whose.
        branch_range: the branch.
        target: where to stop.
        engine: a new one.
        overrides: server settings of the user's.
        nudge: lets the writer commit something, so that the log goes on behind the target; False: there is no writer.

    Raises:
        TargetError: outside of the window.
        EngineError: the replay failed, or took too long.
    """
    volume, base = history.volume, history.base_for(branch_range, target)
    engine.make_home()
    endpoint: WalEndpoint | None = None
    history.in_use.append(base)
    try:
        await volume.copy_base(base.directory, engine.data)
        conninfo = volume.conninfo(engine.name)
        if branch_range.kept is not None:
            endpoint = WalEndpoint(BranchLog(branch_range.kept, volume.nodes, volume.log))
            conninfo = volume.conninfo(engine.name, await endpoint.listen_tcp(volume.login()))
        settings = recovery_settings(target, branch_range)
        engine.configure({**overrides, "primary_conninfo": conninfo, **settings}, standby=True)
        engine.start()
        await engine.wait()
        moving = branch_range.kept is None and await nudge()
        lsn, paused = await _wait_for_replay(engine, branch_range, moving=moving)
        if not paused:
            await _forget_target(engine, overrides, lsn)
        yield Rebuilt(engine, lsn)
    finally:
        history.in_use.remove(base)
        engine.kill()
        if endpoint is not None:
            await endpoint.close()


def recovery_settings(target: Target, branch_range: BranchRange) -> dict[str, str]:
    """The server settings that stop a replay at `target`."""
    stop = {"recovery_target_action": "pause", "synchronous_standby_names": "", "hot_standby_feedback": "off"}
    if target.time is not None:
        return {**stop, "recovery_target_time": target.time.isoformat(sep=" ")}
    lsn = branch_range.end if target.lsn is None else target.lsn
    text = f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
    return {**stop, "recovery_target_lsn": text, "recovery_target_inclusive": "off"}


async def _wait_for_replay(engine: Engine, branch_range: BranchRange, *, moving: bool) -> tuple[int, bool]:
    """Wait until the replay pauses, or has come to the end of a branch that does not go on.

    Returns:
        Where that is, in bytes, and whether it pauses.
    """
    session = Session(EngineAddress(engine.name, engine.home, engine.port, SUPERUSER, engine.data))
    deadline = time.monotonic() + PATIENCE
    query = "SELECT pg_get_wal_replay_pause_state(), pg_last_wal_replay_lsn() - '0/0'"
    last, since = -1, time.monotonic()
    try:
        while True:
            if engine.state() is not State.STANDBY:
                raise EngineError(f"the replay did not stop at the target:\n{engine.log_tail()}")
            state, replayed = (await session.query(query))[0]
            lsn = int(replayed or 0)
            if lsn != last:
                last, since = lsn, time.monotonic()
            quiet = time.monotonic() - since
            ended = not moving and lsn >= branch_range.end and quiet > (0 if branch_range.kept else QUIET)
            if state == "paused" or ended:
                return lsn, state == "paused"
            if time.monotonic() > deadline:
                raise EngineError(f"the replay is at {lsn:#x} after {PATIENCE:g} s:\n{engine.log_tail()}")
            await asyncio.sleep(POLL)
    finally:
        session.close()


async def _forget_target(engine: Engine, overrides: Mapping[str, str], lsn: int) -> None:
    """Start a server that has replayed all the log there is once more, without a target, and without a source of log.

    PostgreSQL takes it for an error if a server is promoted before it has come to its target: without a writer no
    record comes that lies behind it.

    Raises:
        EngineError: it did not start, or does not replay up to `lsn` any more.
    """
    await engine.stop()
    alone = {"primary_conninfo": "", "synchronous_standby_names": "", "hot_standby_feedback": "off"}
    engine.configure({**overrides, **alone}, standby=True)
    engine.start()
    await engine.wait()
    session = Session(EngineAddress(engine.name, engine.home, engine.port, SUPERUSER, engine.data))
    deadline = time.monotonic() + PATIENCE
    try:
        while int((await session.query("SELECT pg_last_wal_replay_lsn() - '0/0'"))[0][0] or 0) < lsn:
            if time.monotonic() > deadline:
                raise EngineError(f"the log up to {lsn:#x} was not replayed again:\n{engine.log_tail()}")
            await asyncio.sleep(POLL)
    finally:
        session.close()


async def leave_for_writer(engine: Engine, data: Path) -> None:
    """Make the data directory of a paused server that of a reader that will be promoted where it paused.

    The log that it has received goes on behind the point: it is taken away, and the storage supplies what counts.
    """
    await engine.stop()
    await asyncio.to_thread(_move, engine.data, data)


def _move(source: Path, target: Path) -> None:
    for segment in (source / "pg_wal").iterdir():
        if len(segment.name) == 24:
            segment.unlink()
    shutil.rmtree(target, ignore_errors=True)
    source.rename(target)


async def leave_for_cluster(engine: Engine) -> Path:
    """Promote a paused server, and make its data directory one that a cluster of its own can begin with.

    Raises:
        EngineError: it could not be promoted or stopped.
    """
    await engine.promote()
    session = Session(EngineAddress(engine.name, engine.home, engine.port, SUPERUSER, engine.data))
    try:
        await session.query("CHECKPOINT", timeout=60.0)
        await session.query("SELECT pg_switch_wal()", timeout=60.0)  # the new log begins in a file of its own timeline
        await session.query("CHECKPOINT", timeout=60.0)
    finally:
        session.close()
    await engine.stop(timeout=60.0)
    await asyncio.to_thread(template.keep_redo_segment, engine.binaries, engine.account, engine.data)
    return engine.data
