"""The history of a cluster as a Python object: ``LocalCluster.history``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aurora_router_cluster.client.command import command, option, positional
from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.storage.targets import FORMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.client.nodes import Ask

Cluster = TypeVar("Cluster")

POINT = FORMS.replace("%", "%%")
"""How a point is written, for argparse."""

Point = str | int | datetime
"""A log position (bytes, or as PostgreSQL writes it), or a time (a naive one is UTC, as is text without a zone)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point that is kept by name.

    Attributes:
        name: unique in the cluster.
        lsn: where, as PostgreSQL writes it.
        taken: when.
        branch: number of the branch of the log that it is on.
    """

    name: str
    lsn: str
    taken: datetime
    branch: int


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch of the log.

    Attributes:
        number: 1 for the first; grows.
        parent: the branch that it continues; 0: none.
        start: where it begins, as PostgreSQL writes it.
        end: how far it goes.
        closed: when it was left; None: it is the present one.
    """

    number: int
    parent: int
    start: str
    end: str
    closed: datetime | None


@dataclass(frozen=True, slots=True)
class BacktrackResult:
    """What a backtrack, or a way forward, did.

    Attributes:
        branch: number of the branch that was opened.
        lsn: where it begins, as PostgreSQL writes it.
        writer: name of the writer.
        left: number of the branch that was left.
        left_end: where that one ends.
        set_aside: bytes of log that are on that branch alone, now: not lost, not merged.
        phases: phase -> its duration in seconds, in order; clients are without a writer from ``branch`` to ``attach``.
    """

    branch: int
    lsn: str
    writer: str
    left: int
    left_end: str
    set_aside: int
    phases: dict[str, float]


