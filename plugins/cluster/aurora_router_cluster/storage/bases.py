"""Bases: data directories kept in the storage, from which instances are built and the log is replayed.

A base serves a branch of the log up to a position if the branch has the base's log, and the base is consistent there:
it was taken below the place where the branch parts from the one on which it was taken.

A large one is kept as a compressed archive: with two readers there are three copies of the data already, and a base is
read seldom. A small one is a plain directory, of which a copy is made in a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.lsn import parse_lsn, segment_start
from aurora_router_cluster.postgres import programs, template
from aurora_router_cluster.postgres.session import Session
from aurora_router_cluster.storage.core.gc import Base
from aurora_router_cluster.storage.core.history import History
from aurora_router_cluster.storage.disk.identity import set_system_identifier

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries
    from aurora_router_cluster.postgres.endpoints import EngineAddress
    from aurora_router_cluster.storage.inventory import Inventory

_START = re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) ", re.MULTILINE)
ARCHIVE = "base.tar.gz"
"""What pg_basebackup calls the archive of a data directory."""
_LABEL = "backup_label"


def read_redo(directory: Path) -> int:
    """Where the recovery of a base begins, as its backup label says, in bytes.

    Args:
        directory: what pg_basebackup made.

    Raises:
        EngineError: there is no label, or no position in it.
    """
    try:
        label = _label(directory)
    except (OSError, tarfile.TarError, KeyError) as error:
        raise EngineError(f"{directory} is no backup: {error}") from error
    found = _START.search(label)
    if found is None:
        raise EngineError(f"the backup label in {directory} does not say where its log begins: {label!r}")
    return parse_lsn(found[1])


def _label(directory: Path) -> str:
    archive = directory / ARCHIVE
    if not archive.exists():
        return (directory / _LABEL).read_text(encoding="utf-8")
    with tarfile.open(archive, "r|gz") as members:  # it is the first of them
        for member in members:
            if member.name.removeprefix("./") == _LABEL and (file := members.extractfile(member)) is not None:
                return file.read().decode()
    raise KeyError(_LABEL)


def copy_base(account: Account, base: Path, data: Path) -> None:
    """Replace the data directory `data` by a copy of `base`.

    Raises:
        EngineError: the copy failed.
    """
    shutil.rmtree(data, ignore_errors=True)
    command = programs.copying(base, data)
    if (base / ARCHIVE).exists():
        data.mkdir(mode=0o700)
        command = programs.unpacking(base / ARCHIVE, data)
    programs.run_copy(base, command, data)
    if data.stat().st_uid != account.uid:
        account.own(data)


@dataclass(frozen=True)
class TemplateLog:
    """Where the log of a template's copies begins.

    Attributes:
        start: position of its first segment, in bytes.
        segment_size: of a segment file, in bytes.
        timeline: of the template.
    """

    start: int
    segment_size: int
    timeline: int


def template_log(binaries: Binaries, account: Account, source: Path) -> TemplateLog:
    """Return where the log of the copies of the template `source` begins.

    Raises:
        EngineError: `source` is not understood.
    """
    control = template.control_data(binaries, account, source)
    segment_size = int(control["Bytes per WAL segment"])
    start = segment_start(parse_lsn(control["Latest checkpoint's REDO location"]), segment_size)
    return TemplateLog(start, segment_size, int(control["Latest checkpoint's TimeLineID"]))


def make_first_base(account: Account, source: Path, target: Path, identifier: int) -> None:
    """Make `target` a copy of the template `source` that has a system identifier of its own.

    Raises:
        EngineError: the copy failed, or `source` is not understood.
    """
    copy_base(account, source, target)
    set_system_identifier(target, identifier)


async def back_up(
    binaries: Binaries, account: Account, source: EngineAddress, target: Path, *, compressed: bool = False
) -> None:
    """Copy a running instance to the data directory `target`, which is replaced, or to an archive in it.

    Raises:
        EngineError: pg_basebackup failed.
    """
    await asyncio.to_thread(_make_room, target, account)
    host = source.host or source.socket_directory
    where = f"host={host} port={source.port} user={source.superuser} gssencmode=disable"
    password = {"PGPASSWORD": source.password} if source.password is not None else {}
    options = ["--wal-method=none", "--checkpoint=fast", "--no-sync", "--no-manifest"]
    options += ["--format=tar", "--gzip", "--compress=1"] if compressed else []
    command = [str(binaries.program("pg_basebackup")), "-D", str(target), "-d", where, *options]
    status, printed = await programs.finish(account.command(command), {**account.environment(), **password})
    if status != 0:
        raise EngineError(programs.explain_copy(source.name, "the storage", status, printed))


def _make_room(directory: Path, account: Account) -> None:
    """Make an empty directory of the account's."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    account.own(directory)


