"""The storage nodes of a cluster as a Python object: ``LocalCluster.nodes``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aurora_router_cluster.client.command import command, option, positional
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


_NUMBER = positional("node", "its number", type=int)


class StorageNodes:
    """The storage nodes under a cluster of flavour ``quorum``; iterating returns their status (see ``status --json``).

    Every method raises `RequestError` where the flavour is another, or there is no such node.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._ask("status")["volume"].get("nodes", []))

    @command(
        "node-down",
        "take a storage node down, as the loss of its machine",
        _NUMBER,
        part="nodes",
        report=lambda _, node: (f"storage node {node} is down", {"down": node}),
    )
    def down(self, node: int) -> None:
        """Take a node down, as the loss of its machine; with ``isolated``: kill -9 of its process."""
        self._ask("node_down", node=node)

    @command(
        "node-up",
        "bring a storage node up again; its peers fill in what it missed",
        _NUMBER,
        part="nodes",
        report=lambda _, node: (f"storage node {node} is up", {"up": node}),
    )
    def up(self, node: int) -> None:
        """Bring a node up again over the files that it has; its peers fill in what it missed.

        Raises:
            EngineError: it cannot run over those files; replace it.
        """
        self._ask("node_up", node=node)

    @command(
        "replace-node",
        "put a new storage node in the place of one, dead or alive, under load",
        _NUMBER,
        part="nodes",
        report=lambda new, node: (
            f"storage node {new} has taken the place of {node}",
            {"old": node, "new": new},
        ),
    )
    def replace(self, node: int) -> int:
        """Put a new node in the place of one, dead or alive, while the log goes on; returns its number.

        Raises:
            EngineError: too few nodes, or the newcomer could not be filled; the old one stays.
        """
        new: int = self._ask("replace_node", node=node)
        return new

    @command(
        "replace-zone",
        "put new storage nodes in the places of all of a zone's, under load",
        positional("zone", "availability zone, e.g. eu-test-1a"),
        part="nodes",
        report=lambda pairs, zone: (
            f"new storage nodes in {zone}: {_describe_pairs(pairs)}",
            [{"old": old, "new": new} for old, new in pairs.items()],
        ),
    )
    def replace_zone(self, zone: str) -> dict[int, int]:
        """Put new nodes in the places of all of a zone's, while the log goes on; returns old -> new.

        Raises:
            EngineError: as `replace`.
        """
        return {old: new for old, new in self._ask("replace_zone", zone=zone)}  # noqa: C416  # pairs of JSON: lists

    @command(
        "scrub",
        "read the storage nodes' disks and refill from their peers what is damaged",
        part="nodes",
        report=lambda reports: ("\n".join(map(_describe_scrub, reports)), [asdict(each) for each in reports]),
    )
    def scrub(self) -> list[Scrub]:
        """Read the disks of all nodes that run, and refill from their peers what is damaged."""
        return [
            Scrub(each["node"], each["damaged"], each["refilled"], len(each["lost"]), each["failure"])
            for each in self._ask("scrub")
        ]

    @command(
        "repair",
        "with three of six storage nodes gone for good, form a new membership from the others",
        option("force", "give the lost nodes up", action="store_true"),
        part="nodes",
        report=lambda done, **_: (_describe_repair(done), asdict(done)),
    )
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


def _describe_pairs(pairs: dict[int, int]) -> str:
    return ", ".join(f"{new} for {old}" for old, new in pairs.items())


def _describe_scrub(one: Scrub) -> str:
    if one.failure is not None:
        return f"node {one.node}: not read: {one.failure}"
    return f"node {one.node}: {one.damaged} damaged, {one.refilled} bytes refilled, {one.lost} pieces lost"


def _describe_repair(done: Repair) -> str:
    left, new = ", ".join(map(str, done.survivors)), _describe_pairs(done.replaced)
    writer = done.failover.writer if done.failover is not None else "the former one, rebuilt"
    return f"a new membership of {left} and new storage nodes ({new}); the writer is {writer}"
