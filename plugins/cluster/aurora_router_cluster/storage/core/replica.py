"""What one storage node promises, holds and answers: the decisions of a node, without its disk.

A node obeys one epoch at a time. The protocol has two phases, as in Paxos:

* ``promise(e)``: from now on every request of an epoch below *e* is refused. Once a write quorum has promised, no older
  driver can reach a write quorum again: it is *fenced*.
* ``adopt(e, charter)``: the history of epoch *e* is installed. What this node holds above the point where that history
  parts from its own was never acknowledged; it is cut off.

Each change of the metadata is one durable frame that holds all of it, in one sequence with the log's frames: replaying
the sequence gives the state again, since an extent that was written under an epoch other than the one promised at that
place is skipped, as it was refused when it was written.

Invariants:
    * a request of any epoch but the promised one is refused, also when it was under way while the promise came;
    * an answer is given only for what is durable, and rests on no metadata that are not;
    * the SCLs of an answer count nothing that a torn tail could take back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from aurora_router_cluster.storage.core.branches import Branch, Line, timelines_from_json, timelines_to_json
from aurora_router_cluster.storage.core.errors import Refused
from aurora_router_cluster.storage.core.history import History, Timeline
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.segment import Segment


@dataclass(frozen=True, slots=True)
class Charter:
    """What an epoch is opened with.

    Attributes:
        history: the epochs, the one being opened last.
        membership: the nodes that hold the copies.
        tails: group -> end of its chain at the epoch's start, in bytes.
        timelines: PostgreSQL's timelines that were attached so far.
        placements: the map of the protection groups at the epoch's start (`groups.GroupMap`); empty with one group.
        floor: the log below this position (bytes) will never be read again.
        collected: the log below this position has been removed. It never passes a floor that a write quorum holds: so
            a survey of a quorum learns of a floor at or above what any node has removed. Of the charter that a node
            holds it is what that node has removed: see `following`.
        revision: grows with each amendment within the epoch; a node never goes back.
        line: which branch of the log it is (`core.branches`).
        kept: the branches that were left and are kept.
    """

    history: History
    membership: Membership
    tails: tuple[tuple[int, int], ...] = ()
    timelines: tuple[Timeline, ...] = ()
    placements: dict[str, Any] = field(default_factory=dict)
    revision: int = 0
    floor: int = 0
    collected: int = 0
    line: Line = field(default_factory=Line)
    kept: tuple[Branch, ...] = ()

    def following(self, held: Charter) -> Charter:
        """This charter as a node takes it that held another one: what it has removed stays removed.

        A collection may have reached a few nodes when its epoch ended, and the epoch after it may not know of it.
        """
        return replace(self, collected=held.collected) if held.collected > self.collected else self


@dataclass(frozen=True, slots=True)
class Metadata:
    """All that a node keeps durably besides the log: the highest promise, and the charter adopted last."""

    promised: int
    charter: Charter
    admitted: int = field(init=False, repr=False, compare=False)
    """The epoch whose log may be written: promised and adopted; 0: none."""

    def __post_init__(self) -> None:
        """Compute `admitted`: it is asked for with every extent."""
        object.__setattr__(self, "admitted", self.promised if self.promised == self.charter.history.epoch else 0)

    def encode(self) -> bytes:
        """As bytes, for one frame."""
        charter = self.charter
        document = {
            "promised": self.promised,
            "history": charter.history.to_json(),
            "membership": charter.membership.to_json(),
            "tails": [list(tail) for tail in charter.tails],
            "placements": charter.placements,
            "revision": charter.revision,
            "floor": charter.floor,
            "collected": charter.collected,
            "timelines": timelines_to_json(charter.timelines),
            "line": list(charter.line),
            "kept": [branch.to_json() for branch in charter.kept],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Metadata:
        """Read what `encode` wrote."""
        document: dict[str, Any] = json.loads(data)
        return cls(
            document["promised"],
            Charter(
                History.from_json(document["history"]),
                Membership.from_json(document["membership"]),
                tuple((group, tail) for group, tail in document["tails"]),
                timelines_from_json(document["timelines"]),
                document["placements"],
                document["revision"],
                document["floor"],
                document["collected"],
                Line(*document["line"]),
                tuple(map(Branch.from_json, document["kept"])),
            ),
        )


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a node reports about itself.

    Attributes:
        node: its number.
        promised: the epoch that it obeys.
        charter: the charter that it adopted last.
        scls: group -> SCL in bytes.
        vdl: the highest VDL that a driver sent to it, in bytes.
        base: where the log that it keeps begins, in bytes.
        holes: pieces that wait beyond a hole.
        kept: branch that was left and is kept -> group -> SCL of this node's copy, in bytes.
    """

    node: int
    promised: int
    charter: Charter
    scls: dict[int, int]
    vdl: int
    base: int
    holes: int = 0
    kept: dict[int, dict[int, int]] = field(default_factory=dict)

    @property
    def current(self) -> bool:
        """Whether the epoch promised is also the one adopted."""
        return self.promised == self.charter.history.epoch

    def scl(self, group: int) -> int:
        """SCL of `group` in bytes; the base of the log if this node never saw any of it."""
        return self.scls.get(group, self.base)

    def rank(self, group: int) -> tuple[int, int]:
        """How far this copy of `group` goes: (epoch really held, SCL)."""
        scl = self.scl(group)
        return self.charter.history.epoch_at(scl), scl


