"""Quorum sets, also while a member is being replaced.

A group has six slots. In rest each slot has one member; a write needs 4 of the 6 and a read 3 of the 6, so every read
meets every write (3 + 4 > 6) and any two writes meet (4 + 4 > 6). While member F is being replaced by G its slot has
two *candidates*, and there are two combinations, ABCDEF and ABCDEG; a second replacement at the same time makes four.

* A write needs 4/6 of *every* combination, so it is a write whichever candidate stays: each step can be undone.
* A read needs 3/6 of *any* combination, but a candidate counts for reads only once it is *hydrated*: until then what
  was written before it joined may be missing on it.

Each step makes a new version, accepted at a write quorum of the version before and of the new one; `hydrate` is taken
only when all that is durable meets the write quorum of every combination. (SIGMOD 2018 paper on Aurora, section 4.)

Invariant: in every state, and across every step, each read set meets each write set, and any two write sets meet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

SLOTS, WRITE_QUORUM, READ_QUORUM = 6, 4, 3


@dataclass(frozen=True, slots=True)
class Membership:
    """Which nodes hold the copies.

    Attributes:
        slots: for each of the six, its candidates, the incumbent first.
        joining: candidates that are not hydrated yet.
        version: membership epoch; + 1 with each step.
    """

    slots: tuple[tuple[int, ...], ...]
    joining: frozenset[int] = frozenset()
    version: int = 1

    @classmethod
    def of(cls, members: Iterable[int]) -> Membership:
        """The membership in rest of six members.

        Raises:
            ValueError: not six different ones.
        """
        slots = tuple((member,) for member in members)
        if len(slots) != SLOTS or len(set(slots)) != SLOTS:
            raise ValueError(f"a group has {SLOTS} different members, not {[slot[0] for slot in slots]}")
        return cls(slots)

    @property
    def members(self) -> tuple[int, ...]:
        """All candidates of all slots."""
        return tuple(member for slot in self.slots for member in slot)

    @property
    def settled(self) -> bool:
        """Whether no replacement is under way."""
        return len(self.members) == SLOTS

    @property
    def unproven(self) -> tuple[int, ...]:
        """Newcomers that have a slot to themselves and do not count for reads yet; see `reform`."""
        return tuple(slot[0] for slot in self.slots if len(slot) == 1 and slot[0] in self.joining)

    def combinations(self) -> tuple[tuple[int, ...], ...]:
        """Every choice of one candidate per slot."""
        return tuple(product(*self.slots))

    def writes(self, nodes: Collection[int]) -> bool:
        """Whether `nodes` are a write quorum."""
        return all(_common(combination, nodes) >= WRITE_QUORUM for combination in self.combinations())

    def reads(self, nodes: Collection[int]) -> bool:
        """Whether `nodes` are a read quorum."""
        hydrated = set(nodes) - self.joining
        return any(_common(combination, hydrated) >= READ_QUORUM for combination in self.combinations())

    def durable(self, complete: Mapping[int, int]) -> int:
        """The highest position that a write quorum holds.

        Args:
            complete: node -> position up to which it has everything (SCL); nodes not named count as -1.

        Returns:
            The position in bytes, -1 if too few nodes are named. (PGCL: section 2.3 of the SIGMOD 2018 paper.)
        """
        get = complete.get
        return min(
            sorted([get(member, -1) for member in combination])[SLOTS - WRITE_QUORUM]
            for combination in product(*self.slots)
        )

    def replacing(self, old: int, new: int) -> Membership:
        """The first step: `new` becomes a second candidate of `old`'s slot.

        Raises:
            ValueError: `old` is not a member in rest, or `new` is a member already.
        """
        if new in self.members:
            raise ValueError(f"node {new} is a member already: {self.members}")
        if (old,) not in self.slots:
            raise ValueError(f"node {old} is not a member that could be replaced: {self.slots}")
        slots = tuple((old, new) if slot == (old,) else slot for slot in self.slots)
        return Membership(slots, self.joining | {new}, self.version + 1)

    def confirm_hydrated(self, new: int) -> Membership:
        """The second step: `new` holds all that is durable, and counts for reads.

        Raises:
            ValueError: `new` is not joining.
        """
        if new not in self.joining:
            raise ValueError(f"node {new} is not joining: {sorted(self.joining)}")
        return replace(self, joining=self.joining - {new}, version=self.version + 1)

    def settling(self, keep: int) -> Membership:
        """The last step, forward (keep the new candidate) or back (keep the incumbent).

        Raises:
            ValueError: `keep` has no rival, or is not hydrated.
        """
        slot = self._slot_of_candidate(keep)
        if keep in self.joining:
            raise ValueError(f"node {keep} is not hydrated yet: it may miss what was written before it joined")
        slots = tuple((keep,) if other == slot else other for other in self.slots)
        return Membership(slots, self.joining - set(slot), self.version + 1)

    def rival(self, candidate: int) -> int:
        """The other candidate of a slot.

        Raises:
            ValueError: there is none.
        """
        return next(other for other in self._slot_of_candidate(candidate) if other != candidate)

    def _slot_of_candidate(self, candidate: int) -> tuple[int, ...]:
        slot = next((slot for slot in self.slots if candidate in slot and len(slot) > 1), None)
        if slot is None:
            raise ValueError(f"node {candidate} is not a candidate of a replacement: {self.slots}")
        return slot

    def reform(self, survivors: Collection[int], newcomers: Iterable[int]) -> Membership:
        """The membership when all but a read quorum is gone for good: `newcomers` fill the slots without survivor.

        The newcomers count for writes at once, so that the next epoch has a write quorum to be repaired to, and for
        reads once `confirm_hydrated` was called. Until then a read needs all three survivors, each of which may be the
        only one that holds a part of the log.

        Raises:
            ValueError: the survivors are no read quorum, or there are too few newcomers.
        """
        if not self.reads(survivors):
            raise ValueError(f"nodes {sorted(survivors)} are no read quorum (3 of 6) of {self.slots}")
        fresh = iter(newcomers)
        slots: list[tuple[int, ...]] = []
        joining: set[int] = set()
        for slot in self.slots:
            kept = [member for member in slot if member in survivors and member not in self.joining]
            new = next(fresh, None) if not kept else None
            if not kept and new is None:
                raise ValueError(f"there are too few newcomers for the slots without survivor: {self.slots}")
            if new is not None:
                joining.add(new)
            slots.append((kept[0] if new is None else new,))
        return Membership(tuple(slots), frozenset(joining), self.version + 1)

    def to_json(self) -> dict[str, Any]:
        """As plain data, for a node's metadata."""
        return {"slots": [list(slot) for slot in self.slots], "joining": sorted(self.joining), "version": self.version}

    @classmethod
    def from_json(cls, data: Any) -> Membership:
        """Read what `to_json` wrote."""
        return cls(tuple(tuple(slot) for slot in data["slots"]), frozenset(data["joining"]), data["version"])


def _common(combination: tuple[int, ...], nodes: Collection[int]) -> int:
    return sum(member in nodes for member in combination)
