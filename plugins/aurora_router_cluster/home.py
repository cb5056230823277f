"""Where running clusters are found: one directory per cluster, and the lock that tells whether it lives.

::

    <state>/<key>/            mode 0700, ours
        lock                  held (flock) by the supervisor as long as it lives; the kernel frees it
        control.sock          its Unix socket
        cluster.json          {"run": directory with the instances' homes}
        supervisor.log        what it printed
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path

from aurora_router_cluster.errors import ClusterRunningError, SupervisorError
from aurora_router_cluster.postgres import processes, sysv

VARIABLE = "AURORA_ROUTER_STATE"
FOLDER = "aurora-router"
RUN_PREFIX = "aurora-"
LONGEST_SOCKET = 103  # bytes; macOS has the shortest limit
ROOM_PER_INSTANCE = 96 << 20  # bytes of tmpfs that an instance may come to need in a short life


def state_directory() -> Path:
    """The directory of all clusters of this user, made if need be.

    ``AURORA_ROUTER_STATE``, else ``$XDG_RUNTIME_DIR/aurora-router``, else ``/tmp/aurora-router-<uid>``.

    Raises:
        SupervisorError: it belongs to somebody else.
    """
    if explicit := os.environ.get(VARIABLE):
        directory = Path(explicit).absolute()
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        directory = Path(runtime) / FOLDER
    else:
        directory = Path("/tmp") / f"{FOLDER}-{os.getuid()}"  # noqa: S108 - its owner is checked below
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise SupervisorError(f"{directory} belongs to another user; set {VARIABLE} to a directory of your own")
    return directory


class Home:
    """The directory of the cluster `key`; whoever holds its lock is its supervisor."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.path = state_directory() / key
        self._lock: int | None = None
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
            ClusterRunningError: somebody else is.
        """
        while self._lock is None:
            self.path.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise ClusterRunningError(
                    f"a cluster {self.key!r} is running already; use it (cluster status --name {self.key}), "
                    f"end it (cluster down --name {self.key}), or choose another name"
                ) from None
            if _same_file(lock, self.path / "lock"):  # else a sweep deleted it between our two steps
                self._lock = lock
            else:
                os.close(lock)
        self._sweep_run()
        for leftover in ("control.sock", "cluster.json"):
            (self.path / leftover).unlink(missing_ok=True)

    def record(self, run: Path) -> None:
        """Note where the instances live, for those who clean up."""
        (self.path / "cluster.json").write_text(json.dumps({"run": str(run)}), encoding="utf-8")

    def _sweep_run(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            run = Path(json.loads((self.path / "cluster.json").read_text(encoding="utf-8"))["run"])
            if run.name.startswith(RUN_PREFIX):
                sweep(run)

    def release(self) -> None:
        """Delete the directory and stop being its supervisor."""
        self._sweep_run()
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def sweep(run: Path) -> None:
    """End every process of the instances below `run`, and delete it."""
    processes.sweep(run)
    sysv.remove_below(run)
    shutil.rmtree(run, ignore_errors=True)


def sweep_leftovers() -> list[str]:
    """Clean up after all supervisors that were killed; return their keys."""
    swept: list[str] = []
    for path in state_directory().iterdir():
        home = Home(path.name)
        with contextlib.suppress(ClusterRunningError, OSError):
            if (path / "cluster.json").exists():
                home.claim()
                home.release()
                swept.append(path.name)
    return swept


def running() -> list[str]:
    """Keys of the clusters that run now."""
    return sorted(path.name for path in state_directory().iterdir() if _is_locked(path / "lock"))


def _is_locked(lock: Path) -> bool:
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


def make_run_directory(explicit: Path | None, instances: int) -> Path:
    """Make the directory for the instances' homes, which anybody may pass through but not list.

    On tmpfs where there is room, because it is many times faster and the data is short-lived; `explicit` (an
    existing directory) decides otherwise.
    """
    parent = explicit
    if parent is None:
        shared_memory = Path("/dev/shm")  # noqa: S108 - mkdtemp below makes it safe
        roomy = _free(shared_memory) > instances * ROOM_PER_INSTANCE + (256 << 20)
        parent = shared_memory if roomy else Path(tempfile.gettempdir())
    run = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=parent))
    run.chmod(0o711)
    return run


def _free(directory: Path) -> int:
    if not directory.is_dir() or not os.access(directory, os.W_OK):
        return 0
    return shutil.disk_usage(directory).free
