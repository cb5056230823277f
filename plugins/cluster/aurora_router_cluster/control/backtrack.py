"""Setting a cluster back to an earlier point or forward again, and making new clusters from its history.

A backtrack in steps: build a data directory as it was at the target, beside the running cluster; end all instances;
fence and open a new branch of the log there (`storage.history`); put that directory in the writer's place, promote it,
attach it; rebuild the readers. Names, addresses, ports and the system identifier stay: clients see a failover.

Invariants: nothing is changed before the target has been built; an instance that was ended for a backtrack is built
again before it serves, whether the backtrack succeeded or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control.event_log import SNAPSHOT
from aurora_router_cluster.control.failover import Phases
from aurora_router_cluster.control.sampling import LogClock
from aurora_router_cluster.errors import ClusterError, EngineError, RequestError, TargetError
from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.postgres.engine import Engine
from aurora_router_cluster.rpc.served import served
from aurora_router_cluster.storage.targets import Target, parse_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aurora_router_cluster.control.failover import FailoverProcedure
    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.state import ClusterState
    from aurora_router_cluster.storage.history import BranchRange, VolumeHistory
    from aurora_router_cluster.storage.rebuilding import Rebuilt

log = logging.getLogger(__name__)


class Backtrack:
    """Backtrack, export and snapshots of one cluster.

    Args:
        state: its instances and its volume.
        procedure: changes of role.
    """

    def __init__(self, state: ClusterState, procedure: FailoverProcedure) -> None:
        self._state = state
        self._procedure = procedure
        self._one_at_a_time = asyncio.Lock()
        self._built = 0

    @property
    def history(self) -> VolumeHistory:
        """The history of the volume, which must keep one.

        Raises:
            RequestError: its flavour has none.
        """
        volume = self._state.volume
        if volume.history is None:
            raise RequestError(
                f"a cluster of flavour {volume.flavour!r} has no history: only the flavour 'quorum' keeps the "
                "log; start the cluster with flavour 'quorum'"
            )
        return volume.history

    # -- going back and forth ------------------------------------------------------------------------------

    @served
    async def backtrack(self, to: str) -> dict[str, Any]:
        """Set the running cluster back to a point on the present branch.

        Raises:
            TargetError: malformed, in the future, or outside of the window.
            EngineError: it could not be built; nothing has changed.
            FailoverImpossibleError: too few storage nodes.
        """
        target = parse_target(to)
        return await self._rewind(self.history.branch_range(None), target)

    @served
    async def forward(self, to: str | None, branch: int | None) -> dict[str, Any]:
        """Go to a point on a branch that was left: `branch`, or the one that the present branch continues.

        Raises:
            TargetError, EngineError, FailoverImpossibleError: as `backtrack`.
        """
        line = self.history.volume.charter.line
        if branch is None and not line.parent:
            raise TargetError("the cluster has not been set back: there is no branch to go forward on")
        if branch == line.number:
            raise TargetError(f"branch {branch} is the present one; use backtrack to go to a point on it")
        target = parse_target(to) if to is not None else Target()
        return await self._rewind(self.history.branch_range(branch or line.parent), target)

    async def _rewind(self, branch_range: BranchRange, target: Target) -> dict[str, Any]:
        if self._state.hosts is not None:
            raise RequestError("a cluster over several hosts cannot be set back in place; clone it to this machine")
        phases = Phases()
        with self._state.doing("backtracking"):
            return await self._rewind_to(branch_range, target, phases)

    async def _rewind_to(self, branch_range: BranchRange, target: Target, phases: Phases) -> dict[str, Any]:
        async with self._one_at_a_time, self._build(branch_range, target) as built:
            phases.end("build")
            async with self._state.lock:
                await self.history.check_quorum()
                left = self.history.present()
                writer = await self._switch(branch_range, built, phases)
                await self._build_readers(writer, built.lsn)
                phases.end("readers")
        ended = self.history.branch_range(left.number)
        parted = ended.history.divergence(self.history.volume.charter.history)
        return {
            "branch": self.history.volume.charter.line.number,
            "lsn": format_lsn(built.lsn),
            "writer": writer.name,
            "left": left.number,
            "left_end": format_lsn(ended.end),
            "set_aside": ended.end - (ended.end if parted is None else min(parted, ended.end)),
            "phases": phases.times,
        }

    async def _switch(self, branch_range: BranchRange, built: Rebuilt, phases: Phases) -> Instance:
        """End all instances, open the branch, make what was built the writer; returns that."""
        from aurora_router_cluster.storage.rebuilding import leave_for_writer  # noqa: PLC0415 - with its volume only

        state = self._state
        writer = state.writer or min(state.instances.values(), key=lambda instance: instance.tier)
        for instance in state.instances.values():
            self._end(instance)
        state.writer = None
        state.publish()
        try:
            point = await self.history.go(branch_range, built.lsn)
            phases.end("branch")
            await leave_for_writer(built.engine, writer.engine.data)
            state.clock = LogClock()
            await state.start(writer)
            phases.end("start")
            await self._procedure.promote(writer, point, phases)
        except BaseException:
            for instance in state.instances.values():
                self._end(instance)
                instance.state = "stopped"
            state.writer = None
            state.publish()
            raise
        state.publish()
        return writer

    @staticmethod
    def _end(instance: Instance) -> None:
        """End an instance whose data directory belongs to a branch that is being left."""
        instance.engine.kill()
        instance.lag = None
        instance.state = "stopped" if instance.stopped_by_request else "restarting"
        (instance.engine.data / "standby.signal").unlink(missing_ok=True)  # so it is known to need seeding

    async def _build_reader(self, reader: Instance, lsn: int) -> None:
        """Rebuild a reader; returns when it shows what was at `lsn` (bytes)."""
        await self._procedure.restart_instance(reader)
        await self._procedure.wait_until_replayed(reader, lsn)
        await self._state.wait_until_caught_up(reader)

    async def _build_readers(self, writer: Instance, lsn: int) -> None:
        readers = [one for one in self._state.instances.values() if one is not writer and not one.stopped_by_request]
        results = await asyncio.gather(*(self._build_reader(reader, lsn) for reader in readers), return_exceptions=True)
        for reader, result in zip(readers, results, strict=True):
            if isinstance(result, ClusterError):
                log.warning("%s did not come back: %s", reader.name, result)  # the heartbeat tries again
            elif isinstance(result, BaseException):
                raise result

    # -- building ------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _build(self, branch_range: BranchRange, target: Target) -> AsyncIterator[Rebuilt]:
        from aurora_router_cluster.storage.rebuilding import rebuilt  # noqa: PLC0415 - with its volume only

        state = self._state
        self._built += 1
        name = f"rebuild-{self._built}"
        engine = Engine(name, state.run / name, state.binaries, state.account)
        try:
            async with rebuilt(self.history, branch_range, target, engine, state.overrides, self._nudge) as built:
                yield built
        finally:
            await asyncio.to_thread(engine.remove)

    async def _nudge(self) -> bool:
        """Let the writer commit something behind the target; False: there is none, or it cannot commit."""
        writer = self._state.writer
        if writer is None or not writer.available:
            return False
        try:
            await writer.session.query("SELECT pg_current_xact_id()")
        except EngineError:
            return False
        return True

    # -- new clusters --------------------------------------------------------------------------------------

    @served
    async def export(self, to: str | None, branch: int | None, snapshot: str | None) -> dict[str, Any]:
        """Make a data directory as of a point (None: now), for a cluster of its own to begin with.

        The caller has to let it be deleted: `discard`.

        Raises:
            TargetError: malformed, in the future, or outside of the window; or there is no such snapshot.
            EngineError: it could not be built.
        """
        from aurora_router_cluster.storage.rebuilding import leave_for_cluster  # noqa: PLC0415 - with its volume only

        history = self.history
        if snapshot is not None:
            found = history.find_snapshot(snapshot)
            branch, target = found.branch, Target(lsn=found.lsn)
        else:
            target = parse_target(to) if to is not None else Target()
        state = self._state
        async with self._one_at_a_time, self._build(history.branch_range(branch), target) as built:
            data = await leave_for_cluster(built.engine)
            exported = state.run / f"export-{self._built}"
            exported.mkdir()
            exported.chmod(0o711)  # the account has to get at what is in it, which is closed to others
            await asyncio.to_thread(data.rename, exported / "data")
        return {
            "directory": str(exported / "data"),
            "lsn": format_lsn(built.lsn),
            "postgres": str(state.binaries.directory),
            "settings": state.overrides,
        }

    @served
    async def discard(self, directory: str) -> None:
        """Delete what `export` made.

        Raises:
            RequestError: it was not made by `export`.
        """
        exported = next((path for path in self._exports() if str(path / "data") == directory), None)
        if exported is None:
            raise RequestError(f"{directory} is not an export of this cluster")
        await asyncio.to_thread(shutil.rmtree, exported, ignore_errors=True)

    def _exports(self) -> list[Path]:
        return list(self._state.run.glob("export-*"))

    # -- looking -------------------------------------------------------------------------------------------

    @served
    async def snapshot(self, name: str) -> dict[str, Any]:
        """Keep the present point by a name; see `storage.history.VolumeHistory.snapshot`."""
        from aurora_router_cluster.dns import names  # noqa: PLC0415 - not for every supervisor

        names.check_label(name, "a snapshot")
        self.history.snapshot(name)
        self._state.events.add(SNAPSHOT, name, "backup", "Manual cluster snapshot created")
        return next(each for each in await self.snapshots() if each["name"] == name)

    @served
    async def snapshots(self) -> list[dict[str, Any]]:
        """The snapshots, oldest first."""
        made = sorted(self.history.snapshots.values(), key=lambda each: each.taken)
        return [
            {"name": each.name, "lsn": format_lsn(each.lsn), "taken": each.taken, "branch": each.branch}
            for each in made
        ]

    @served
    async def delete_snapshot(self, name: str) -> None:
        """Forget a snapshot, and collect what only it needed."""
        self.history.delete_snapshot(name)
        try:
            await self.history.volume.collect()
        except EngineError as error:
            log.info("collected later: %s", error)

    @served
    async def branches(self) -> dict[str, Any]:
        """The branches, and the window that can be gone back to."""
        history = self.history
        charter, (first, last) = history.volume.charter, history.window
        lines = {branch.line.number: branch.line for branch in charter.kept}
        lines[charter.line.number] = charter.line
        return {
            "present": charter.line.number,
            "earliest": first,
            "latest": last,
            "retention": history.retention,
            "branches": [
                {
                    "number": branch_range.number,
                    "parent": lines[branch_range.number].parent,
                    "start": format_lsn(lines[branch_range.number].start or branch_range.history.base),
                    "end": format_lsn(branch_range.end),
                    "closed": branch_range.kept.closed if branch_range.kept is not None else None,
                }
                for branch_range in history.branch_ranges()
            ],
        }
