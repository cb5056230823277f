"""Limits of the machine, as sentences: which one was met, how high it is, and what can be done about it.

One limit is met in many ways: memory as ``MemoryError``, as ENOMEM of a system call, as a thread that cannot be
started, as a program that a signal ended. A program that is ended by a signal prints nothing, so what is said of it
has to come from its exit status.
"""

from __future__ import annotations

import errno
import resource
import signal

ELSEWHERE = "name a directory on another disk (--data, --directory)"
MEMORY = "end some programs, or start fewer readers (--readers)"
THREADS = "raise the limits of processes and of memory (ulimit -u, ulimit -v), or end some programs"

_ADVICE = {
    errno.ENOSPC: f"free some room, or {ELSEWHERE}",
    errno.EDQUOT: f"the quota is used up: free some room, or {ELSEWHERE}",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "this machine has too many open files: end some programs",
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or end some programs",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: f"the file system is read-only: {ELSEWHERE}",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
}
_OF_ERRORS = {
    errno.EMFILE: ("RLIMIT_NOFILE",),
    errno.ENOMEM: ("RLIMIT_AS", "RLIMIT_DATA"),
    errno.EAGAIN: ("RLIMIT_NPROC", "RLIMIT_AS"),
    errno.EFBIG: ("RLIMIT_FSIZE",),
}
_NAMES = {
    "RLIMIT_NOFILE": ("open files of a process", "-n", 1),
    "RLIMIT_NPROC": ("processes and threads of this user", "-u", 1),
    "RLIMIT_AS": ("kB of memory that a process may address", "-v", 1024),
    "RLIMIT_DATA": ("kB of data that a process may have", "-d", 1024),
    "RLIMIT_FSIZE": ("kB that a file may have", "-f", 1024),
}
"""Limit -> what it counts, the option of ``ulimit`` that sets it, and bytes (or pieces) in the unit that is shown."""
_SIGNALS = {
    signal.SIGXFSZ: (("RLIMIT_FSIZE",), "it wrote a file that is larger than allowed; raise that limit (ulimit -f)"),
    signal.SIGXCPU: ((), "it used more processor time than allowed; raise that limit (ulimit -t)"),
    signal.SIGKILL: ((), "the system may have run out of memory (see its log)"),
    signal.SIGSEGV: (("RLIMIT_AS",), "it crashed"),
    signal.SIGBUS: ((), "a file that it had mapped could not be written, for lack of room or memory"),
}


def advice(number: int) -> str:
    """What can be done about an error number of the operating system; empty: nothing that we know of."""
    said = _ADVICE.get(number, "")
    in_force = describe(*_OF_ERRORS.get(number, ()))
    return "; ".join(part for part in (said, in_force) if part)


def describe(*limits: str) -> str:
    """Those of the limits (names in `resource`) that are set for this process, in words; empty: none is."""
    shown: list[str] = []
    for name in limits:
        number = getattr(resource, name, None)
        soft = resource.getrlimit(number)[0] if number is not None else resource.RLIM_INFINITY
        if soft not in {resource.RLIM_INFINITY, -1}:
            what, option, unit = _NAMES[name]
            shown.append(f"{soft // unit} {what} (ulimit {option})")
    return f"in force now: {', '.join(shown)}" if shown else ""


def explain(error: BaseException) -> str | None:
    """An exception that is a limit of the machine, and no `OSError`, as a sentence; None: it is something else."""
    if isinstance(error, MemoryError):
        said, limits = f"there is not enough memory; {MEMORY}", _OF_ERRORS[errno.ENOMEM]
    elif isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        said, limits = f"no more thread can be started; {THREADS}", _OF_ERRORS[errno.EAGAIN]
    else:
        return None
    return "; ".join(part for part in (said, describe(*limits)) if part)


def explain_status(status: int, printed: str = "") -> str:
    """How a program failed: what it printed, else its exit status or the signal that ended it.

    Args:
        status: as `subprocess` has it: negative, it is the number of a signal; a shell adds 128 to that.
        printed: by the program.
    """
    number = -status if status < 0 else status - 128
    try:
        which = signal.Signals(number) if status < 0 or number in _SIGNALS else None
    except ValueError:
        which = None
    if which is None:
        return printed or f"it printed nothing and ended with status {status}"
    limits, cause = _SIGNALS.get(which, ((), ""))
    parts = (printed, f"ended by {which.name}", cause, describe(*limits))
    return "; ".join(part for part in parts if part)
