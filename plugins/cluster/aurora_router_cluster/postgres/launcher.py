"""Become an unprivileged user, tie one's life to the parent's, and turn into another program.

Run as ``python -I -S launcher.py PARENT UID GID PROGRAM ARG...``; UID is ``-`` to keep the present user. This is a
program of its own, not a ``preexec_fn``: the parent may have threads, and code between fork and exec is then
unsafe. The order matters: the kernel forgets the parent-death signal on a change of user, so it is set after;
and a parent that died before it was set is noticed by comparing the parent's process id.

The signal is sent when the *thread* that started the child ends, so callers spawn from a lasting thread.
"""

from __future__ import annotations

import ctypes  # at the top: after the change of user the library's files may be out of reach
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies; `parent` is the expected process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(f"the process {parent} that started this one is gone")


def main(arguments: list[str]) -> None:
    """Do what the module says; does not return."""
    parent, uid, gid, *command = arguments
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    die_with_parent(int(parent))
    os.execv(command[0], command)  # noqa: S606 - the whole purpose of this program


if __name__ == "__main__":
    main(sys.argv[1:])
