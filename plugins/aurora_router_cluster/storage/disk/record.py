"""A small durable record, such as what a node has promised: replaced whole, never lost, never silently stale.

Two copies are kept in two files, written and synced one after the other. So at every moment one of them is whole: a
power loss leaves the old or the new value. And a value that was acknowledged is in both, so that bytes that rot in one
of them cannot bring back the one before.

::

    magic 8 | generation 8 | length 4 | CRC 4 | payload
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.storage.disk.errors import DamagedError, LogFailedError

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC: Final = b"AURECORD"
_HEAD: Final = struct.Struct("<8sQI")
_CRC: Final = struct.Struct("<I")


class DurableRecord:
    """One record in the files ``<path>.a`` and ``<path>.b``.

    Args:
        path: without the suffix; its directory exists.
        sync: False leaves out the syncs.

    Raises:
        DamagedError: both copies are damaged.
        LogFailedError: they cannot be read.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._paths = (path.with_name(f"{path.name}.a"), path.with_name(f"{path.name}.b"))
        self._sync = sync
        self._generation = 0
        self._value: bytes | None = None
        self._failed: LogFailedError | None = None
        self._load()

    @property
    def value(self) -> bytes | None:
        """The record; None until something was stored."""
        return self._value

    def store(self, value: bytes) -> None:
        """Replace the record; durable when it returns.

        Raises:
            LogFailedError: the disk refused. Which value a later start finds is then open, and this object takes none.
        """
        if self._failed is not None:
            raise self._failed
        head = _HEAD.pack(_MAGIC, self._generation + 1, len(value))
        data = head + _CRC.pack(zlib.crc32(value, zlib.crc32(head))) + value
        try:
            for path in self._paths:
                self._write(path, data)
        except OSError as error:
            self._failed = LogFailedError(f"writing the record {self._paths[0]} failed: {error}; the node must stop")
            raise self._failed from error
        self._generation, self._value = self._generation + 1, value

    def _load(self) -> None:
        found = [self._read(path) for path in self._paths]
        good = [copy for copy in found if copy is not None]
        if not good and any(path.exists() and path.stat().st_size for path in self._paths):
            raise DamagedError(
                f"both copies of the record {self._paths[0]} are damaged; rebuild this node from its peers"
            )
        if good:
            self._generation, self._value = max(good)

    @staticmethod
    def _read(path: Path) -> tuple[int, bytes] | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogFailedError(f"the record {path} cannot be read: {error}") from error
        start = _HEAD.size + _CRC.size
        if len(data) < start:
            return None
        magic, generation, length = _HEAD.unpack_from(data)
        value = data[start : start + length]
        crc = zlib.crc32(value, zlib.crc32(data[: _HEAD.size]))
        intact = magic == _MAGIC and len(value) == length and crc == _CRC.unpack_from(data, _HEAD.size)[0]
        return (generation, value) if intact else None

    def _write(self, path: Path, data: bytes) -> None:
        is_new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], done)
            if self._sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new and self._sync:
            self._sync_directory(path.parent)

    @staticmethod
    def _sync_directory(directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
