"""A bulk load and then a steady load, in a supervisor that may open few files.

``pgbench -i`` fills a cluster of one writer and two readers whose supervisor, with its six storage nodes, may have 256
files open; then ``pgbench`` updates at a rate for so many minutes. Watched: whether the readers' replay breaks, what
the supervisor has open and holds in memory, and the space that all files of the cluster take beside the data.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.postgres import binaries
from aurora_router_cluster.postgres.account import Account
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTES = 10.0
SCALE = int(os.environ.get("SOAK_SCALE", "150"))
RATE = 400  # transactions per second
CLIENTS = 8
FILES = 256  # that the supervisor may have open
GROWTH_MB = 32.0  # of the supervisor's memory that counts as none
GROWTH_FILES = 8
SPACE = 4.0  # times the data
EVERY = 1.0  # seconds between two samples
BROKEN = re.compile(r"incorrect resource manager data|invalid magic|contrecord|unexpected pageaddr")


@dataclass
class Watch:
    """Samples what the supervisor holds and what the cluster's directory takes, until it is stopped."""

    supervisor: int
    directory: Path
    files: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    space: list[int] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._ended.wait(EVERY):
            with contextlib.suppress(FileNotFoundError):
                self.files.append(sum(1 for _ in Path(f"/proc/{self.supervisor}/fd").iterdir()))
                self.memory.append(_resident_mb(self.supervisor))
                self.space.append(space(self.directory))

    def stop(self) -> None:
        """Sample no more."""
        self._ended.set()


def _resident_mb(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def space(directory: Path) -> int:
    """Bytes that all files below a directory take on the disk; files may vanish meanwhile."""
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(where, name).lstat().st_blocks * 512
    return total


def breaks(log: Path) -> int:
    """How often a reader's replay met log that it did not understand."""
    return sum(bool(BROKEN.search(line)) for line in log.read_text(errors="replace").splitlines())


@contextlib.contextmanager
def few_files(limit: int) -> Iterator[None]:
    """Let what is started in the block have at most so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _pgbench(program: str, cluster: LocalCluster, *arguments: str) -> str:
    where = cluster.plain_conninfo()
    command = [program, *arguments, where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pgbench failed: {done.stderr[-2000:]}")
    return done.stdout + done.stderr


def measure(minutes: float) -> Iterator[Figure]:
    """The figures."""
    program = str(binaries.find(Account.default(), None).program("pgbench"))
    directory = Path(tempfile.mkdtemp(prefix="aurora-soak-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        with few_files(FILES), LocalCluster.start(readers=2, directory=str(directory)) as cluster:
            yield from _played(program, cluster, directory, minutes)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _played(program: str, cluster: LocalCluster, directory: Path, minutes: float) -> Iterator[Figure]:
    watch = Watch(cluster.status().supervisor, directory)
    watching = threading.Thread(target=watch.run)
    watching.start()
    try:
        began = time.monotonic()
        _pgbench(program, cluster, "-i", "-q", "-s", str(SCALE))
        loaded = time.monotonic() - began
        rest = len(watch.files)
        _pgbench(
            program, cluster, "-n", "-c", str(CLIENTS), "-j", "2", "-R", str(RATE), "-T", f"{max(1, minutes * 60):.0f}"
        )
    finally:
        watch.stop()
        watching.join()
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        data = _number(connection, "SELECT pg_database_size(current_database())")
        done = _number(connection, "SELECT count(*) FROM pgbench_history")
    yield Figure.unbounded("data", data / 1e9, "GB", f"pgbench -i -s {SCALE} took {loaded:.0f} s")
    yield Figure.at_least("transactions", done, "", 0.9 * RATE * 60 * minutes)
    broken = {name: breaks(Path(cluster.instance(name).socket_directory) / "log") for name in cluster.readers}
    yield Figure.at_most("breaks of a reader's replay", sum(broken.values()), "", 0, str(broken))
    yield Figure.at_most("files open in the supervisor", max(watch.files), "", FILES - 1)
    first, last = _ends(watch.files[rest:])
    note = f"{first:.0f} -> {last:.0f} under the steady load"
    yield Figure.at_most("growth of open files", last - first, "", GROWTH_FILES, note)
    first, last = _ends(watch.memory[rest:])
    yield Figure.at_most("growth of memory", last - first, "MB", GROWTH_MB, f"{first:.0f} -> {last:.0f}")
    yield Figure.at_most("space, most of the time", statistics.median(watch.space[rest:]) / data, "x", SPACE)
    highest = max(watch.space) / data
    yield Figure.unbounded("space, at its highest", highest, "x", f"{max(watch.space) / 1e9:.2f} GB in all")
    for what, size in sorted(shares(directory).items()):
        yield Figure.unbounded(f"space of {what} at the end", size / data, "x")


def _ends(samples: list[int] | list[float]) -> tuple[float, float]:
    """The medians of the first and of the last tenth."""
    tenth = max(1, len(samples) // 10)
    return statistics.median(samples[:tenth]), statistics.median(samples[-tenth:])


def _number(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def shares(directory: Path) -> dict[str, int]:
    """Bytes by what they are for: the storage nodes, the bases, the instances' data and their own log."""
    found = dict.fromkeys(("nodes", "bases", "data of the instances", "pg_wal of the instances"), 0)
    for where, _, names in os.walk(directory):
        parts = Path(where).relative_to(directory).parts
        for name in names:
            with contextlib.suppress(OSError):
                size = Path(where, name).lstat().st_blocks * 512
                found[_purpose(parts)] += size
    return found


def _purpose(parts: tuple[str, ...]) -> str:
    if any(part.startswith("node-") for part in parts):
        return "nodes"
    if any(part.startswith("base") for part in parts if part != "base") or "volume" in parts:
        return "bases"
    return "pg_wal of the instances" if "pg_wal" in parts else "data of the instances"
