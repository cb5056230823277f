"""Disks of the storage nodes fail, one and all, under a ledger of acknowledged commits.

Each node gets a small disk of its own (a tmpfs, where this process may mount one), which is filled and emptied again;
and a preloaded library lets writes and syncs fail with EIO or EROFS, where a C compiler is found. What cannot be tried
here is said loudly. The rounds: one node, one node and a failover meanwhile, all nodes.

Watched: that no acknowledged commit is lost or there twice; that ``status`` never counts a failed node, shows it with
its reason, and calls the quorum what it is; that commits go on with one failed node and wait without a write quorum;
and that all is well again by itself once the disks take something.

Where all disks fail some nodes may have taken the last extent before, and are given no other while that waits for its
quorum: those have not failed, and are not said to. What counts as acknowledged without a disk was begun after the nodes
were shown as failed; what counts as well again is each node that has taken log since its disk was repaired, so that no
error of before is still on its way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.lsn import parse_lsn
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINUTES = 6.0
CLIENTS = 4
DISK = "96m"
FULL, READ_ONLY, IO_ERROR = "full", "read-only", "EIO"
ERRORS = {READ_ONLY: errno.EROFS, IO_ERROR: errno.EIO}
WORDS = {FULL: "No space left on device", READ_ONLY: "Read-only file system", IO_ERROR: "Input/output error"}
HOLD = 1.5  # seconds for which what has failed is watched
NOTICED = 20.0  # seconds until status shows it
BACK = 20.0  # seconds until all is well again
FILLER = "filler"


@dataclass
class Ledger:
    """Clients that insert numbers one by one, and remember which ones were acknowledged."""

    cluster: LocalCluster
    acknowledged: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _made: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> list[threading.Thread]:
        """Let the clients work until `stop`."""
        with psycopg.connect(self.cluster.plain_conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE ledger (n bigint, filler text)")
        threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads

    def stop(self) -> None:
        """End with the statements under way."""
        self._ended.set()

    @property
    def made(self) -> int:
        """The last number that any client has begun to insert."""
        with self._lock:
            return self._made

    def begun_after(self, made: int) -> int:
        """How many of the numbers that were begun after `made` are acknowledged."""
        return sum(number > made for number in list(self.acknowledged))

    def _next(self) -> int:
        with self._lock:
            self._made += 1
            return self._made

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with psycopg.connect(self.cluster.plain_conninfo(connect_timeout=5), autocommit=True) as connection:
                    while not self._ended.is_set():
                        number = self._next()
                        connection.execute("INSERT INTO ledger VALUES (%s, repeat('x', 300))", (number,))
                        self.acknowledged.append(number)
                        time.sleep(0.005)
            except (psycopg.Error, OSError) as error:
                self.errors[type(error).__name__] += 1
                time.sleep(0.1)

    def settle(self) -> tuple[int, int]:
        """How many acknowledged numbers are lost, and how many are there twice."""
        with psycopg.connect(self.cluster.plain_conninfo(), autocommit=True) as connection:
            found = Counter(row[0] for row in connection.execute("SELECT n FROM ledger"))
        return len(set(self.acknowledged) - set(found)), sum(count > 1 for count in found.values())


@dataclass
class Disks:
    """The nodes' directories, and how each of them is made to fail.

    Attributes:
        nodes: number -> directory.
        kinds: what can be tried here.
    """

    nodes: dict[int, Path]
    kinds: list[str]

    def fail(self, kind: str, node: int) -> None:
        """Let a disk take nothing more."""
        if kind == FULL:
            with contextlib.suppress(OSError), (self.nodes[node] / FILLER).open("ab", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
        else:
            self._switch(node).symlink_to(str(ERRORS[kind]))

    def repair(self, kind: str, node: int) -> None:
        """Let it take something again."""
        (self.nodes[node] / FILLER if kind == FULL else self._switch(node)).unlink()

    def _switch(self, node: int) -> Path:
        return self.nodes[node].with_name(f"{self.nodes[node].name}.errno")


@dataclass
class Found:
    """What came of the rounds."""

    rounds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    looks: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    errors: Counter[str] = field(default_factory=Counter)


def measure(minutes: float) -> Iterator[Figure]:
    """The figures."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="aurora-soak-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        library = _library(directory)
        for isolated in (False, True):
            _with_cluster(directory, library, found, isolated=isolated, seconds=minutes * 30)
    yield Figure.at_least(
        "kinds of failure that could be tried here", len({k.split(",")[0] for k in found.rounds}), "", 1
    )
    for kind, count in sorted(found.rounds.items()):
        yield Figure.unbounded(f"rounds: {kind}", count, "")
    yield Figure.at_least("acknowledged commits", found.acknowledged, "", 1)
    yield Figure.at_most("acknowledged commits lost", found.lost, "", 0)
    yield Figure.at_most("commits there twice", found.doubled, "", 0)
    note = "; ".join(found.wrong[:3])
    yield Figure.at_most("moments at which status was wrong", len(found.wrong), "", 0, f"of {found.looks} {note}")
    note = "; ".join(found.stuck[:3])
    yield Figure.at_most("rounds that did not end well by themselves", len(found.stuck), "", 0, note)
    yield Figure.at_most("until all is well again, at most", max(found.back, default=0.0), "s", BACK)
    yield Figure.unbounded("errors that clients had", found.errors.total(), "", str(dict(found.errors)))


