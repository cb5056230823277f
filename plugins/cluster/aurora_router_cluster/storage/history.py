"""What a volume remembers: bases, snapshots, the branches that were left; and how it goes back and forth.

Invariants: a base is kept as long as a snapshot, a kept branch or the retention window needs it, and no log that one of
these bases needs is collected; a kept branch is dropped when it was left longer ago than the retention window, unless a
snapshot is on it. The window of the present branch is shorter than asked for where its bases and log would take more
room than `_room` gives them; `window` says how long it is.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Protocol

from aurora_router_cluster.errors import EngineError, FailoverImpossibleError, NameTakenError, TargetError
from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.postgres.endpoints import RecoveryPoint
from aurora_router_cluster.storage.bases import Bases
from aurora_router_cluster.storage.branching import branch_off
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.core.gc import select_affordable, select_needed, select_spaced
from aurora_router_cluster.storage.quorum_call import ask
from aurora_router_cluster.storage.recovery import recover
from aurora_router_cluster.storage.targets import time_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aurora_router_cluster.storage.bases import StoredBase
    from aurora_router_cluster.storage.core.branches import Branch
    from aurora_router_cluster.storage.core.extents import Framing
    from aurora_router_cluster.storage.core.history import History
    from aurora_router_cluster.storage.core.replica import Charter
    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.storage.inventory import Inventory
    from aurora_router_cluster.storage.nodes import NodeSet
    from aurora_router_cluster.storage.recovery import RecoveredVolume
    from aurora_router_cluster.storage.targets import Target
    from aurora_router_cluster.wire.handshake import Login
    from aurora_router_cluster.wire.source import LogSource

log = logging.getLogger(__name__)

RETENTION = 300.0
"""Seconds that can be gone back by default."""
ROOM = 1 << 30
"""Bytes that a window of `RETENTION` may take at least: its bases, and six copies of its log; a longer one more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point that is kept by name.

    Attributes:
        name: unique in the cluster.
        lsn: where, in bytes: a VDL.
        taken: when, in seconds since 1970.
        branch: number of the branch.
    """

    name: str
    lsn: int
    taken: float
    branch: int


@dataclass(frozen=True, slots=True)
class BranchRange:
    """A branch as far as it goes: the present one, or one that was left.

    Attributes:
        number: of the branch.
        history: its epochs.
        end: how far it goes, in bytes.
        kept: what is kept of it; None: it is the present one.
    """

    number: int
    history: History
    end: int
    kept: Branch | None


class HistoryVolume(Protocol):
    """What the history needs of its volume, and what builds instances from it: see `quorum.QuorumVolume`."""

    @property
    def nodes(self) -> NodeSet:
        """The storage nodes."""
        ...

    @property
    def framing(self) -> Framing:
        """Where records end."""
        ...

    @property
    def driver(self) -> Driver:
        """The present epoch's."""
        ...

    @property
    def charter(self) -> Charter:
        """The present epoch's."""
        ...

    @property
    def log(self) -> LogSource:
        """The durable log of the present branch."""
        ...

    def durable_lsn(self) -> int | None:
        """Where it ends, in bytes."""
        ...

    def begin_branch(self, opened: RecoveredVolume, /) -> None:
        """Go on with a branch that was just opened."""
        ...

    async def copy_base(self, base: Path, data: Path, /) -> None:
        """Make `data` a copy of a base."""
        ...

    def login(self) -> Login:
        """The login of the instances that follow the log."""
        ...

    def conninfo(self, reader: str, port: int | None = None, /) -> str:
        """How `reader` follows the log."""
        ...

    async def collect(self) -> None:
        """Forget what is no longer needed."""
        ...


