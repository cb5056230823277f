"""The seam between the control plane and where its instances run: on this machine, or on hosts of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aurora_router_cluster.postgres.endpoints import EngineAddress, RecoveryPoint
    from aurora_router_cluster.postgres.engine import State


class AnyEngine(Protocol):
    """One PostgreSQL instance: `postgres.engine.Engine` here, `hosts.engine.RemoteEngine` on a host of its own.

    What returns at once may only have been sent when it returns; requests are carried out in the order in which they
    were made, and what an engine reports already counts them as done.

    Attributes:
        name: instance name.
        home: its directory, where it runs.
        host: address that it listens on.
        port: its port.
        frozen: every process of it is stopped, by `freeze`.
        here: its processes are this machine's.
        cpu: percent of its machine's processors; None: unknown, or to be measured by the caller.
    """

    name: str
    home: Path
    host: str
    port: int
    frozen: bool
    here: bool
    cpu: float | None

    @property
    def data(self) -> Path:
        """The data directory, where it runs."""
        ...

    @property
    def where(self) -> EngineAddress:
        """How the storage reaches it."""
        ...

    @property
    def pid(self) -> int | None:
        """Process id of its postmaster, where it runs; None: it is down."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the postmaster runs (a frozen one does), as far as known."""
        ...

    @property
    def was_writer(self) -> bool:
        """Whether the data directory belongs to a writer."""
        ...

    def make_home(self) -> None:
        """See `postgres.engine.Engine`, here and below."""
        ...

    async def clone(self, source: Path) -> None:
        """Make the data directory a copy of `source`, which is here."""
        ...

    def configure(self, extra: Mapping[str, str], *, standby: bool) -> None:
        """Write the configuration."""
        ...

    def follow(self, extra: Mapping[str, str]) -> None:
        """Change the configuration of a running standby."""
        ...

    def write_status(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace what ``aurora_replica_status()`` shows."""
        ...

    def erase(self) -> None:
        """Delete the data directory."""
        ...

    def remove(self) -> None:
        """Delete everything of it."""
        ...

    def start(self) -> None:
        """Start the server."""
        ...

    async def wait(self, *wanted: State, timeout: float = 30.0) -> State:
        """Wait for a state."""
        ...

    def reload(self) -> None:
        """Make the server read its configuration again."""
        ...

    def leave_out(self, point: RecoveryPoint) -> None:
        """Make a standby that is promoted at `point` leave timelines out."""
        ...

    async def promote(self, timeout: float = 30.0) -> None:
        """Turn a standby into a writer."""
        ...

    async def stop(self, *, immediate: bool = False, timeout: float = 15.0) -> None:
        """End the server in order."""
        ...

    def kill(self) -> None:
        """SIGKILL to every process of it."""
        ...

    def freeze(self) -> None:
        """SIGSTOP to every process of it."""
        ...

    def thaw(self) -> None:
        """Let it go on."""
        ...

    def log_tail(self, lines: int = 12) -> str:
        """The last lines that the server printed."""
        ...


class Hosts(Protocol):
    """Hosts that instances can be placed on."""

    def place(self, name: str, zone: str | None) -> tuple[AnyEngine, str]:
        """Place a new instance on a host that has none; returns its engine, and its zone.

        Args:
            name: its name.
            zone: where; None: on the first host that is free.

        Raises:
            AddressInUseError: no host is free there.
        """
        ...
