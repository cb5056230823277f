"""A disk whose machine can lose its power: a file system in a file, of which a copy is what a crash would leave.

What a program has written and not synced is in the page cache of the mounted file system, and not in the file below it.
So a copy of that file, mounted again, holds exactly what was on the disk at that moment: its journal is played, and
what was not synced is gone. Linux only, for root: it needs loop devices.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster.postgres import processes
from aurora_router_cluster.registry import state_directory, sweep

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from aurora_router_cluster import LocalCluster

SIZE = 2 << 30  # bytes, sparse


def possible() -> bool:
    """Whether this system lets us mount a file."""
    return sys.platform == "linux" and os.geteuid() == 0 and Path("/dev/loop-control").exists()


class PoweredDisk:
    """A mounted file system, until the end of the block.

    Attributes:
        path: where it is mounted; it stays the same over a loss of power.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="power-", dir="/var/tmp"))
        self._directory.chmod(0o711)
        self._image = self._directory / "disk.img"
        self.path = self._directory / "disk"

    def __enter__(self) -> Self:
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()
        self.path.chmod(0o711)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("umount", "--lazy", str(self.path))
        shutil.rmtree(self._directory, ignore_errors=True)

    def _mount(self) -> None:
        _run("mount", "-o", "loop,commit=600", str(self._image), str(self.path))

    def freeze(self) -> Path:
        """Copy what is on the disk at this moment."""
        crashed = self._image.with_name("crashed.img")
        _run("cp", "--sparse=always", str(self._image), str(crashed))
        return crashed

    def lose_power(self) -> None:
        """Lose what was not synced; every process that uses the disk has to have ended."""
        crashed = self.freeze()
        _run("umount", str(self.path))
        crashed.replace(self._image)
        self._mount()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def crash(cluster: LocalCluster) -> None:
    """End every process of a cluster at once, its supervisor too, and lose what a restart of the machine loses.

    The directories of the instances go, which are on tmpfs, and the cluster's entry among those that run.
    """
    status = cluster.status()
    pids = [one.pid for one in status.instances if one.pid is not None]
    os.kill(status.supervisor, signal.SIGSTOP)  # it starts nothing any more
    pids += processes.children(status.supervisor)
    for pid in [*pids, status.supervisor]:
        if processes.stat_fields(pid):
            processes.kill(pid)
    cluster.close()
    sweep(Path(status.directory))
    shutil.rmtree(state_directory() / status.key, ignore_errors=True)