def _library(directory: Path) -> Path | None:
    """The library that lets writes fail; None where it cannot be made."""
    made, source = directory / "failing_disk.so", Path(__file__).with_name("failing_disk.c")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        print("!!! EIO and read-only disks are NOT TRIED: no C compiler, or not Linux !!!", file=sys.stderr)
        return None
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    made.chmod(0o755)
    return made


def _with_cluster(directory: Path, library: Path | None, found: Found, *, isolated: bool, seconds: float) -> None:
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        with _preloaded(library):
            options = {"base_bytes": 12 << 20, "retention": 0, "directory": str(directory), "isolated": isolated}
            cluster = stack.enter_context(LocalCluster.start(readers=2, **options))
        disks = _disks(cluster, stack, library)
        if not disks.kinds:
            return
        ledger = Ledger(cluster)
        clients = ledger.start()
        rng = random.Random(time.time_ns())
        try:
            plan = [(kind, scope) for kind in disks.kinds for scope in ("one", "one, failover", "all")]
            number = 0
            while time.monotonic() < until or number < len(plan):
                kind, scope = plan[number % len(plan)]
                number += 1
                _round(cluster, ledger, disks, found, kind, scope, rng)
        finally:
            ledger.stop()
            for client in clients:
                client.join(60)
        lost, doubled = ledger.settle()
        found.acknowledged += len(ledger.acknowledged)
        found.lost, found.doubled = found.lost + lost, found.doubled + doubled
        found.errors += ledger.errors


@contextlib.contextmanager
def _preloaded(library: Path | None) -> Iterator[None]:
    before = os.environ.get("LD_PRELOAD")
    if library is not None:
        os.environ["LD_PRELOAD"] = str(library)
    try:
        yield
    finally:
        os.environ.pop("LD_PRELOAD", None)
        if before is not None:
            os.environ["LD_PRELOAD"] = before


def _disks(cluster: LocalCluster, stack: contextlib.ExitStack, library: Path | None) -> Disks:
    """Give each node a disk of its own: its files are moved there while it is down."""
    storage = Path(cluster.instances[0].socket_directory).parent / "storage"
    nodes = {each["node"]: storage / f"node-{each['node']}" for each in cluster.nodes}
    kinds = [READ_ONLY, IO_ERROR] if library is not None else []
    try:
        for number, directory in nodes.items():
            _mount(cluster, number, directory)
            stack.callback(subprocess.run, ["umount", "-l", str(directory)], check=False)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"!!! full disks are NOT TRIED: a tmpfs cannot be mounted here: {error} !!!", file=sys.stderr)
    else:
        kinds.insert(0, FULL)
    return Disks(nodes, kinds)


