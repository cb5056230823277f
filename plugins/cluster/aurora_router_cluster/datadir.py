"""The directory of a cluster that is kept (``--data DIR``): what outlives the cluster, and which supervisor may use it.

::

    DIR/
        lock            held (flock) by the supervisor that uses DIR; it says which one that is
        cluster.json    format, versions, options, instances
        ca.pem, ca.key  the cluster's certificate authority (with TLS)
        aws_credentials the keys that sign IAM tokens (with IAM)
        storage/        the storage nodes' journals, the bases, and what the volume needs to be opened again

Instances have nothing in it: their files are built again from a base and the log, because they are not synced.

Until the volume has its first base and its nodes are formatted, on the disk, ``cluster.json`` says ``creating``.
Nothing can have been acknowledged before that, since the writer is attached afterwards: what an interrupted creation
left is deleted, and begun again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pwd
import shutil
import stat
from typing import TYPE_CHECKING, Any, Final

from aurora_router_cluster.errors import DirectoryError, explain_os_error
from aurora_router_cluster.options import FIXED, REMEMBERED
from aurora_router_cluster.postgres import files, processes
from aurora_router_cluster.registry import DEFAULT_LABEL, NODE_COMMAND, OTHERS_WRITE, check_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.options import ClusterOptions
    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries

FORMAT: Final = 1
RECORD, LOCK, STORAGE = "cluster.json", "lock", "storage"
CERTIFICATE, KEY, AWS_KEYS = "ca.pem", "ca.key", "aws_credentials"
OPTION = "--data"
CREATING, COMPLETE = "creating", "complete"


def choose(directory: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a cluster in `directory`: those remembered there, and on top of them those that are given.

    Args:
        directory: may not exist yet.
        given: by the names of `options.ClusterOptions`.

    Raises:
        DirectoryError: the directory cannot be used, or its cluster is another than what is asked for.
    """
    record = _record(directory)
    if record is None or record["state"] != COMPLETE:
        return dict(given)
    remembered: dict[str, Any] = record["options"]
    for name in FIXED:
        if name in given and given[name] is not None and given[name] != remembered.get(name):
            raise DirectoryError(
                f"{directory} ({OPTION}) holds a cluster with {name}={remembered.get(name)!r}, and "
                f"{name}={given[name]!r} is asked for: leave that out, or name another directory"
            )
    if given.get("source") is not None:
        raise DirectoryError(f"{directory} ({OPTION}) holds a cluster already; name an empty directory for a new one")
    known = {name: remembered[name] for name in REMEMBERED if name in remembered}
    return {**known, "readers": len(record["roster"]["instances"]) - 1, **given}


def name_of(directory: Path) -> str | None:
    """The name that was given to the cluster in `directory`; None: there is none, or it was not given a name.

    Raises:
        DirectoryError: the directory cannot be used.
    """
    record = _record(directory)
    name: str | None = None if record is None else record["options"].get("name")
    return None if name == DEFAULT_LABEL else name


def holds_cluster(directory: Path) -> bool:
    """Whether there is a cluster's directory at that path, now."""
    return (directory / RECORD).exists()


