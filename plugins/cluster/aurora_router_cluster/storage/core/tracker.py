"""What is durable: the storage driver's arithmetic over the acknowledgements of the nodes.

Definitions (SIGMOD 2018 paper on Aurora, sections 2.3 and 2.4; SIGMOD 2017 paper, section 4.1):

* *SCL* of a segment: everything of its group up to there is on that node.
* *PGCL* of a group: the highest SCL that a write quorum of its segments has reached (the 4th of six).
* *VCL*: the highest position up to which *every* extent has met its quorum. Not the minimum of the PGCLs: a group to
  which nothing was written lately does not hold the volume back.
* *VDL*: the highest record boundary at or below the VCL. Commits are acknowledged, and readers see, up to here.
* *LAL*: no more than 10,000,000 bytes may be on their way above the VDL; then the writer is held back.

Invariants: VDL <= VCL <= received; VCL and VDL never fall; VDL is a record boundary. A driver of which so many nodes
refuse the epoch that the others are no write quorum is *fenced*, for good.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.quorum import WRITE_QUORUM

if TYPE_CHECKING:
    from aurora_router_cluster.storage.core.quorum import Membership

LAL = 10_000_000
"""Bytes above the VDL that may be allocated ("LSN allocation limit")."""


class Tracker:
    """The positions of one epoch.

    Args:
        membership: whose acknowledgements count.
        start: where the epoch begins, in bytes: durable already.
        limit: LSN allocation limit, in bytes.

    Attributes:
        received: end of what the writer has sent.
        handed: end of what was handed to the nodes.
        vcl: volume complete LSN.
        vdl: volume durable LSN.
        refusals: node -> epoch that it obeys instead.
    """

    __slots__ = (
        "_acked",
        "_boundaries",
        "_limit",
        "_outstanding",
        "_pgcl",
        "_scls",
        "handed",
        "membership",
        "received",
        "refusals",
        "vcl",
        "vdl",
    )

    def __init__(self, membership: Membership, start: int, limit: int = LAL) -> None:
        self.membership = membership
        self.received = self.handed = self.vcl = self.vdl = start
        self.refusals: dict[int, int] = {}
        self._limit = limit
        self._scls: dict[int, dict[int, int]] = {}  # group -> node -> SCL
        self._pgcl: dict[int, int] = {}
        self._outstanding: deque[tuple[int, int]] = deque()  # (end, group), in order of the log
        self._boundaries: deque[int] = deque()

    def record_sent(self, group: int, end: int) -> None:
        """An extent of `group` that ends at `end` was handed to the nodes; extents come in the order of the log."""
        self.handed = end
        self._outstanding.append((end, group))

    def record_received(self, end: int, boundary: int) -> None:
        """The writer's log has come up to `end`, its last whole record ends at `boundary`."""
        self.received = end
        if boundary > self.vdl and (not self._boundaries or boundary > self._boundaries[-1]):
            self._boundaries.append(boundary)

    def record_ack(self, node: int, group: int, scl: int) -> bool:
        """A node has everything of `group` up to `scl`; return whether the VDL advanced."""
        scls = self._scls.get(group)
        if scls is None:
            scls = self._scls[group] = {}
        if scl <= scls.get(node, -1):
            return False
        scls[node] = scl
        known = self._pgcl.get(group, -1)
        if scl <= known or sum([each > known for each in scls.values()]) < WRITE_QUORUM:
            return False  # nearly always: too few have more than what met the quorum, or enough have had it before
        pgcl = self.membership.durable(scls)
        if pgcl <= known:
            return False
        self._pgcl[group] = pgcl
        return self._advance()

    @property
    def outstanding(self) -> bool:
        """Whether something that was handed to the nodes has not met its quorum."""
        return bool(self._outstanding)

    def _advance(self) -> bool:
        outstanding, pgcl = self._outstanding, self._pgcl
        while outstanding and outstanding[0][0] <= pgcl.get(outstanding[0][1], -1):
            self.vcl = outstanding.popleft()[0]
        before = self.vdl
        while self._boundaries and self._boundaries[0] <= self.vcl:
            self.vdl = self._boundaries.popleft()
        return self.vdl > before

    def scl(self, node: int, group: int) -> int:
        """What `node` has acknowledged of `group` in this epoch, in bytes; -1: nothing."""
        return self._scls.get(group, {}).get(node, -1)

    def complete(self) -> dict[int, int]:
        """Group -> PGCL: how far each group has met its write quorum, in bytes."""
        return dict(self._pgcl)

    def holds(self, node: int, ends: dict[int, int]) -> bool:
        """Whether `node` has acknowledged each group up to the given end."""
        return all(self.scl(node, group) >= end for group, end in ends.items())

    def behind(self, node: int) -> list[int]:
        """The groups of which `node` misses something that was handed out, as far as acknowledged."""
        ends = {group: end for end, group in self._outstanding}
        for group, pgcl in self._pgcl.items():
            ends.setdefault(group, pgcl)
        return [group for group, end in ends.items() if self.scl(node, group) < end]

    def forget(self, node: int) -> None:
        """A node came back: what it holds has to be acknowledged again. What was durable stays so."""
        for scls in self._scls.values():
            scls.pop(node, None)

    def record_refusal(self, node: int, promised: int) -> bool:
        """A node obeys another epoch; return whether this driver is fenced now."""
        self.refusals[node] = promised
        return self.fenced

    @property
    def fenced(self) -> bool:
        """Whether the nodes that do not refuse are no write quorum any more."""
        others = [member for member in self.membership.members if member not in self.refusals]
        return not self.membership.writes(others)

    @property
    def full(self) -> bool:
        """Whether the writer must be held back.

        A record longer than the limit must still be able to end: when everything received is complete, more is
            accepted.
        """
        return self.received >= self.vdl + self._limit and self.vcl < self.received

    def change(self, membership: Membership) -> bool:
        """Count by another membership from now on; return whether the VDL advanced.

        What met the quorum of the membership before stays durable: a newcomer is hydrated up to there (`complete`).
        """
        self.membership = membership
        for group, scls in self._scls.items():
            self._pgcl[group] = max(self._pgcl.get(group, -1), membership.durable(scls))
        return self._advance()