def _mount(cluster: LocalCluster, number: int, directory: Path) -> None:
    if os.geteuid() != 0 or sys.platform != "linux":
        raise PermissionError("mounting needs root on Linux")
    cluster.nodes.down(number)
    aside = directory.with_name(f"{directory.name}.aside")
    shutil.copytree(directory, aside)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(directory)], check=True)
        shutil.copytree(aside, directory, dirs_exist_ok=True)
    finally:
        shutil.rmtree(aside)
        cluster.nodes.up(number)


def _round(
    cluster: LocalCluster, ledger: Ledger, disks: Disks, found: Found, kind: str, scope: str, rng: random.Random
) -> None:
    failing = sorted(disks.nodes) if scope == "all" else [rng.choice(sorted(disks.nodes))]
    title = f"{kind}, {scope}"
    found.rounds[title] += 1
    for node in failing:
        disks.fail(kind, node)
    try:
        least = min(3, len(failing))
        if not _eventually(lambda: len(_failed(cluster, found)) >= least, NOTICED):
            shown = _failed(cluster, found)
            found.wrong.append(f"{title}: nodes {failing} have no disk, status says {shown} have none")
        if scope == "one, failover":
            cluster.failover()
        made, before, until = ledger.made, len(ledger.acknowledged), time.monotonic() + HOLD
        while time.monotonic() < until:
            _check(cluster, found, title, failing, kind)
            time.sleep(0.05)
        if scope == "all" and (baseless := ledger.begun_after(made)):
            found.wrong.append(f"{title}: {baseless} commits were acknowledged without a disk")
        if scope != "all" and not _eventually(lambda: len(ledger.acknowledged) > before, BACK):
            found.stuck.append(f"{title}: commits do not go on")
    finally:
        began = time.monotonic()
        for node in failing:
            disks.repair(kind, node)
    made, durable = ledger.made, parse_lsn(_volume(cluster, found)["vdl"])
    if _eventually(lambda: _is_well(cluster, found, durable) and ledger.begun_after(made) > 0, BACK):
        found.back.append(time.monotonic() - began)
    else:
        found.stuck.append(f"{title}: not well {BACK:g} s after the disks were: {_states(cluster, found)}")


def _eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _volume(cluster: LocalCluster, found: Found) -> dict[str, Any]:
    """What status shows of the storage, checked for contradictions."""
    volume = cluster.status().volume
    found.looks += 1
    there = sum(node["state"] in {"complete", "behind"} for node in volume["nodes"])
    expected = "write" if there >= 4 else "read" if there == 3 else "lost"
    if volume["quorum"] != expected:
        found.wrong.append(f"{there} copies are there and status says {volume['quorum']}")
    return volume


def _states(cluster: LocalCluster, found: Found) -> dict[int, str]:
    return {node["node"]: node["state"] for node in _volume(cluster, found)["nodes"]}


def _failed(cluster: LocalCluster, found: Found) -> set[int]:
    return {node for node, state in _states(cluster, found).items() if state == "failed"}


def _is_well(cluster: LocalCluster, found: Found, durable: int) -> bool:
    """Whether all nodes are there, and have taken log beyond what was durable when their disks were repaired."""
    nodes = _volume(cluster, found)["nodes"]
    return all(node["state"] in {"complete", "behind"} and parse_lsn(node["scl"]) > durable for node in nodes)


def _check(cluster: LocalCluster, found: Found, title: str, failing: list[int], kind: str) -> None:
    """Look at the status while disks fail."""
    for node in _volume(cluster, found)["nodes"]:
        number, state = node["node"], node["state"]
        if state == "failed" and WORDS[kind] not in node["failure"]:
            found.wrong.append(f"{title}: node {number} is said to fail since {node['failure']}")
        elif (state == "failed") != (number in failing) and (state == "failed" or len(failing) == 1):
            found.wrong.append(f"{title}: node {number} is shown as {state}")
