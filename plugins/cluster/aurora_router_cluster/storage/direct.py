"""The direct volume: plain PostgreSQL streaming replication, every reader follows the writer.

Replication is asynchronous: after the *loss* of a writer, commits of its last milliseconds may be missing on the
new one, which nothing here can fence either (the quorum volume can do both). A planned switchover loses nothing,
because a writer that stops in order sends its whole log first.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import programs
from aurora_router_cluster.postgres.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries
    from aurora_router_cluster.postgres.endpoints import EngineAddress, RecoveryPoint


class DirectVolume:
    """See the module, and `aurora_router_cluster.storage.volume.Volume` for the methods."""

    flavour = "direct"
    nodes = None
    membership_change = None
    history = None
    fences = False
    waits_for_readers = False

    def __init__(self, binaries: Binaries, account: Account) -> None:
        self._binaries = binaries
        self._account = account

    async def open(self, template: Path) -> Path:
        """Nothing to open: the writer serves its own log."""
        return template

    def writer_settings(self) -> Mapping[str, str]:
        """No commit waits for a reader."""
        return {}

    def reader_settings(self, reader: str, writer: EngineAddress | None) -> Mapping[str, str]:
        """Follow the writer over its Unix socket."""
        return {"primary_conninfo": f"{_conninfo(writer)} application_name={reader}" if writer else ""}

    async def seed(self, reader: EngineAddress, writer: EngineAddress | None) -> None:
        """Rewind what is there to the writer's history, else copy the writer's data directory."""
        if writer is None:
            raise EngineError(f"{reader.name} cannot be built: readers are copies of the writer, and there is none")
        if (reader.data_directory / "PG_VERSION").exists() and await self._rewind(reader, writer):
            return
        shutil.rmtree(reader.data_directory, ignore_errors=True)
        options = ["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--no-manifest"]
        backup = [self._binaries.program("pg_basebackup"), "-D", reader.data_directory, "-d", _conninfo(writer)]
        code, output = await self._run([*map(str, backup), *options])
        if code != 0:
            raise EngineError(programs.explain_copy(writer.name, reader.name, code, output))

    async def _rewind(self, reader: EngineAddress, writer: EngineAddress) -> bool:
        """Try pg_rewind.

        It compares control files, and the writer's shows its timeline only after a checkpoint: without one it
        finds nothing to do straight after a promotion.
        """
        session = Session(writer)
        try:
            await session.query("CHECKPOINT", timeout=60.0)
        finally:
            session.close()
        (reader.data_directory / "postmaster.pid").unlink(missing_ok=True)
        rewind = [self._binaries.program("pg_rewind"), "--target-pgdata", reader.data_directory]
        code, _ = await self._run(
            [*map(str, rewind), "--no-sync", f"--source-server={_conninfo(writer)} dbname=postgres"]
        )
        return code == 0

    async def _run(self, command: list[str]) -> tuple[int, str]:
        return await programs.finish(self._account.command(command), self._account.environment())

    def hold_back(self, reader: EngineAddress) -> None:
        """The log's end is the writer's, and may be gone with it."""

    def preconnect(self, candidate: EngineAddress) -> None:
        """Nothing to begin with."""

    async def attach(self, writer: EngineAddress) -> None:
        """Nothing to attach."""

    @property
    def attached(self) -> bool:
        """There is nothing that could be lost."""
        return True

    @property
    def disputed(self) -> bool:
        """There are no epochs."""
        return False

    async def check_quorum(self) -> None:
        """The log needs no quorum."""

    async def recover(self) -> RecoveryPoint | None:
        """Unknown: the log ends where the candidate's copy of it ends."""
        return None

    def durable_lsn(self) -> int | None:
        """What the writer has flushed."""
        return None

    async def look(self) -> None:
        """`status` is always fresh."""

    def status(self) -> dict[str, Any]:
        """Nothing but the kind."""
        return {"flavour": self.flavour}

    async def close(self) -> None:
        """Nothing to close."""


def _conninfo(writer: EngineAddress) -> str:
    return f"host={writer.socket_directory} port={writer.port} user={writer.superuser} gssencmode=disable"