class VolumeHistory:
    """The history of `volume`: its bases, branches and snapshots.

    Args:
        volume: whose.
        directory: where bases are kept; it exists.
        retention: length of the window that can be gone back to, in seconds.
        inventory: where bases and snapshots are written down, to be found again; None: nowhere.

    Attributes:
        volume: as given.
        bases: the bases.
        snapshots: by name.
        in_use: bases from which something is being built.
    """

    def __init__(
        self, volume: HistoryVolume, directory: Path, retention: float, inventory: Inventory | None = None
    ) -> None:
        self.volume = volume
        self._inventory = inventory
        self.retention = retention
        self.bases = Bases(directory, inventory)
        self.snapshots: dict[str, Snapshot] = {}
        self.in_use: list[StoredBase] = []

    def find_again(self, inventory: Inventory) -> None:
        """Take up the bases and snapshots that were written down."""
        self.bases.find_again(inventory)
        self.snapshots = {facts["name"]: Snapshot(**facts) for facts in inventory.snapshots()}

    def _write_down(self) -> None:
        if self._inventory is not None:
            self._inventory.write_snapshots([asdict(snapshot) for snapshot in self.snapshots.values()])

    # -- what there is -------------------------------------------------------------------------------------

    @property
    def window(self) -> tuple[float, float]:
        """From when to when it can be gone back to, in seconds since 1970."""
        now = time.time()
        oldest = min((stored.base.taken for stored in self.bases), default=now)
        return max(oldest, now - self.retention), now

    def present(self) -> BranchRange:
        """The present branch."""
        charter = self.volume.charter
        return BranchRange(charter.line.number, charter.history, self.volume.durable_lsn() or 0, None)

    def branch_range(self, number: int | None) -> BranchRange:
        """A branch by its number; None: the present one.

        Raises:
            TargetError: there is none, or it is not kept any more.
        """
        present = self.present()
        if number in {None, present.number}:
            return present
        for branch in self.volume.charter.kept:
            if branch.line.number == number:
                return BranchRange(branch.line.number, branch.history, branch.end, branch)
        numbers = ", ".join(str(branch_range.number) for branch_range in self.branch_ranges())
        raise TargetError(f"there is no branch {number}, or it is not kept any more; there are {numbers}")

    def branch_ranges(self) -> Iterator[BranchRange]:
        """All branches there are, the present one last."""
        for branch in self.volume.charter.kept:
            yield BranchRange(branch.line.number, branch.history, branch.end, branch)
        yield self.present()

    def base_for(self, branch_range: BranchRange, target: Target) -> StoredBase:
        """The base from which `target` can be built.

        Raises:
            TargetError: it is outside of the window; the message says what the window is.
        """
        first, last = self.window
        if target.time is not None:
            seconds = target.time.timestamp()
            if seconds > last:
                raise TargetError(f"{target} is in the future; now it is {time_text(last)}")
            found = self.bases.newest(branch_range.history, branch_range.end, seconds)
            if seconds < first or found is None:
                raise TargetError(f"{target} is outside of the window: {self._bounds()}")
            return found
        lsn = branch_range.end if target.lsn is None else target.lsn
        if lsn > branch_range.end:
            raise TargetError(
                f"{target} is in the future: branch {branch_range.number} ends at {format_lsn(branch_range.end)} "
                f"({self._bounds()})"
            )
        found = self.bases.newest(branch_range.history, lsn)
        if found is None:
            raise TargetError(f"{target} is outside of the window: {self._bounds()}")
        return found

    def _bounds(self) -> str:
        first, last = self.window
        lowest = min((stored.base.end for stored in self.bases), default=0)
        return (
            f"this cluster can go to times from {time_text(first)} to {time_text(last)} and to positions from "
            f"{format_lsn(lowest)} to {format_lsn(self.present().end)}; take a snapshot to keep a point longer, or "
            f"start with a longer retention (now {self.retention:g} s)"
        )

    # -- snapshots -----------------------------------------------------------------------------------------

    def snapshot(self, name: str) -> Snapshot:
        """Keep the present point by a name.

        Raises:
            NameTakenError: there is one of that name.
        """
        if name in self.snapshots:
            raise NameTakenError(f"there is a snapshot {name!r} already; choose another name, or delete it first")
        present = self.present()
        made = self.snapshots[name] = Snapshot(name, present.end, time.time(), present.number)
        self._write_down()
        return made

    def find_snapshot(self, name: str) -> Snapshot:
        """A snapshot by its name.

        Raises:
            TargetError: there is none.
        """
        if name not in self.snapshots:
            known = ", ".join(sorted(self.snapshots)) or "none"
            raise TargetError(f"there is no snapshot {name!r}; there are: {known}")
        return self.snapshots[name]

    def delete_snapshot(self, name: str) -> None:
        """Forget a snapshot; what only it needed goes with the next collection.

        Raises:
            TargetError: there is none.
        """
        del self.snapshots[self.find_snapshot(name).name]
        self._write_down()

    # -- what is kept --------------------------------------------------------------------------------------

    async def forget(self) -> list[Path]:
        """Drop the branches and bases that are no longer needed; returns the directories to delete.

        Raises:
            StorageError: the write quorum is not there.
        """
        volume = self.volume
        first = self.window[0]
        on = {snapshot.branch for snapshot in self.snapshots.values()}

        def without_the_old(charter: Charter) -> Charter:
            kept = (branch for branch in charter.kept if branch.closed >= first or branch.line.number in on)
            return replace(charter, kept=tuple(kept))

        if without_the_old(volume.charter) != volume.charter:
            await volume.driver.amend(without_the_old)
        return self.bases.keep(self._bases_to_keep(first))

    def lowest(self) -> int:
        """Where the log begins that a base which is still needed needs, in bytes."""
        return min(stored.base.redo for stored in self._bases_to_keep(self.window[0]))

    def _bases_to_keep(self, first: float) -> list[StoredBase]:
        """The bases that the window, a branch that is kept, or a snapshot may need."""
        wanted: list[StoredBase] = list(self.in_use)
        for branch_range in self.branch_ranges():
            serving = [stored for stored in self.bases if stored.serves(branch_range.history, branch_range.end)]
            bases = select_spaced(select_needed([stored.base for stored in serving], first), self.retention / 4)
            if branch_range.kept is None:
                sizes = [stored.size for stored in serving if stored.base in bases]
                bases = select_affordable(bases, sizes, branch_range.end, self._room(serving))
            wanted += [stored for stored in serving if stored.base in bases]
        for snapshot in self.snapshots.values():
            found = self.bases.newest(self.branch_range(snapshot.branch).history, snapshot.lsn)
            wanted += [found] if found is not None else []
        return wanted

    def _room(self, serving: list[StoredBase]) -> int:
        """Bytes that the window of the present branch may take."""
        data = max((stored.data for stored in serving), default=0)
        return int(max(ROOM, data // 4) * max(1.0, self.retention / RETENTION))

    # -- going there ---------------------------------------------------------------------------------------

    async def check_quorum(self) -> None:
        """Make sure that a branch can be opened, before anything is ended for it.

        Raises:
            FailoverImpossibleError: too few nodes answer.
        """
        volume = self.volume
        membership = volume.charter.membership
        answers = await ask(volume.nodes.values(), lambda node: node.state(), membership.writes)
        if not membership.writes(answers):
            raise FailoverImpossibleError(
                f"a branch of the log is opened at a write quorum (4 of 6), and too few storage nodes answer: "
                f"{answers.explain()}; nothing has changed; to try again, {volume.nodes.advice()}"
            )

    async def go(self, branch_range: BranchRange, point: int) -> RecoveryPoint:
        """Leave the present branch and open a new one at `point` (bytes) of `branch_range`; older drivers are fenced.

        Raises:
            FailoverImpossibleError: too few nodes; nothing durable is lost, a recovery opens what a write quorum has.
        """
        volume = self.volume
        try:
            opened = await recover(volume.nodes, volume.framing)
            if branch_range.kept is None and point > opened.point:
                raise EngineError(f"the log ends at {format_lsn(opened.point)}, below {format_lsn(point)}")
            opened = await branch_off(volume.nodes, opened, point, branch_range.kept, time.time())
        except StorageError as error:
            raise FailoverImpossibleError(f"the volume cannot open a branch now: {error}") from error
        volume.begin_branch(opened)
        log.info(
            "branch %d begins at %s of branch %d", opened.charter.line.number, format_lsn(point), branch_range.number
        )
        return recovery_point(opened)


def recovery_point(opened: RecoveredVolume) -> RecoveryPoint:
    """Where the epoch begins, for the control plane.

    The number of a timeline is used once in all branches. After a way forward one is left out: the new one does not
    descend from the last one used, and must not look as if it did (``docs/commit-outcome.md``).
    """
    charter = opened.charter
    used = [t.tli for branch in charter.kept for t in branch.timelines] + [t.tli for t in charter.timelines]
    begun = any(timeline.epoch >= charter.line.epoch for timeline in charter.timelines)
    left_out = 1 if charter.line.resumed and not begun else 0
    timeline = charter.timelines[-1].tli if charter.timelines else 1
    return RecoveryPoint(opened.point, timeline, opened.epoch, max(used, default=1) + 1 + left_out)