class ClusterHistory(Generic[Cluster]):
    """The history of a cluster of flavour ``quorum``.

    Args:
        ask: sends a request to the cluster.
        start: starts a new cluster, see `LocalCluster.start`.

    Every method raises `RequestError` where the flavour is another, and `TargetError` where a point is malformed, in
    the future, or outside of the window.
    """

    def __init__(self, ask: Ask, start: Callable[..., Cluster]) -> None:
        self._ask = ask
        self._start = start

    @command(
        "snapshot",
        "keep the present point by a name",
        positional("name", "the name", metavar="snapshot"),
        part="history",
        report=lambda done, **_: (f"snapshot {done.name} keeps {done.lsn} ({_short(done.taken)})", asdict(done)),
    )
    def snapshot(self, name: str) -> Snapshot:
        """Keep the present point by a name, until `delete_snapshot`.

        Raises:
            NameTakenError: there is one of that name, or it cannot be one.
        """
        return _snapshot(self._ask("snapshot", name=name))

    @command(
        "snapshots",
        "list the snapshots",
        part="history",
        report=lambda found: (_describe_snapshots(found), [asdict(one) for one in found]),
    )
    def snapshots(self) -> list[Snapshot]:
        """The snapshots, oldest first."""
        return [_snapshot(each) for each in self._ask("snapshots")]

    @command(
        "delete-snapshot",
        "forget a snapshot",
        positional("name", "its name", metavar="snapshot"),
        part="history",
        report=lambda _, name: (f"snapshot {name} is forgotten", {"deleted": name}),
    )
    def delete_snapshot(self, name: str) -> None:
        """Forget a snapshot."""
        self._ask("delete_snapshot", name=name)

    def branches(self) -> list[Branch]:
        """The branches of the log: those that were left and are kept, and the present one, last."""
        found = self._ask("branches")["branches"]
        return [Branch(**{**each, "closed": each["closed"] and _time(each["closed"])}) for each in found]

    def window(self) -> tuple[datetime, datetime]:
        """From when to when the cluster can be set back or restored."""
        found = self._ask("branches")
        return _time(found["earliest"]), _time(found["latest"])

    @command(
        "backtrack",
        "set the running cluster back; what was written since stays on its branch",
        positional("to", POINT, metavar="POINT"),
        part="history",
        report=lambda done, **_: (_describe_backtrack(done), asdict(done)),
    )
    def backtrack(self, to: Point) -> BacktrackResult:
        """Set the running cluster back to a point; returns when it takes writes and its readers are back.

        Raises:
            EngineError: the point could not be built; nothing has changed.
            FailoverImpossibleError: too few storage nodes.
        """
        return BacktrackResult(**self._ask("backtrack", to=point_text(to)))

    @command(
        "forward",
        "go to a point on a branch that was left by a backtrack",
        positional("to", f"{POINT} (default: the end of that branch)", metavar="POINT", nargs="?"),
        option("branch", "which (default: the one that the present branch continues)", type=int),
        part="history",
        report=lambda done, **_: (_describe_backtrack(done), asdict(done)),
    )
    def forward(self, to: Point | None = None, *, branch: int | None = None) -> BacktrackResult:
        """Go to a point on a branch that was left; None: to its end.

        Args:
            to: the point.
            branch: which branch; None: the one that the present branch continues.

        Raises:
            EngineError, FailoverImpossibleError: as `backtrack`.
        """
        return BacktrackResult(**self._ask("forward", to=None if to is None else point_text(to), branch=branch))

    def clone(self, name: str | None = None, **options: Any) -> Cluster:
        """Start a new cluster with the data that this one has now; it is independent of this one.

        Args:
            name: its label; see `LocalCluster.start`.
            **options: of the new cluster, see `LocalCluster.start`; its binaries and server settings are this one's
                where not given.

        Raises:
            EngineError: it could not be built.
            ClusterError: the new cluster could not be started, see `LocalCluster.start`.
        """
        return self._make(name, options)

    def restore(
        self,
        to: Point | None = None,
        name: str | None = None,
        *,
        snapshot: str | None = None,
        branch: int | None = None,
        **options: Any,
    ) -> Cluster:
        """Start a new cluster with the data that this one had at a point, or at a snapshot.

        Args:
            to: the point; not with `snapshot`.
            name: label of the new cluster; see `LocalCluster.start`.
            snapshot: name of a snapshot.
            branch: the branch of the log that the point is on; None: the present one.
            **options: as `clone`.

        Raises:
            ValueError: neither a point nor a snapshot is given, or both are.
            EngineError, ClusterError: as `clone`.
        """
        if (to is None) == (snapshot is None):
            raise ValueError("restore needs a point or a snapshot, and not both")
        where = {"to": None if to is None else point_text(to), "branch": branch, "snapshot": snapshot}
        return self._make(name, options, **where)

    def _make(self, name: str | None, options: dict[str, Any], **where: Any) -> Cluster:
        exported = self._ask("export", **{"to": None, "branch": None, "snapshot": None, **where})
        given = {"postgres": exported["postgres"], "settings": exported["settings"], **options}
        try:
            return self._start(name, source=exported["directory"], **given)
        finally:
            self._ask("discard", directory=exported["directory"])


def point_text(point: Point) -> str:
    """A point as the supervisor reads it."""
    if isinstance(point, int):
        return format_lsn(point)
    return point.isoformat() if isinstance(point, datetime) else point


def _short(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _describe_snapshots(found: list[Snapshot]) -> str:
    return "\n".join(f"{one.name:20} {one.lsn:>12} {_short(one.taken)}" for one in found) or "there are no snapshots"


def _describe_backtrack(done: BacktrackResult) -> str:
    return (
        f"the cluster is at {done.lsn} on branch {done.branch}, its writer is {done.writer}; {done.set_aside} bytes of "
        f"log stay on branch {done.left}, up to {done.left_end} (cluster forward --branch {done.left})"
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _snapshot(facts: dict[str, Any]) -> Snapshot:
    return Snapshot(**{**facts, "taken": _time(facts["taken"])})
