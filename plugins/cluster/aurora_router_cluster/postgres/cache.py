"""Where templates and copied binaries are kept between runs, and how several processes share that place."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aurora_router_cluster.postgres.account import Account

VARIABLE = "AURORA_ROUTER_CACHE"
FOLDER = "aurora-router"
UNUSED = 14 * 86400.0  # seconds


def directory(account: Account) -> Path:
    """Return the cache directory, made if need be: one that `account` may enter.

    ``AURORA_ROUTER_CACHE`` if set; else ``$XDG_CACHE_HOME/aurora-router`` or ``~/.cache/aurora-router``; for
    root, whose home is closed to the account, ``/var/cache/aurora-router`` or ``/var/tmp/aurora-router``.

    Raises:
        PermissionError: none of them can be made or entered; the message lists them.
    """
    tried: list[str] = []
    for candidate in _candidates(account):
        try:
            candidate.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            tried.append(f"{candidate} ({error.strerror})")
            continue
        wall = account.barrier(candidate)
        if wall is None and candidate.stat().st_uid == os.geteuid() and os.access(candidate, os.W_OK):
            return candidate
        reason = f"the user {account.name} may not enter {wall}" if wall else "belongs to another user"
        tried.append(f"{candidate} ({reason})")
    raise PermissionError(f"no place for the cache, tried: {', '.join(tried)}; set {VARIABLE} to a directory")


def _candidates(account: Account) -> Iterator[Path]:
    if explicit := os.environ.get(VARIABLE):
        yield Path(explicit).absolute()
        return
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        yield Path(xdg).absolute() / FOLDER
    if account.switch:
        yield Path("/var/cache") / FOLDER
        yield Path("/var/tmp") / FOLDER  # noqa: S108 - used only when it belongs to us, see `directory`
    elif not os.environ.get("XDG_CACHE_HOME"):
        yield Path.home() / ".cache" / FOLDER


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, calling ``build(staging)`` for it first where it does not exist yet.

    Two processes that need the same target at once build it once: the second waits on a lock. A builder that
    is killed leaves only a staging directory, which the next one removes; `target` appears complete or not at
    all.
    """
    if target.exists():
        with contextlib.suppress(OSError):  # removed by a prune at this moment: its reader finds out
            os.utime(target)
        return target
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with hold_lock(target.with_name(f".{target.name}.lock")):
        prefix = f".{target.name}.build-"
        for leftover in target.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not target.exists():
            staging = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            staging.chmod(0o755)
            try:
                build(staging)
                staging.rename(target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
    return target


def prune(parent: Path, unused: float = UNUSED) -> list[str]:
    """Delete what `build_once` made in `parent` and what was not asked for in `unused` seconds; return the names.

    Templates of binaries or of SQL that were replaced since would stay forever otherwise.
    """
    oldest = time.time() - unused
    stale = [path for path in parent.iterdir() if path.is_dir() and path.stat().st_mtime < oldest]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
    return [path.name for path in stale]


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if need be), waiting for it; the kernel frees it on death."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
