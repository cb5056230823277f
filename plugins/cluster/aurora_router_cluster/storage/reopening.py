"""A node whose disk failed comes back: once the disk takes what is written, it is opened again over its files.

After a failed write or sync the journal takes nothing more, and the node is absent. What it had acknowledged is in its
files; what it had not is cut off, or synced, when they are opened (`disk.logfile`), so that the node then is one that
was away for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from aurora_router_cluster.storage.core.errors import CorruptLog
from aurora_router_cluster.storage.disk.errors import LogFailedError
from aurora_router_cluster.storage.journal import DiskJournal
from aurora_router_cluster.storage.node import StorageNode

if TYPE_CHECKING:
    from pathlib import Path

ROOM = 1 << 20
"""Bytes that a disk has to take, and sync, before a journal is opened on it again."""
TRIAL = "trial"


async def open_node(number: int, directory: Path, *, sync: bool) -> StorageNode:
    """A node over the files of a directory.

    Raises:
        LogFailedError: its journal cannot be opened.
        CorruptLog: its journal does not say what it has promised.
    """
    journal = DiskJournal(directory, sync=sync)
    try:
        return StorageNode(number, journal)
    except BaseException:
        await journal.close()
        raise


async def reopen(node: StorageNode, directory: Path, *, sync: bool) -> StorageNode | None:
    """Open a failed node again; None: its disk does not take anything yet, for a reason that the node reports now.

    `node` must not be used afterwards if another one is returned.
    """
    refused = await asyncio.to_thread(refusal, directory)
    if refused is not None:
        node.fail(refused)
        return None
    await node.close()
    try:
        return await open_node(node.node, directory, sync=sync)
    except (LogFailedError, CorruptLog) as error:
        node.fail(str(error))
        return None


def refusal(directory: Path) -> str | None:
    """Why a disk does not take a file of `ROOM` bytes; None: it does."""
    path = directory / TRIAL
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            left = memoryview(bytes(ROOM))
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return str(error)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    return None
