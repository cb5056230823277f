"""Two values that engines and volumes speak of: where an engine is reached, and where its log has to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """How the storage reaches one engine.

    Attributes:
        name: instance name, e.g. ``demo-1``.
        socket_directory: directory of its Unix-domain socket; the superuser is trusted there.
        port: port number, part of the socket's name.
        superuser: role with replication rights.
        data_directory: its data directory.
        host: address to be used instead of the socket, where it runs on a host of its own.
        password: the superuser's there; it is trusted on the socket.
    """

    name: str
    socket_directory: Path
    port: int
    superuser: str
    data_directory: Path
    host: str | None = None
    password: str | None = None

    @property
    def address(self) -> Path | tuple[str, int]:
        """The path of its socket, or (host, port)."""
        if self.host is not None:
            return self.host, self.port
        return self.socket_directory / f".s.PGSQL.{self.port}"


@dataclass(frozen=True, slots=True)
class RecoveryPoint:
    """Where the log ends for a new writer.

    Attributes:
        lsn: byte position up to which the candidate must have replayed before it is promoted; everything above
            was never acknowledged and is gone.
        timeline: the timeline that ends there; the promotion opens the next one.
        epoch: the volume epoch promised by the storage for the new writer.
        next_timeline: the lowest number that the new writer's timeline may have; 0: whatever it takes.
    """

    lsn: int
    timeline: int
    epoch: int
    next_timeline: int = 0
