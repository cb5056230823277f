"""A data directory as one archive, on its way to an instance's host."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from pathlib import Path

from aurora_router_cluster.errors import EngineError, explain_os_error


class Packer:
    """Packs directories, and keeps the last archive: several instances begin with the same copy.

    A directory that was packed may be replaced by another one, but must not change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: object = None
        self._archive = b""

    def pack(self, directory: Path) -> bytes:
        """See `pack`; several threads may call it."""
        with self._lock:
            facts = directory.stat()
            key = facts.st_dev, facts.st_ino, facts.st_ctime_ns
            if key != self._key:
                self._archive, self._key = pack(directory), key
            return self._archive


def pack(directory: Path) -> bytes:
    """The directories and files below `directory` as a compressed archive.

    Raises:
        EngineError: a file cannot be read.
    """
    target = io.BytesIO()
    try:
        with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
            archive.add(directory, arcname=".")
    except OSError as error:
        raise EngineError(f"packing {directory} failed: {explain_os_error(error)}") from error
    return target.getvalue()


def unpack(data: bytes, directory: Path) -> None:
    """Make `directory` hold exactly what an archive of `pack` does; what was there is deleted.

    Raises:
        EngineError: it cannot be written, or the archive holds something else than directories and files in it.
    """
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(mode=0o700)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                _extract(archive, member, directory)
    except (OSError, tarfile.TarError) as error:
        raise EngineError(f"unpacking to {directory} failed: {error}") from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    parts = Path(member.name).parts
    if Path(member.name).is_absolute() or ".." in parts:
        raise EngineError(f"the archive leads out of its directory: {member.name!r}")
    target = directory.joinpath(*parts)
    if member.isdir():
        target.mkdir(mode=0o700, exist_ok=True)
    elif member.isfile() and (source := archive.extractfile(member)) is not None:
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
        target.chmod(0o600)
    else:
        raise EngineError(f"the archive holds {member.name!r}, which is neither a directory nor a file")
