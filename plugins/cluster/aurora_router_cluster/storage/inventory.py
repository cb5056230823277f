"""What a volume that outlives its supervisor writes down beside the nodes' journals.

::

    volume.json      what the volume is: system identifier, replication secret, layout
    nodes.json       number -> availability zone of every node that may be a member; which numbers were used
    base-N.json      where the base in base-N/ begins, where it is consistent, when and on which history it was taken
    snapshots.json   the snapshots

Which nodes are members, how far the log goes and which branches there are is in the journals alone. Invariants: a base
is listed only while its files are on the disk, whole; a node is listed before its directory is made and until that is
deleted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import DirectoryError, explain_os_error
from aurora_router_cluster.postgres import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

VOLUME, NODES, SNAPSHOTS = "volume.json", "nodes.json", "snapshots.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change in the life of a volume.

    Attributes:
        identifier: PostgreSQL's system identifier.
        secret: what nodes and readers know the cluster by.
        major: PostgreSQL's major version.
        segment_size: bytes in a WAL segment file.
        group_bytes: size of a protection group; None: the volume is one group.
    """

    identifier: int
    secret: str
    major: int
    segment_size: int
    group_bytes: int | None


class Inventory:
    """The files named above, in `directory`.

    Every method raises `DirectoryError` where a file is missing or not understood.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def identity(self) -> Identity:
        """What the volume is."""
        try:
            return Identity(**self._read(VOLUME))
        except TypeError as error:
            raise self._damage_error(VOLUME, error) from None

    def write_identity(self, identity: Identity) -> None:
        """Write down what the volume is."""
        self._write(VOLUME, asdict(identity))

    def nodes(self) -> tuple[dict[int, str], int]:
        """The nodes, number -> availability zone; and the lowest number that no node ever had."""
        facts = self._read(NODES)
        try:
            return {int(number): str(zone) for number, zone in facts["zones"].items()}, int(facts["made"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._damage_error(NODES, error) from None

    def write_nodes(self, zones: Mapping[int, str], made: int) -> None:
        """Write down which nodes there are, and the lowest number that none ever had."""
        self._write(NODES, {"zones": {str(number): zone for number, zone in zones.items()}, "made": made})

    def bases(self) -> dict[int, dict[str, Any]]:
        """Number of a base -> what was written down of it, in the order in which they were taken."""
        found = {_number(path): path for path in self.directory.glob("base-*.json")}
        return {number: self._read(found[number].name) for number in sorted(found)}

    def write_base(self, number: int, facts: Mapping[str, Any]) -> None:
        """Write down a base, whose files are on the disk."""
        self._write(f"base-{number}.json", facts)

    def forget_base(self, number: int) -> None:
        """Take a base out; its files may be deleted from now on."""
        files.remove_durably(self.directory / f"base-{number}.json")

    def snapshots(self) -> list[dict[str, Any]]:
        """What was written down of the snapshots."""
        found: list[dict[str, Any]] = self._read(SNAPSHOTS) if (self.directory / SNAPSHOTS).exists() else []
        return found

    def write_snapshots(self, snapshots: Sequence[Mapping[str, Any]]) -> None:
        """Write down the snapshots."""
        self._write(SNAPSHOTS, snapshots)

    def leftovers(self) -> list[Path]:
        """Directories of bases and nodes that are not listed: of work that was interrupted."""
        nodes = {f"node-{number}" for number in self.nodes()[0]}
        bases = {f"base-{number}" for number in self.bases()}
        found = [*self.directory.glob("node-*"), *self.directory.glob("base*")]
        return [path for path in found if path.is_dir() and path.name not in nodes | bases]

    def _read(self, name: str) -> Any:
        path = self.directory / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DirectoryError(
                f"{self.directory.parent} (--data) is incomplete: {path} is missing; put it back, or begin with "
                "another directory"
            ) from None
        except OSError as error:
            raise DirectoryError(f"{path} cannot be read: {explain_os_error(error)}") from None
        except ValueError as error:
            raise self._damage_error(name, error) from None

    def _damage_error(self, name: str, error: Exception) -> DirectoryError:
        path = self.directory / name
        return DirectoryError(
            f"{path} is damaged ({error}); put a good copy of it back, or begin with another directory"
        )

    def _write(self, name: str, facts: Any) -> None:
        files.write_durably(self.directory / name, json.dumps(facts, indent=1))


def _number(path: Path) -> int:
    text = path.stem.partition("-")[2]
    return int(text) if text.isdigit() else -1
