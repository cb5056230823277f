"""Where running clusters are found: one directory per cluster, and the lock that shows whether it lives.

::

    <state>/<key>/            mode 0700, ours
        lock                  held (flock) by the supervisor as long as it lives; the kernel frees it
        control.sock          its Unix socket
        cluster.json          {"run": directory with the instances' homes, "storage": that of nodes that are kept,
                               "left": run directories of former starts that could not be deleted,
                               "wants_api": whether the RDS API has to go on for it}
        supervisor.log        what it printed
    <state>/.api/             the RDS API's, see `client.api`
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import ClusterRunningError, DirectoryError, SupervisorError, explain_os_error
from aurora_router_cluster.postgres import processes, sysv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aurora_router_cluster.postgres.account import Account

log = logging.getLogger(__name__)

VARIABLE = "AURORA_ROUTER_STATE"
NAME_VARIABLE = "AURORA_ROUTER_CLUSTER"
FOLDER = "aurora-router"
DEFAULT_LABEL = "demo"
RUN_PREFIX = "aurora-"
LONGEST_SOCKET = 107 if sys.platform == "linux" else 103  # bytes of a Unix socket's path
NODE_COMMAND = "aurora_router_cluster.storage.nodeserver"  # distinguishes the process of a storage node from a shell
DELETE_SECONDS = 10.0  # for which a directory is deleted again and again while files appear in it
DELETE_PAUSE = 0.05
UNCHANGED = 3  # tries in a row that changed nothing, after which a directory is left
LOOK_SECONDS = 0.1  # another process's look at a lock, to see whether it is held, takes less
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
ROOM_PER_INSTANCE = 96 << 20  # bytes of tmpfs that an instance may come to need in a short life


def state_directory() -> Path:
    """The directory of all clusters of this user; it may not exist yet (`make_state_directory`).

    ``AURORA_ROUTER_STATE``, else ``$XDG_RUNTIME_DIR/aurora-router``, else ``/tmp/aurora-router-<uid>``.

    A runtime directory of another user is not used: after ``su`` or ``sudo`` the variable still names it. A relative
    path is refused: it would lead each process, such as a supervisor, elsewhere.

    Raises:
        SupervisorError: its path is relative, it belongs to another user, or others may write to it.
    """
    if explicit := os.environ.get(VARIABLE):
        directory = Path(explicit)
        if not directory.is_absolute():
            raise SupervisorError(
                f"{VARIABLE}={explicit} is a relative path, which leads every process elsewhere; set it to an "
                "absolute one"
            )
    elif (runtime := os.environ.get("XDG_RUNTIME_DIR")) and _is_own(Path(runtime)):
        directory = Path(runtime) / FOLDER
    else:
        directory = Path("/tmp") / f"{FOLDER}-{os.getuid()}"  # noqa: S108 - its owner is checked below
    try:
        found = directory.stat()
    except FileNotFoundError:
        return directory
    except OSError as error:
        raise SupervisorError(
            f"the state directory {directory}, where running clusters are found, cannot be used "
            f"({error.strerror}); set {VARIABLE} to a directory of your own"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise SupervisorError(f"{directory} is not a directory; set {VARIABLE} to a directory of your own")
    if found.st_uid != os.geteuid():
        raise SupervisorError(f"{directory} belongs to another user; set {VARIABLE} to a directory of your own")
    if found.st_mode & OTHERS_WRITE:
        raise SupervisorError(
            f"others may write to the state directory {directory} (mode {stat.S_IMODE(found.st_mode):04o}), and so "
            f"take the place of your clusters; close it (chmod go-w {directory}), or set {VARIABLE} to another one"
        )
    return directory


def make_state_directory() -> Path:
    """Make the state directory if need be, for a cluster that is started: what only looks makes nothing.

    Raises:
        SupervisorError: it cannot be made, or not be used.
    """
    directory = state_directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SupervisorError(
            f"the state directory {directory}, where running clusters are found, cannot be made "
            f"({error.strerror}); set {VARIABLE} to a directory of your own"
        ) from None
    return state_directory()  # looked at again: it may be another's that has just been made


def _entries() -> list[Path]:
    """What is in the state directory; nothing, if it is not there."""
    try:
        return list(state_directory().iterdir())
    except FileNotFoundError:
        return []


def _is_own(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def default_key() -> str:
    """What a cluster is found by if no name is given: one for each user and working directory.

    So a bare ``cluster down`` ends the cluster of the project that it is called in, and no other one.
    ``AURORA_ROUTER_CLUSTER``, if set, is the name.
    """
    if explicit := os.environ.get(NAME_VARIABLE):
        return explicit
    place = f"{os.geteuid()}:{working_directory()}"
    return f"{DEFAULT_LABEL}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def working_directory() -> str:
    """The working directory, without symbolic links; empty: it was deleted."""
    try:
        return os.path.realpath(os.curdir)
    except OSError:
        return ""


class ClusterDirectory:
    """The directory of the cluster `key`; the holder of its lock is its supervisor."""

    def __init__(self, key: str) -> None:
        if not key or "/" in key or key in {".", ".."}:
            raise SupervisorError(f"{key!r} cannot be a cluster's name: it is one part of a path; see cluster list")
        self.key = key
        self.path = state_directory() / key
        self._lock: int | None = None
        self._left: list[Path] = []
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET:
            raise SupervisorError(f"{self.socket} is too long for a Unix socket; set {VARIABLE} to a shorter path")

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.path / "control.sock"

    @property
    def log(self) -> Path:
        """The supervisor's log."""
        return self.path / "supervisor.log"

    def claim(self) -> None:
        """Become the cluster's supervisor, cleaning up after one that was killed.

        Raises:
            ClusterRunningError: another supervisor holds it.
        """
        make_state_directory()
        while self._lock is None:
            self.path.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _lock_alone(lock):
                os.close(lock)
                raise ClusterRunningError(
                    f"a cluster {self.key!r} is running already; use it (cluster status --name {self.key}), "
                    f"end it (cluster down --name {self.key}), or choose another name"
                )
            if _same_file(lock, self.path / "lock"):  # else a sweep deleted it between our two steps
                self._lock = lock
            else:
                os.close(lock)
        self._left = self._sweep_run()
        for leftover in ("control.sock", "cluster.json"):
            (self.path / leftover).unlink(missing_ok=True)

    @property
    def wants_api(self) -> bool:
        """Whether it was started to be served by the RDS API."""
        try:
            facts = json.loads((self.path / "cluster.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(facts.get("wants_api"))

    def record(self, run: Path, storage: Path | None = None, *, wants_api: bool = False) -> None:
        """Note where the instances live, and storage nodes whose files are kept, for the process that cleans up."""
        facts = {"run": str(run), "storage": str(storage) if storage is not None else None}
        self._write_record({**facts, "left": list(map(str, self._left)), "wants_api": wants_api})

    def _write_record(self, facts: Mapping[str, object]) -> None:
        (self.path / "cluster.json").write_text(json.dumps(facts), encoding="utf-8")

    def _sweep_run(self) -> list[Path]:
        """End what works for the cluster and delete its run directories; returns those that could not be deleted."""
        left = self._left
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads((self.path / "cluster.json").read_text(encoding="utf-8"))
            named = [Path(text) for text in dict.fromkeys([facts["run"], *facts.get("left", [])])]
            left = [run for run in named if run.name.startswith(RUN_PREFIX) and not sweep(run)]
            if facts["storage"] is not None:
                processes.sweep(Path(facts["storage"]), NODE_COMMAND)
        return left

    def release(self) -> list[Path]:
        """Delete the directory and stop being its supervisor.

        A run directory that cannot be deleted stays registered, so that the next start of any cluster tries again.

        Returns:
            Those directories.
        """
        left = self._sweep_run()
        if left:
            with contextlib.suppress(OSError):
                (self.path / "control.sock").unlink(missing_ok=True)
                self._write_record({"run": str(left[0]), "storage": None, "left": list(map(str, left[1:]))})
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return left


def _lock_alone(lock: int) -> bool:
    """Take a supervisor's lock; False: another one holds it, for longer than a look at it takes (`running`)."""
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS / 20)
        else:
            return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def sweep(run: Path) -> bool:
    """End every process that works below `run`, and delete it; returns whether it is gone.

    A thread, or a program that works elsewhere, may still write there: then files appear while we delete, and deleting
    is repeated as long as what is left changes.
    """
    deadline = time.monotonic() + DELETE_SECONDS
    unchanged, before = 0, None
    while True:
        processes.sweep(run)
        sysv.remove_below(run)
        shutil.rmtree(run, ignore_errors=True)
        if not os.path.lexists(run):
            return True
        left = sorted(map(str, run.rglob("*")))
        unchanged = unchanged + 1 if left == before else 0
        if unchanged >= UNCHANGED or time.monotonic() > deadline:
            return False
        before = left
        time.sleep(DELETE_PAUSE)


def sweep_leftovers() -> list[str]:
    """Clean up after all supervisors that were killed; return their keys."""
    swept: list[str] = []
    for path in _entries():
        with contextlib.suppress(ClusterRunningError, SupervisorError, OSError):
            home = ClusterDirectory(path.name)
            if (path / "cluster.json").exists():
                home.claim()
                if left := home.release():
                    log.warning("%s", explain_left(left))
                else:
                    swept.append(path.name)
    return swept


def explain_left(left: Sequence[Path]) -> str:
    """What is said of run directories that could not be deleted."""
    return (
        f"{', '.join(map(str, left))} could not be deleted, and stays registered: the next start of a cluster tries "
        "again; or delete it yourself"
    )


def running() -> list[str]:
    """Keys of the clusters that run now."""
    return sorted(path.name for path in _entries() if is_locked(path / "lock"))


def is_locked(lock: Path) -> bool:
    """Whether a process holds a lock alone."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def make_run_directory(explicit: Path | None, instances: int, account: Account, below: int = 0) -> Path:
    """Make the directory for the instances' homes, which any user may pass through but not list.

    Args:
        explicit: an existing directory to make it in; None: on tmpfs where there is room, because it is many times
            faster and the data is short-lived, else where temporary files go.
        instances: how many there will be.
        account: runs the instances, and has to get there.
        below: bytes of the longest path of a Unix socket below it.

    Raises:
        DirectoryError: `explicit` cannot be used, or is too long a path.
    """
    if explicit is not None:
        check_directory(explicit, account, "--directory")
        parent = explicit
    else:
        shared_memory = Path("/dev/shm")  # noqa: S108 - mkdtemp below makes it safe
        roomy = _free(shared_memory) > instances * ROOM_PER_INSTANCE + (256 << 20)
        parent = shared_memory if roomy else Path(tempfile.gettempdir())
    longest = len(os.fsencode(parent / f"{RUN_PREFIX}12345678")) + below
    if longest > LONGEST_SOCKET:
        raise DirectoryError(
            f"the instances' Unix sockets below {parent} would have paths of {longest} bytes, and this system allows "
            f"{LONGEST_SOCKET}: choose a shorter --name, or a shorter --directory"
        )
    try:
        run = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=parent))
    except OSError as error:
        reason = explain_os_error(error)
        raise DirectoryError(f"no directory for the instances can be made in {parent}: {reason}") from None
    run.chmod(0o711)
    return run


def check_directory(directory: Path, account: Account, option: str) -> None:
    """Make sure that an existing directory can be written to by us, and entered by the account.

    Raises:
        DirectoryError: it cannot; the message says what is in the way.
    """
    what = f"{directory} ({option})"
    try:
        found = directory.stat()
    except OSError as error:
        raise DirectoryError(f"{what} cannot be used: {error.strerror}; make it first, or name another one") from None
    if not stat.S_ISDIR(found.st_mode):
        raise DirectoryError(f"{what} is not a directory; name one")
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise DirectoryError(f"{what} is on a file system that is read-only; mount it for writing, or name another one")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise DirectoryError(f"{what} cannot be written to by you; change its permissions, or name another one")
    if (wall := account.barrier(directory)) is not None:
        raise DirectoryError(
            f"{what} cannot be reached by the user {account.name}, which runs PostgreSQL because root may not: let "
            f"others pass through {wall} (chmod o+x {wall}), or name another directory"
        )


def _free(directory: Path) -> int:
    if not directory.is_dir() or not os.access(directory, os.W_OK):
        return 0
    return shutil.disk_usage(directory).free