@dataclass(slots=True)
class Replica:
    """The state machine of one node.

    Attributes:
        node: its number.
        metadata: None until the node is formatted; such a node votes in nothing.
        segments: group -> index of the segment replica.
        kept: branch that was left and is kept -> group -> index of this node's copy of it.
        vdl: the highest VDL that a driver sent, in bytes: a hint, never too high.
        collected: `Charter.collected` of the metadata that became durable last.
    """

    node: int
    metadata: Metadata | None = None
    segments: dict[int, Segment] = field(default_factory=dict)
    kept: dict[int, dict[int, Segment]] = field(default_factory=dict)
    vdl: int = 0
    collected: int = 0

    @property
    def promised(self) -> int:
        """The epoch that this node obeys; 0 before it is formatted."""
        return self.metadata.promised if self.metadata else 0

    def _require_metadata(self) -> Metadata:
        if self.metadata is None:
            raise Refused(f"node {self.node} has not been formatted: it holds nothing and votes in nothing", 0)
        return self.metadata

    def format(self, charter: Charter) -> Metadata:
        """The metadata of a new, empty member.

        Raises:
            Refused: the node is formatted already.
        """
        if self.metadata is not None:
            raise Refused(f"node {self.node} is formatted already, for epoch {self.promised}", self.promised)
        return Metadata(charter.history.epoch, charter)

    def promise(self, epoch: int) -> Metadata:
        """The metadata that promises `epoch`.

        Raises:
            Refused: as much or more has been promised.
        """
        metadata = self._require_metadata()
        if epoch <= metadata.promised:
            raise Refused(
                f"node {self.node} has promised epoch {metadata.promised}, not below {epoch}", metadata.promised
            )
        return replace(metadata, promised=epoch)

    def adopt(self, epoch: int, charter: Charter) -> Metadata:
        """The metadata with the charter of `epoch` installed; also a later version of the same epoch's charter.

        Where this node has removed more of the log than the charter says, it goes on saying so.

        Raises:
            Refused: another epoch is promised, or the charter is not that epoch's, or older than the one held.
        """
        metadata = self._require_metadata()
        self.check(epoch)
        held = metadata.charter
        if charter.history.epoch != epoch or (held.history.epoch == epoch and held.history != charter.history):
            raise Refused(f"node {self.node}: the charter offered is not the one of epoch {epoch}", metadata.promised)
        if held.history.epoch == epoch and charter.revision < held.revision:
            raise Refused(f"node {self.node} holds revision {held.revision} of that charter", metadata.promised)
        return replace(metadata, charter=charter.following(held))

    def check(self, epoch: int) -> None:
        """Let a request of `epoch` pass.

        Raises:
            Refused: another epoch is promised.
        """
        if epoch != self.promised or not epoch:
            raise Refused(f"node {self.node} obeys epoch {self.promised}, not {epoch}", self.promised)

    def admits(self, epoch: int) -> bool:
        """Whether log of `epoch` may be written: promised and adopted."""
        metadata = self.metadata
        return metadata is not None and metadata.admitted == epoch != 0

    def install(self, metadata: Metadata) -> None:
        """Let `metadata` count: cut what the new history does not contain, close the chains for its epoch.

        Log of the same epoch may be on its way to the disk before them, and is acknowledged first: so what they say of
        garbage waits for `settle`. Of another epoch nothing is acknowledged that is not behind them.
        """
        old = self.metadata.charter if self.metadata else None
        self.metadata = metadata
        charter = metadata.charter
        if old is None or old.history != charter.history:
            cut = old.history.divergence(charter.history) if old else None
            switched = old is not None and old.line != charter.line
            if old is not None and switched:
                self._keep(old, charter)
            for segment in self.segments.values():
                if cut is not None and old is not None:
                    mark = not switched and charter.history.shares_start(old.history, cut)
                    segment.truncate(cut, keep_mark=mark)  # across branches its origin is unknown; peers have it
            if cut is not None:
                self.vdl = min(self.vdl, cut)
            if switched:
                self._resume(charter)
            self._close(charter)
        wanted = {branch.line.number for branch in charter.kept}
        self.kept = {number: copy for number, copy in self.kept.items() if number in wanted}

    def settle(self, metadata: Metadata) -> None:
        """`metadata`, which count already, have become durable: forget the garbage that they name."""
        self.collected = metadata.charter.collected
        for segment in self._all_segments():
            segment.discard(self.collected)

    @property
    def _base(self) -> int:
        """Where a copy begins that holds nothing yet, in bytes: whether the present metadata become durable or not."""
        if self.metadata is None:
            return 0
        charter = self.metadata.charter
        return max(charter.history.base, min(charter.collected, self.collected))

    def _all_segments(self) -> list[Segment]:
        return [segment for copy in (self.segments, *self.kept.values()) for segment in copy.values()]

    def _keep(self, old: Charter, charter: Charter) -> None:
        """Remember what this node has of the branch that it leaves, as far as that went.

        A node that was away may have log that its branch has not: what an earlier recovery cut off.
        """
        left = next((branch for branch in charter.kept if branch.line.number == old.line.number), None)
        if left is None:
            return
        end = left.common(old.history)
        copy = self.kept[left.line.number] = {group: segment.copy() for group, segment in self.segments.items()}
        for segment in copy.values():
            segment.truncate(end, keep_mark=False)

    def _resume(self, charter: Charter) -> None:
        """Take up the copy of the branch that the new one continues; what is missing of it, peers give."""
        start = charter.line.start
        for group, copy in self.kept.get(charter.line.resumed, {}).items():
            segment = self.segment(group)
            for piece in copy.after(copy.base - 1):
                if piece.start < start or piece.end == start:
                    segment.insert(piece.prev, piece.start, min(piece.end, start), piece.place)

    def _close(self, charter: Charter) -> None:
        start = charter.history.start
        for group, tail in charter.tails:
            if tail < start:
                self.segment(group).insert(tail, start, start, 0)

    @property
    def first_place(self) -> int | None:
        """The lowest place of log that is still needed; None: no log is."""
        places = [place for segment in self._all_segments() if (place := segment.first_place) is not None]
        return min(places, default=None)

    def segment(self, group: int) -> Segment:
        """The segment replica of `group`, made when it first appears."""
        found = self.segments.get(group)
        if found is None:
            found = self.segments[group] = Segment(self._base)
        return found

    def apply_durable(self, epoch: int, group: int, prev: int, start: int, end: int, place: int) -> int | None:
        """Take an extent that has become durable.

        Returns:
            The SCL to acknowledge, None if another epoch was promised while it was being written: then it must be
            neither counted nor acknowledged, for the SCL belongs to the later epoch.
        """
        if not self.admits(epoch):
            return None
        return self.segment(group).insert(prev, start, end, place)

    def apply_durable_kept(self, branch: int, group: int, prev: int, start: int, end: int, place: int) -> None:
        """Take an extent of a kept branch that has become durable, unless that branch was forgotten meanwhile."""
        charter = self._require_metadata().charter
        if any(kept.line.number == branch for kept in charter.kept):
            self.kept.setdefault(branch, {}).setdefault(group, Segment(self._base)).insert(prev, start, end, place)

    def state(self) -> NodeState:
        """Return the answer to a request.

        Raises:
            Refused: the node is not formatted.
        """
        metadata = self._require_metadata()
        return NodeState(
            self.node,
            metadata.promised,
            metadata.charter,
            {group: segment.scl for group, segment in self.segments.items()},
            self.vdl,
            self._base,
            sum(segment.holes for segment in self.segments.values()),
            {number: {group: copy.scl for group, copy in copies.items()} for number, copies in self.kept.items()},
        )
