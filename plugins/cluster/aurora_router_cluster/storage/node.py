"""A storage node: its decisions (`core.replica`) joined to its journal.

The order of the journal is the order of the decisions: metadata counts in memory as soon as its frame is queued. No
state is reported before all metadata that count are durable, and what they say of garbage counts only then: else a
state, or the acknowledgement of log that was queued before them, could rest on what a crash takes back. Log that was
queued under an older epoch and becomes durable after a promise is neither counted nor acknowledged.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import CorruptLog, NodeUnavailable, Refused
from aurora_router_cluster.storage.core.extents import Extent, Span
from aurora_router_cluster.storage.core.replica import Metadata, NodeState, Replica
from aurora_router_cluster.storage.core.scrub import losses
from aurora_router_cluster.storage.core.segment import Segment
from aurora_router_cluster.storage.protocols import KEPT, LOG, METADATA, Frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aurora_router_cluster.storage.core.replica import Charter
    from aurora_router_cluster.storage.core.scrub import Loss, Places
    from aurora_router_cluster.storage.core.segment import Piece
    from aurora_router_cluster.storage.protocols import AckSink, Journal

_ENDLESS = 1 << 63
MAX_PULL = 1 << 20
"""Bytes that one pull between peers carries at most."""


class StorageNode:
    """One node, which holds one segment replica of every protection group.

    Args:
        node: its number.
        journal: where it keeps what it received; replayed at once.
    """

    def __init__(self, node: int, journal: Journal) -> None:
        self.node = node
        self.replica = Replica(node)
        self._journal = journal
        self._failure: str | None = None
        self._trimmed = 0
        self._switched = 0  # place of the metadata that opened the present branch, as far as that is known
        self._openings: list[tuple[int, int]] = []  # (start of an epoch, place of the metadata that opened it)
        self._early: list[tuple[Frame, int]] = []
        self._written: asyncio.Future[None] | None = None  # done once the metadata that were queued last are durable
        self._replay_all()

    def _replay_all(self) -> None:
        """Read the journal. Nearly all of it is log of one epoch that was admitted: it takes the short way."""
        replica, admitted, segments = self.replica, 0, dict[int, Segment]()
        for frame, place in self._journal.replay():
            kind, epoch, vdl, group, prev, start, data = frame
            if kind == LOG and epoch == admitted:
                segment = segments.get(group)
                if segment is None:
                    segment = segments[group] = replica.segment(group)
                segment.insert(prev, start, start + len(data), place)
                replica.vdl = max(replica.vdl, vdl)
            else:
                self._replay(frame, place)
                admitted = replica.promised if replica.admits(replica.promised) else 0
                segments.clear()
        self._early.clear()

    def _replay(self, frame: Frame, place: int) -> None:
        """Do again what was done when the frame was written.

        Garbage collection removes the oldest frames, so log may come before the first metadata that are left. And where
        log is of an epoch that has not begun at its place, the metadata that began it have rotted. Such log was
        admitted when it was written: the next metadata say whether it counts, and what a later epoch cut off of it.
        """
        replica = self.replica
        if frame.kind == METADATA:
            before, metadata = replica.metadata, Metadata.decode(frame.data)
            replica.install(metadata)
            replica.settle(metadata)
            self._note_opening(before, metadata, place)
            self._replay_early()
        elif frame.kind == KEPT:
            if replica.metadata is not None:  # else what was kept then is forgotten: garbage waits for that
                self._on_durable_kept(frame.epoch, Extent(frame.group, frame.prev, frame.start, frame.data), place)
        elif frame.epoch >= replica.promised and not replica.admits(frame.epoch):
            self._early.append((frame, place))
        elif replica.admits(frame.epoch):
            replica.apply_durable(
                frame.epoch, frame.group, frame.prev, frame.start, frame.start + len(frame.data), place
            )
            replica.vdl = max(replica.vdl, frame.vdl)

    def _replay_early(self) -> None:
        charter = self.replica.metadata.charter if self.replica.metadata else None
        early, self._early = self._early, []
        for frame, place in early:
            if charter is None or frame.epoch < charter.line.epoch or frame.epoch not in charter.history:
                continue  # of another branch; what this one needed lies behind the metadata that opened it
            end = frame.start + len(frame.data)
            limit = charter.history.alive_below(frame.epoch)
            if limit is None or frame.start < limit or end <= limit:
                end = end if limit is None else min(end, limit)
                self.replica.segment(frame.group).insert(frame.prev, frame.start, end, place)

    def append(self, epoch: int, vdl: int, extent: Extent, sink: AckSink) -> None:
        """Take log from a driver; `sink` is called once it is durable, or with the refusal if the epoch is over."""
        replica = self.replica
        if not replica.admits(epoch):
            sink.on_refusal(self.node, replica.promised)
            return
        if self._failure is not None:
            return
        replica.vdl = max(replica.vdl, vdl)

        def durable(place: int | OSError) -> None:
            scl = self._on_durable(epoch, extent, place)
            if scl is not None:
                sink.on_ack(self.node, extent.group, scl)
            elif not replica.admits(epoch):
                sink.on_refusal(self.node, replica.promised)

        self._journal.append(Frame(LOG, epoch, vdl, *extent), durable)

    def _on_durable(self, epoch: int, extent: Extent, place: int | OSError) -> int | None:
        if isinstance(place, OSError):
            self.fail(str(place))
            return None
        return self.replica.apply_durable(epoch, extent.group, extent.prev, extent.start, extent.end, place)

    def _on_durable_kept(self, branch: int, extent: Extent, place: int | OSError) -> None:
        if isinstance(place, OSError):
            self.fail(str(place))
        else:
            self.replica.apply_durable_kept(branch, extent.group, extent.prev, extent.start, extent.end, place)

    def fail(self, why: str) -> None:
        """Be absent from now on: the journal takes nothing more."""
        self._failure = f"node {self.node} cannot write its journal: {why}"

    @property
    def failed(self) -> bool:
        """Whether its journal has to be opened again before it takes anything."""
        return self._failure is not None

    @property
    def failure(self) -> str | None:
        """Why this node cannot keep anything, as a sentence; None: its disk takes what it is given.

        A node whose disk has failed is absent: it answers nothing, and is opened again over its files.
        """
        if self._failure is None and (stalled := self._journal.stalled) is not None:
            return f"node {self.node} cannot write its journal at this moment: {stalled}"
        return self._failure

    def _check_disk(self) -> None:
        if (failure := self.failure) is not None:
            raise NodeUnavailable(failure)

    async def format(self, charter: Charter) -> NodeState:
        """Make this empty node a member; it may have promised a later epoch than the charter's when this returns.

        Raises:
            Refused: it is formatted already.
            NodeUnavailable: the disk failed.
        """
        await self._write(self.replica.format(charter))
        return self.replica.state()

    async def promise(self, epoch: int) -> NodeState:
        """Obey `epoch`, and refuse all older ones.

        Raises:
            Refused: as much or more is promised.
            NodeUnavailable: the disk failed.
        """
        return await self._install(self.replica.promise(epoch))

    async def adopt(self, epoch: int, charter: Charter) -> NodeState:
        """Install the charter of the promised epoch, and cut off what its history does not contain.

        Raises:
            Refused: it is not the promised epoch, or not its charter.
            NodeUnavailable: the disk failed.
        """
        metadata = self.replica.adopt(epoch, charter)
        state = await self._install(metadata)
        if self.replica.metadata is metadata and metadata.charter.collected > self._trimmed:
            self._trim(metadata.charter)  # durable, and nothing newer is on its way
        return state

    def _trim(self, charter: Charter) -> None:
        """Give room back, unless the journal's order is needed to distinguish branches: then later.

        The metadata of an epoch close the chains at its start, also where there is no log: they stay as long as that.
        """
        self._openings = [each for each in self._openings if each[0] > charter.collected]
        needed = [place for _start, place in self._openings]
        held = self.replica.first_place
        first = min(needed if held is None else [held, *needed], default=None)
        if not charter.kept and (first is None or first > self._switched):
            self._trimmed = charter.collected
            self._journal.trim(first)

    def _note_opening(self, before: Metadata | None, metadata: Metadata, place: int) -> None:
        """Remember where the metadata lie that opened a branch, or an epoch."""
        charter = metadata.charter
        if before is not None and before.charter.line != charter.line:
            self._switched = place
        if before is None or before.charter.history != charter.history:
            self._openings.append((charter.history.start, place))

    async def _install(self, metadata: Metadata) -> NodeState:
        await self._write(metadata)
        if self.replica.promised != metadata.promised:  # meanwhile: what is held now is not what was asked for
            promised = self.replica.promised
            raise Refused(f"node {self.node} has promised epoch {promised} since, not {metadata.promised}", promised)
        return self.replica.state()

    async def _write(self, metadata: Metadata) -> None:
        """Let metadata count, and wait until these and all that follow them meanwhile are durable."""
        self._check_disk()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = self.replica.metadata

        def durable(place: int | OSError) -> None:
            written.set_result(None)
            if isinstance(place, OSError):
                self.fail(str(place))
                return
            self.replica.settle(metadata)
            self._note_opening(before, metadata, place)

        self._journal.append(Frame(METADATA, metadata.promised, 0, 0, 0, 0, metadata.encode()), durable)
        self._written = written
        self.replica.install(metadata)
        await self._wait_settled()
        self._check_disk()

    async def _wait_settled(self) -> None:
        """Wait until all metadata that count are durable, or the disk has failed."""
        while self._written is not None and not self._written.done():
            await asyncio.wait({self._written})  # which leaves it alone if the one that waits is cancelled

    async def state(self) -> NodeState:
        """What this node holds and has promised, durably.

        Raises:
            Refused: it was never formatted.
            NodeUnavailable: the disk failed.
        """
        self._check_disk()
        await self._wait_settled()
        self._check_disk()
        return self.replica.state()

    async def fill(self, epoch: int, extents: Sequence[Extent], branch: int = 0) -> NodeState:
        """Take extents that a peer of the same history holds; durable when this returns.

        `branch`: they are of a kept one, 0: of the present one.

        Raises:
            Refused: another epoch is promised, or that one is not adopted.
            NodeUnavailable: the disk failed.
        """
        self._check_disk()
        self._check_current(epoch)
        left = len(extents)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def durable(extent: Extent, place: int | OSError) -> None:
            nonlocal left
            left -= 1
            try:
                if branch:
                    self._on_durable_kept(branch, extent, place)
                else:
                    self._on_durable(epoch, extent, place)
            finally:
                if not left and not answer.done():
                    answer.set_result(None)

        for extent in extents:
            frame = Frame(KEPT, branch, 0, *extent) if branch else Frame(LOG, epoch, self.replica.vdl, *extent)
            self._journal.append(frame, partial(durable, extent))
        if extents:
            await answer
        await self._wait_settled()
        self._check_disk()
        self._check_current(epoch)
        return self.replica.state()

    def _end_of(self, epoch: int) -> int:
        """Where the log that this node has of `epoch` ends to be that epoch's, in bytes."""
        history = self.replica.state().charter.history
        if epoch not in history:
            promised = self.replica.promised
            raise Refused(f"node {self.node} does not hold epoch {epoch}, but {history.epoch}", promised)
        limit = history.alive_below(epoch)
        return _ENDLESS if limit is None else limit

    def _check_current(self, epoch: int) -> None:
        if not self.replica.admits(epoch):
            promised = self.replica.promised
            raise Refused(f"node {self.node} does not hold epoch {epoch}: it has promised {promised}", promised)

    async def find_damage(self) -> tuple[int, list[Loss]]:
        """Read the whole journal again; what is damaged is a hole from now on.

        Returns:
            The number of damaged places, and the pieces of the log that lay there.

        Raises:
            NodeUnavailable: the disk failed.
        """
        self._check_disk()
        damaged = await self._journal.scrub()
        lost = _lose(self.replica.segments, damaged)
        for copy in self.replica.kept.values():
            _lose(copy, damaged)
        return len(damaged), lost

    async def retire_damage(self) -> None:
        """What `find_damage` found has been refilled: let it be found no more.

        Raises:
            NodeUnavailable: the disk failed.
        """
        await self._journal.retire()

    async def rewrite_metadata(self) -> None:
        """Write the metadata again, in case a damaged place held them.

        Raises:
            NodeUnavailable: the disk failed.
        """
        if self.replica.metadata is not None:
            await self._install(self.replica.metadata)

    def pull(self, epoch: int, group: int, after: int, limit: int, branch: int = 0) -> list[Extent]:
        """Extents of `group` above `after`, in the order of their chain, about `limit` bytes.

        Args:
            epoch: the epoch whose history the caller holds; 0 for a recovery, which has compared the histories itself.
            group: the protection group.
            after: SCL of the node that asks, in bytes.
            limit: stop after this many bytes.
            branch: a kept one, 0 the present one.

        Raises:
            Refused: this node holds another epoch.
        """
        if epoch:
            self._check_current(epoch)
        found: list[Extent] = []
        size = 0
        segments = self._copy(branch)
        for piece in _pieces(segments, group, after):
            if not found and piece.prev > after:
                break  # this node has removed what comes first: the rest would only wait beyond a hole
            data = self._read(segments, group, piece)
            if data is None:
                break
            found.append(Extent(group, piece.prev, piece.start, data))
            size += len(data)
            if size >= limit:
                break
        return found

    def spans(self, group: int, after: int, branch: int = 0) -> list[Span]:
        """Where the extents of `group` above `after` (bytes) lie; `branch`: a kept one, 0 the present one."""
        return [Span(piece.prev, piece.start, piece.end) for piece in _pieces(self._copy(branch), group, after)]

    def _copy(self, branch: int) -> dict[int, Segment]:
        return self.replica.kept.get(branch, {}) if branch else self.replica.segments

    def _read(self, segments: dict[int, Segment], group: int, piece: Piece) -> bytes | None:
        """The bytes of a piece; None if they are damaged, and then the piece is a hole from now on."""
        if piece.start == piece.end:
            return b""
        try:
            return self._journal.read(piece.place, piece.end - piece.start)
        except CorruptLog:
            segments[group].lose(piece.start, piece.end)
            return None

    def read(self, epoch: int, lsn: int, n: int, branch: int = 0) -> bytes:
        """At most `n` bytes of the log from `lsn` on, of any groups; fewer where this node has a hole.

        Also while a later epoch is promised, or after it has begun: what was durable in `epoch` is the same in all
        that follow it, up to where the next one begins.

        Args:
            epoch: the caller's, whose log is asked for; 0: whatever this node holds.
            lsn: in bytes.
            n: how many bytes at most.
            branch: a kept one, 0 the present one.

        Raises:
            Refused: this node has not adopted `epoch`, nor one that follows it.
        """
        if epoch:
            n = min(n, self._end_of(epoch) - lsn)
        parts: list[bytes] = []
        segments = self._copy(branch)
        while n > 0:
            found = _at(segments, lsn)
            data = self._read(segments, *found) if found is not None else None
            if found is None or data is None:
                break
            part = data[lsn - found[1].start :][:n]
            parts.append(part)
            lsn += len(part)
            n -= len(part)
        return b"".join(parts)

    async def close(self) -> None:
        """Release the journal."""
        await self._journal.close()


def _pieces(segments: dict[int, Segment], group: int, after: int) -> Iterator[Piece]:
    segment = segments.get(group)
    return iter(()) if segment is None else segment.after(after)


def _lose(segments: dict[int, Segment], damaged: Sequence[Places]) -> list[Loss]:
    """Forget what lies in damaged places; what was chained of it."""
    lost = losses(segments, damaged)
    for loss in lost:
        segments[loss.group].lose(loss.span.start, loss.span.end)
    for segment in segments.values():
        for places in damaged:
            segment.lose_waiting(*places)
    return lost


def _at(segments: dict[int, Segment], lsn: int) -> tuple[int, Piece] | None:
    """The group and the whole piece that hold the byte at `lsn`."""
    for group, segment in segments.items():
        piece = segment.at(lsn)
        if piece is not None:
            return group, piece
    return None
