"""Where the cluster's log lives: the seam between the control plane and the storage.

The control plane (supervisor) owns instances: it starts, stops, promotes and repoints PostgreSQL engines. A
`Volume` owns the log between them: which server a reader follows, what a writer needs to know to have its commits
acknowledged, and where a recovery has to stop. Three volumes exist: `direct` (plain PostgreSQL streaming: readers
follow the writer), `semisync` (the same, and a commit waits for one of them) and `quorum` (six copies in three zones;
readers follow the storage).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aurora_router_cluster.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.postgres.endpoints import EngineAddress, RecoveryPoint
    from aurora_router_cluster.storage.history import VolumeHistory
    from aurora_router_cluster.storage.membership.change import MembershipChange
    from aurora_router_cluster.storage.nodes import NodeSet

T = TypeVar("T")


def require_nodes(volume: Volume, part: T | None) -> T:
    """A part of `volume` that only one with storage nodes has.

    Raises:
        RequestError: it has none.
    """
    if part is None:
        raise RequestError(
            f"this cluster has no storage nodes: its flavour is {volume.flavour!r}; start one with flavour 'quorum'"
        )
    return part


class Volume(Protocol):
    """The log under a cluster. All methods run on the supervisor's event loop.

    The supervisor calls, for a new cluster: `open`, then `attach` once the writer is ready. For a failover:
    `recover`; it lets the candidate replay up to the point returned and promotes it with `writer_settings` in
    force; `attach`. Readers whose `reader_settings` changed by that get them and are reloaded. Whatever
    has to come back as a reader goes through `seed` first.
    """

    @property
    def flavour(self) -> str:
        """``direct``, ``multi-az`` or ``quorum``; shown by ``status``."""
        ...

    @property
    def nodes(self) -> NodeSet | None:
        """The storage nodes; None: it has none."""
        ...

    @property
    def membership_change(self) -> MembershipChange | None:
        """Puts storage nodes in the places of others; None: it has none."""
        ...

    @property
    def history(self) -> VolumeHistory | None:
        """To which points it can go back; None: it keeps no log that was left behind."""
        ...

    @property
    def fences(self) -> bool:
        """Whether a former writer that still runs can do no harm, because `recover` took the log from it.

        Where not, the control plane ends it before it promotes another, or before it wakes up.
        """
        ...

    @property
    def waits_for_readers(self) -> bool:
        """Whether a commit is acknowledged once a reader has it, and nothing but the readers has it then.

        Where so, the reader with the most log is promoted, and each that may have acknowledged some answers first.
        """
        ...

    async def open(self, template: Path) -> Path:
        """Start serving the log of a new cluster made from the data directory `template`.

        Returns:
            The data directory of which the instances have to be copies: the template, or the volume's own copy of it.
        """
        ...

    def writer_settings(self) -> Mapping[str, str]:
        """Server settings (postgresql.conf) that a writer needs on top of the common ones."""
        ...

    def reader_settings(self, reader: str, writer: EngineAddress | None) -> Mapping[str, str]:
        """Server settings that make `reader` follow the log (``primary_conninfo``); `writer` None: none is up."""
        ...

    async def seed(self, reader: EngineAddress, writer: EngineAddress | None) -> None:
        """Fill the data directory of an instance that is down, so that it can follow the log as a reader.

        The directory may not exist yet (a new reader) or hold the files of a former writer or of a reader that
        diverged: the volume rewinds or replaces them. Ownership is the account's. `writer` None: none is up.

        Raises:
            EngineError: it could not be done; the data directory may then be in any state.
        """
        ...

    def hold_back(self, reader: EngineAddress) -> None:
        """Let a reader that is down take no connections, once it is started, until it shows the present.

        A volume that does not know the end of its log does nothing.
        """
        ...

    def preconnect(self, candidate: EngineAddress) -> None:
        """`candidate` is about to be promoted: begin with what of `attach` can be done before; returns at once."""
        ...

    async def attach(self, writer: EngineAddress) -> None:
        """Take the log of a writer that has just become ready; returns once its commits can be acknowledged."""
        ...

    @property
    def attached(self) -> bool:
        """Whether the writer's log arrives, as far as known."""
        ...

    @property
    def disputed(self) -> bool:
        """Whether storage nodes obey an epoch after the present one, which an interrupted recovery never opened."""
        ...

    async def check_quorum(self) -> None:
        """Make sure that `recover` can be expected to succeed, before a writer that works is stopped for it.

        Raises:
            FailoverImpossibleError: it cannot; nothing has changed.
        """
        ...

    async def recover(self) -> RecoveryPoint | None:
        """Fence the former writer and find the durable end of the log; None where the volume does not know it."""
        ...

    def durable_lsn(self) -> int | None:
        """Byte position up to which the log is durable; None: what the writer has flushed is durable."""
        ...

    async def look(self) -> None:
        """Refresh what `status` returns, where that takes asking."""
        ...

    def status(self) -> dict[str, Any]:
        """What ``status --json`` shows under ``volume``."""
        ...

    async def close(self) -> None:
        """Stop serving; release every process, thread, socket and file."""
        ...
