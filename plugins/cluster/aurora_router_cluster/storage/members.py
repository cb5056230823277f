"""What a volume needs of its nodes besides the node protocol: to start and stop them, and to look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from aurora_router_cluster.storage.protocols import NodeHandle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.storage.core.replica import Charter, NodeState
    from aurora_router_cluster.storage.scrubbing import ScrubReport


EMPTY = "it holds nothing, its files are gone; replace it by a new one"
"""What is said of a member that is `Member.empty`."""


class Member(NodeHandle, Protocol):
    """A node that this cluster runs: `local.LocalNode`, or `isolated.IsolatedNode` in a process of its own.

    Attributes:
        zone: availability zone.
        directory: of its files.
    """

    zone: str
    directory: Path

    @property
    def up(self) -> bool:
        """Whether it runs."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it is absent though it runs: a sentence about its disk; None: it is not."""
        ...

    @property
    def empty(self) -> bool:
        """Whether it was found to hold nothing, not even the promise to be a member."""
        ...

    @property
    def lost(self) -> bool:
        """Whether it ended without a request."""
        ...

    @property
    def size(self) -> int:
        """Bytes of its files on disk."""
        ...

    async def start(self) -> None:
        """Bring it up over the files that are there.

        Raises:
            NodeUnavailable: it cannot run; the message says why.
        """
        ...

    async def stop(self) -> None:
        """Take it down, without a last word."""
        ...

    async def reopen(self) -> bool:
        """Open it again after its disk failed, if the disk takes what is written; whether that was done here."""
        ...

    async def format(self, charter: Charter, /) -> NodeState:
        """Make the empty node a member.

        Raises:
            Refused: it is one already.
        """
        ...

    async def scrub(self, peers: Mapping[int, NodeHandle], /) -> ScrubReport:
        """Check its disk and refill from `peers` what is damaged."""
        ...

    async def look(self) -> None:
        """Refresh what `describe` returns."""
        ...

    def groups(self) -> dict[int, int]:
        """Protection group -> SCL, in bytes."""
        ...

    def describe(self) -> dict[str, Any]:
        """What ``status`` shows of it."""
        ...
