"""The storage nodes of a cluster as a Python object: ``LocalCluster.nodes``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aurora_router_cluster.control.status import Failover

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ask(Protocol):
    """Sends a request to the supervisor and returns its result."""

    def __call__(self, command: str, **arguments: object) -> Any:
        """See `control.channel.request`."""
        ...


@dataclass(frozen=True, slots=True)
class Scrub:
    """What a scrub of one storage node found and did.

    Attributes:
        node: which.
        damaged: damaged places of its journal.
        refilled: bytes of log that were fetched from peers and written again.
        lost: pieces that no peer gave; they stay holes until one can.
        failure: why it was not scrubbed; None: it was.
    """

    node: int
    damaged: int
    refilled: int
    lost: int
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did.

    Attributes:
        survivors: the nodes from which the new membership was formed.
        replaced: node that was given up -> the new one in its place.
        failover: the failover that followed; None: there was no reader, and the writer was rebuilt in its place.
    """

    survivors: tuple[int, ...]
    replaced: dict[int, int]
    failover: Failover | None


class StorageNodes:
    """The storage nodes under a cluster of flavour ``quorum``; iterating returns their status (see ``status --json``).

    Every method raises `RequestError` where the flavour is another, or there is no such node.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._ask("status")["volume"].get("nodes", []))

    def down(self, node: int) -> None:
        """Take a node down, as the loss of its machine; with ``isolated``: kill -9 of its process."""
        self._ask("node_down", node=node)

    def up(self, node: int) -> None:
        """Bring a node up again over the files that it has; its peers fill in what it missed.

        Raises:
            EngineError: it cannot run over those files; replace it.
        """
        self._ask("node_up", node=node)

    def replace(self, node: int) -> int:
        """Put a new node in the place of one, dead or alive, while the log goes on; returns its number.

        Raises:
            EngineError: too few nodes, or the newcomer could not be filled; the old one stays.
        """
        new: int = self._ask("replace_node", node=node)
        return new

    def replace_zone(self, zone: str) -> dict[int, int]:
        """Put new nodes in the places of all of a zone's, while the log goes on; returns old -> new.

        Raises:
            EngineError: as `replace`.
        """
        return {old: new for old, new in self._ask("replace_zone", zone=zone)}  # noqa: C416  # pairs of JSON: lists

    def scrub(self) -> list[Scrub]:
        """Read the disks of all nodes that run, and refill from their peers what is damaged."""
        return [
            Scrub(each["node"], each["damaged"], each["refilled"], len(each["lost"]), each["failure"])
            for each in self._ask("scrub")
        ]

    def repair(self, *, force: bool = False) -> Repair:
        """With only three of the six nodes left, form a new membership from them, and fail over.

        Nothing that was acknowledged is lost. The nodes that do not answer are given up for good: do this only when
        they are gone, for if one of them is alive elsewhere there are two volumes afterwards.

        Args:
            force: do it; without it only the error says what would be done.

        Raises:
            RequestError: a write quorum answers, so that nothing has to be given up; or `force` is missing.
            FailoverImpossibleError: fewer than three nodes are left, or one failed meanwhile.
        """
        done = self._ask("repair", force=force)
        failover = Failover(**done["failover"]) if done["failover"] is not None else None
        return Repair(tuple(done["survivors"]), {old: new for old, new in done["replaced"]}, failover)  # noqa: C416  # as above