def _record(directory: Path) -> dict[str, Any] | None:
    """What ``cluster.json`` says; None: there is no cluster yet.

    Raises:
        DirectoryError: it is of another owner or format, or the directory holds something else.
    """
    what = f"{directory} ({OPTION})"
    try:
        found = directory.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise DirectoryError(f"{what} is not a directory; name one, or one that does not exist yet")
        if found.st_uid != os.geteuid():
            raise DirectoryError(
                f"{what} belongs to the user {_user(found.st_uid)}, and you are {_user(os.geteuid())}: run this as "
                "that user, or name a directory of your own"
            )
        names = {path.name for path in directory.iterdir()} - {LOCK, "lost+found"}
        if RECORD not in names:
            _check_empty(what, names)
            return None
        record = _parse_record((directory / RECORD).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise DirectoryError(
                f"{what} has format {record['format']}, and this version of aurora-router reads format {FORMAT}: use "
                f"the version that made it ({record.get('made_by', 'unknown')}), or move the data with pg_dump"
            )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DirectoryError(f"{what} cannot be read: {explain_os_error(error)}") from None
    except ValueError as error:
        raise DirectoryError(
            f"{directory / RECORD} is damaged ({error}); put a good copy of it back, or name another directory"
        ) from None
    return record


def _parse_record(text: str) -> dict[str, Any]:
    """A record.

    Raises:
        ValueError: it is none, or not whole.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or "format" not in record:
        raise ValueError("it has no format")
    if record["format"] == FORMAT and not {"state", "options", "major", "version", "roster"} <= record.keys():
        raise ValueError("it is cut short")
    return record


def _check_empty(what: str, names: set[str]) -> None:
    """Make sure that a directory without a cluster is empty."""
    if "PG_VERSION" in names:
        raise DirectoryError(
            f"{what} is the data directory of a PostgreSQL server, which a cluster cannot begin with; name an empty "
            "directory, and move the data with pg_dump"
        )
    if names:
        raise DirectoryError(
            f"{what} is incomplete, or not a cluster's: {RECORD} is missing, and there is {min(names)!r}; put it back, "
            "or name an empty directory"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class DataDirectory:
    """A directory that is claimed by this process, until `close`.

    Args:
        path: of it.
        lock: descriptor of its lock, which is held.
        record: see `_record`.
        made: whether it did not exist before.

    Attributes:
        path: of it.
    """

    def __init__(self, path: Path, lock: int, record: dict[str, Any] | None, *, made: bool) -> None:
        self.path = path
        self._lock = lock
        self._made = made
        self._record = record if record is not None and record["state"] == COMPLETE else None
        self._written: str | None = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def claim(cls, path: Path, key: str, account: Account) -> DataDirectory:
        """Take a directory for the cluster `key`, and make it if need be.

        Raises:
            DirectoryError: it is in use, or cannot be used.
        """
        record = _record(path)
        made = not path.exists()
        mode = 0o711 if account.switch else 0o700
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
            if made:
                path.chmod(mode)
        except OSError as error:
            raise DirectoryError(f"{path} ({OPTION}) cannot be made: {explain_os_error(error)}") from None
        try:
            check_directory(path, account, OPTION)
        except DirectoryError:
            if made:
                path.rmdir()
            raise
        found = path.stat()
        if found.st_mode & OTHERS_WRITE:
            raise DirectoryError(
                f"others may write to {path} ({OPTION}, mode {stat.S_IMODE(found.st_mode):04o}), and so change what "
                f"the cluster finds there: close it (chmod go-w {path}), or name another directory"
            )
        lock = _lock_directory(path, key)
        directory = cls(path, lock, record, made=made)
        processes.sweep(directory.storage, NODE_COMMAND)  # of a killed supervisor: they have the journals open
        directory._sweep()  # now: what is made from here on, such as keys, is this cluster's
        return directory

    @property
    def exists(self) -> bool:
        """Whether a cluster is in it, and not only a creation that was interrupted."""
        return self._record is not None

    @property
    def storage(self) -> Path:
        """Directory of the storage nodes and the bases."""
        return self.path / STORAGE

    @property
    def certificate(self) -> Path:
        """Where the certificate of the cluster's authority is, for clients' ``sslrootcert``."""
        return self.path / CERTIFICATE

    @property
    def key(self) -> Path:
        """Where the key of the cluster's authority is."""
        return self.path / KEY

    @property
    def aws_keys(self) -> Path:
        """Where the keys are that sign IAM tokens."""
        return self.path / AWS_KEYS

    @property
    def cluster_state(self) -> dict[str, Any]:
        """The instances, as they were written down last."""
        assert self._record is not None
        found: dict[str, Any] = self._record["roster"]
        return found

    def check_version(self, binaries: Binaries) -> None:
        """Make sure that these programs can read it.

        Raises:
            DirectoryError: they are of another major version, or cannot read the log's compression.
        """
        if self._record is None:
            return
        if self._record["major"] != binaries.major:
            major, version = self._record["major"], self._record["version"]
            raise DirectoryError(
                f"{self.path} ({OPTION}) was made by PostgreSQL {version}, and {binaries.directory} has "
                f"{binaries.version}: name PostgreSQL {major}'s programs (--postgres), or move the data with pg_dump"
            )
        if self._record.get("lz4", False) and binaries.wal_compression() != "lz4":
            raise DirectoryError(
                f"the log in {self.path} ({OPTION}) is compressed with lz4, and PostgreSQL in {binaries.directory} was "
                "built without it: name the programs that the cluster ran with before (--postgres)"
            )

    def begin(self, options: ClusterOptions, binaries: Binaries, account: Account, version: str) -> None:
        """Write down what the cluster is started with, before anything of the volume is made."""
        remembered = {name: getattr(options, name) for name in REMEMBERED}
        before = self._record or {"format": FORMAT, "state": CREATING, "roster": {}}
        self._record = {
            **before,
            "made_by": before.get("made_by", version),
            "major": binaries.major,
            "version": binaries.version,
            "lz4": before.get("lz4", False) or binaries.wal_compression() == "lz4",
            "options": remembered,
        }
        self._write(self._record)
        self.storage.mkdir(mode=0o711 if account.switch else 0o700, exist_ok=True)
        for directory in (self.path, self.path.parent):
            files.sync(directory)

    def _sweep(self) -> None:
        """Delete what a creation that was interrupted has left."""
        if self._record is None:
            shutil.rmtree(self.storage, ignore_errors=True)
            if self.storage.exists():
                return  # the record stays: by it the next start sees what this is, and tries again
            for name in (RECORD, CERTIFICATE, KEY, AWS_KEYS):
                (self.path / name).unlink(missing_ok=True)

    async def keep(self, state: dict[str, Any]) -> None:
        """Write down the instances, if they have changed; on the disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        assert self._record is not None
        async with self._writing:
            record = {**self._record, "state": COMPLETE, "roster": state}
            if json.dumps(record) != self._written:
                await asyncio.to_thread(self._write, record)
                self._record = record

    def keep_soon(self, state: dict[str, Any]) -> None:
        """Write down the instances, in the background."""
        task = asyncio.get_running_loop().create_task(self.keep(state))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write(self, record: dict[str, Any]) -> None:
        files.write_durably(self.path / RECORD, json.dumps(record, indent=1))
        self._written = json.dumps(record)

    async def settle(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Let others use it; what a creation that failed has left is deleted."""
        if self._record is None or self._record["state"] == CREATING:
            self._record = None
            self._sweep()
            (self.path / LOCK).unlink(missing_ok=True)
            if self._made:
                with contextlib.suppress(OSError):  # something else is in it by now
                    self.path.rmdir()
        os.close(self._lock)


def _lock_directory(path: Path, key: str) -> int:
    """Lock the directory; returns the descriptor that holds the lock.

    Raises:
        DirectoryError: another process holds it, or it cannot be locked.
    """
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DirectoryError(f"{path} ({OPTION}) cannot be used: {explain_os_error(error)}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 4096).decode(errors="replace").strip()
        os.close(lock)
        user = f"the cluster {holder!r}" if holder else "another cluster"
        raise DirectoryError(
            f"{path} ({OPTION}) is in use by {user}, which is running: use that one (cluster status --name {holder}), "
            f"end it first (cluster down --name {holder}), or name another directory"
        ) from None
    except OSError as error:
        os.close(lock)
        raise DirectoryError(
            f"{path} ({OPTION}) cannot be locked: {explain_os_error(error)}; name a directory on a local file system"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, key.encode(), 0)
    return lock
