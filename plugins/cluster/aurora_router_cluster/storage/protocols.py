"""The seams of the storage: what a node needs of a disk, and what a driver needs of a node.

A node, the driver and the recovery are written against these protocols; PostgreSQL's cluster and the simulator differ
only in what stands behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aurora_router_cluster.storage.core.extents import Extent, Span
    from aurora_router_cluster.storage.core.replica import Charter, NodeState
    from aurora_router_cluster.storage.core.scrub import Places

LOG, METADATA, KEPT = 1, 2, 3
"""Kinds of frames: log of the present branch, metadata, log of a branch that is kept."""


class Frame(NamedTuple):
    """One entry of a node's journal.

    Attributes:
        kind: `LOG`, `METADATA` or `KEPT`.
        epoch: the epoch under which it was written; for log of a kept branch, the number of that branch.
        vdl: for log of the present branch, the VDL that its driver knew, in bytes.
        group: for log, the protection group.
        prev: for log, end of the extent before it in the same group.
        start: for log, position of the first byte.
        data: the log's bytes, or the encoded metadata.
    """

    kind: int
    epoch: int
    vdl: int
    group: int
    prev: int
    start: int
    data: bytes


class Journal(Protocol):
    """A durable sequence of frames."""

    @property
    def stalled(self) -> str | None:
        """Why nothing becomes durable at this moment, though the disk has not failed; None: nothing is held up."""
        ...

    def append(self, frame: Frame, done: Callable[[int | OSError], None], /) -> None:
        """Queue a frame.

        `done` is called on the event loop, in the order of the calls, with the place of the frame's data once it
        would survive a power loss, or with the error that prevented it; after an error nothing more is written.
        """
        ...

    def read(self, place: int, n: int, /) -> bytes:
        """`n` bytes from `place` on, within one frame's data.

        Raises:
            CorruptLog: the frame does not match its checksum.
            NodeUnavailable: it cannot be read at this moment.
        """
        ...

    def replay(self) -> Iterator[tuple[Frame, int]]:
        """All frames with the places of their data, oldest first; a torn tail is cut off."""
        ...

    def trim(self, place: int | None, /) -> None:
        """Give back the room of frames whose data lie below `place` (None: of all), where that is easily done.

        The newest metadata that are durable are always kept.
        """
        ...

    async def scrub(self) -> list[Places]:
        """Read everything from the disk again; the places that do not hold what was written."""
        ...

    async def retire(self) -> None:
        """What the last scrub found damaged has been written elsewhere: overwrite it, so that it is found no more."""
        ...

    async def close(self) -> None:
        """Release the file; what was queued and is not durable may be lost."""
        ...


class AckSink(Protocol):
    """Receives the outcome of the log sent to a node."""

    def on_ack(self, node: int, group: int, scl: int, /) -> None:
        """Everything of `group` up to `scl` is durable on `node`."""
        ...

    def on_refusal(self, node: int, promised: int, /) -> None:
        """`node` obeys another epoch."""
        ...


class NodeHandle(Protocol):
    """A storage node as seen from the driver, the recovery, or a peer.

    Every coroutine ends within a deadline: by an answer, by `Refused`, or by `NodeUnavailable`.
    """

    @property
    def node(self) -> int:
        """Its number."""
        ...

    def append(self, epoch: int, vdl: int, extent: Extent, sink: AckSink, /) -> None:
        """Send log; `sink` receives the outcome, or nothing if it is lost."""
        ...

    async def state(self) -> NodeState:
        """What the node holds and has promised."""
        ...

    async def promise(self, epoch: int, /) -> NodeState:
        """Let the node obey `epoch` from now on."""
        ...

    async def adopt(self, epoch: int, charter: Charter, /) -> NodeState:
        """Install the charter of `epoch`."""
        ...

    async def pull(self, epoch: int, group: int, after: int, limit: int, branch: int = 0, /) -> Sequence[Extent]:
        """Extents of `group` above `after`, chained, about `limit` bytes; `epoch` is the one that must be held.

        `branch`: a kept one, 0 the present one.
        """
        ...

    async def spans(self, group: int, after: int, branch: int = 0, /) -> Sequence[Span]:
        """Where the extents of `group` above `after` (bytes) lie; `branch`: a kept one, 0 the present one."""
        ...

    async def fill(self, epoch: int, extents: Sequence[Extent], branch: int = 0, /) -> NodeState:
        """Give the node extents that a peer holds; `branch`: of a kept one, 0 of the present one."""
        ...

    async def read(self, epoch: int, lsn: int, n: int, branch: int = 0, /) -> bytes:
        """At most `n` bytes of the log from `lsn` on; fewer, or none, where the node does not hold them.

        `branch`: a kept one, 0 the present one.
        """
        ...