async def data_size(source: EngineAddress) -> int:
    """Bytes of all databases of a running instance.

    Raises:
        EngineError: it does not answer.
    """
    session = Session(source)
    try:
        return int((await session.query("SELECT sum(pg_database_size(oid)) FROM pg_database", timeout=30.0))[0][0] or 0)
    finally:
        session.close()


async def consistent_from(source: EngineAddress, segment_size: int) -> int:
    """Where a copy of `source` that is just complete is consistent at the latest, in bytes.

    The end of a backup of a writer switches to a new segment of the log: what is durable at that segment's start
    contains it.

    Args:
        source: what was copied.
        segment_size: bytes in a WAL segment file.

    Raises:
        EngineError: `source` does not answer.
    """
    session = Session(source)
    try:
        query = "SELECT CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0', r"
        position, recovering = (await session.query(f"{query} FROM (SELECT pg_is_in_recovery() AS r) AS x"))[0]
    finally:
        session.close()
    return int(position or 0) if recovering == "t" else segment_start(int(position or 0), segment_size)


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy of an instance that becomes a base once the log that it needs is durable.

    Attributes:
        directory: its files.
        goal: position that has to be durable, in bytes.
        history: the log's epochs when the copy was begun.
        data: bytes of the databases.
    """

    directory: Path
    goal: int
    history: History
    data: int

    def can_serve(self, history: History) -> bool:
        """Whether the log that it needs is, or may still come, on the branch of `history`."""
        parted = history.divergence(self.history)
        return parted is None or self.goal <= parted


def size_on_disk(directory: Path) -> int:
    """Bytes that the files below a directory take; files may vanish meanwhile."""
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(where) / name).lstat().st_blocks * 512
    return total


@dataclass(frozen=True, slots=True)
class StoredBase:
    """A base and its files.

    Attributes:
        base: where its recovery begins, where it is consistent, when it was taken.
        directory: its data directory.
        history: the log's epochs when it was taken.
        size: bytes that its files take; 0: a few.
        data: bytes of the databases in it; 0: a few.
    """

    base: Base
    directory: Path
    history: History
    size: int = 0
    data: int = 0

    def serves(self, history: History, lsn: int) -> bool:
        """Whether an instance built from it can replay the log of `history` and stop at `lsn` (bytes)."""
        parted = history.divergence(self.history)
        return self.base.end <= lsn and (parted is None or self.base.end <= parted)


class Bases:
    """The bases of one volume, in the order in which they were taken.

    Args:
        directory: of their directories; it exists.
        inventory: where they are written down, to be found again; None: nowhere.
    """

    def __init__(self, directory: Path, inventory: Inventory | None = None) -> None:
        self._directory = directory
        self._inventory = inventory
        self._stored: list[StoredBase] = []
        self._made = 0

    def __iter__(self) -> Iterator[StoredBase]:
        return iter(tuple(self._stored))

    def add(self, staged: Path, base: Base, history: History, *, size: int = 0, data: int = 0) -> StoredBase:
        """Take over the data directory `staged`, whose files are on the disk if it is written down."""
        self._made += 1
        directory = self._directory / f"base-{self._made}"
        staged.rename(directory)
        stored = StoredBase(base, directory, history, size, data)
        if self._inventory is not None:
            facts = {**asdict(base), "history": history.to_json(), "size": size, "data": data}
            self._inventory.write_base(self._made, facts)
        self._stored.append(stored)
        return stored

    def find_again(self, inventory: Inventory) -> None:
        """Take up the bases that were written down; those whose files are missing are left out."""
        for number, facts in inventory.bases().items():
            self._made = max(self._made, number)
            directory = self._directory / f"base-{number}"
            if directory.is_dir():
                base = Base(facts["redo"], facts["end"], facts["taken"])
                history = History.from_json(facts["history"])
                self._stored.append(StoredBase(base, directory, history, facts["size"], facts["data"]))

    def newest(self, history: History, lsn: int, taken: float | None = None) -> StoredBase | None:
        """The newest base that serves, taken at or before a time (seconds since 1970) if one is given."""
        serving = [
            stored
            for stored in self._stored
            if stored.serves(history, lsn) and (taken is None or stored.base.taken <= taken)
        ]
        return serving[-1] if serving else None

    def keep(self, wanted: Collection[StoredBase]) -> list[Path]:
        """Forget all others; returns their directories, for the caller to delete."""
        dropped = [stored for stored in self._stored if stored not in wanted]
        self._stored = [stored for stored in self._stored if stored in wanted]
        if self._inventory is not None:
            for stored in dropped:
                self._inventory.forget_base(int(stored.directory.name.partition("-")[2]))
        return [stored.directory for stored in dropped]


def delete(directories: list[Path]) -> None:
    """Delete the files of bases that were forgotten."""
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
